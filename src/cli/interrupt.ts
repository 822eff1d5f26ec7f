import { constants } from 'node:os';

/** SIGINT, SIGTERM and SIGHUP call off what is being done instead of ending the command in its middle. */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  /** Of the first signal. */
  number: number | undefined;
  /** Called for every signal once set, instead of calling off. */
  forward: ((signal: NodeJS.Signals) => void) | undefined;

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (this.forward !== undefined) {
      this.forward(signal);
      return;
    }
    this.number ??= constants.signals[signal];
    this.#controller.abort(signal);
  };

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
