import type { Refusal } from '../resources/contract.js';

/** The tree has state that cannot be saved; nothing was touched. `items` are all the reasons there are. */
export class UnsupportedError extends Error {
  readonly code = 'EUNSUPPORTED';
  readonly items: readonly Refusal[];

  constructor(items: readonly Refusal[], what = 'cannot be saved') {
    super(`The tree ${what}:\n${items.map((item) => `  ${describeRefusal(item)}`).join('\n')}`);
    this.name = 'UnsupportedError';
    this.items = items;
  }
}

/** As UnsupportedError, for what passes by itself, given time. */
export class PassingError extends UnsupportedError {
  /** Keeps more of it from coming. */
  readonly hold: (() => Disposable) | undefined;

  constructor(items: readonly Refusal[], what: string, hold?: () => Disposable) {
    super(items, what);
    this.hold = hold;
  }
}

/** "Cannot save descriptor 7 (io_uring) of pid 12 (nginx): …; …" */
export function describeRefusal(item: Refusal): string {
  const help = item.help === undefined ? '' : `; ${item.help}`;
  return `${item.object} of ${item.task}: ${item.reason}${help}`;
}

/** A restore that could not be done; no process of it is left. */
export class RestoreError extends Error {
  readonly code: string;

  constructor(message: string, code = 'ERESTORE', options?: ErrorOptions) {
    super(message, options);
    this.name = 'RestoreError';
    this.code = code;
  }
}

/** A tree was to go to the other end of a stream, and has not. */
export class MoveError extends Error {
  readonly code = 'EMOVE';
  /** What the tree at this end does now. */
  readonly sourceState: 'running' | 'stopped';

  constructor(message: string, sourceState: 'running' | 'stopped', options?: ErrorOptions) {
    super(message, options);
    this.name = 'MoveError';
    this.sourceState = sourceState;
  }
}
