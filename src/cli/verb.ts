import { CancelledError } from '../library/errors.js';
import { EXIT_SIGNAL, errorAsJson, messageOf, statusOf } from './exit.js';
import { Interrupt } from './interrupt.js';
import { print, printError } from './output.js';

/** Runs one verb: its errors become a message and a status, signals call it off. */
export async function runVerb(
  json: boolean,
  verb: (interrupt: Interrupt) => Promise<number>,
): Promise<number> {
  using interrupt = new Interrupt();
  try {
    return await verb(interrupt);
  } catch (error) {
    printError(`stasis: ${messageOf(error)}`);
    if (json) printJson(errorAsJson(error));
    if (error instanceof CancelledError && interrupt.number !== undefined)
      return EXIT_SIGNAL + interrupt.number;
    return statusOf(error);
  }
}

/** One object on one line. */
export function printJson(value: object): void {
  print(JSON.stringify(value));
}
