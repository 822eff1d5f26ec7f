import * as L from './layout.js';
import type { Inside, Result, Tape } from './tape.js';

const MOST = 0x7fff_ffff;
/** A condition compiled: index of the four bytes, least and most. */
const WIDTH = 3;

/**
 * What answers of a tape have to be, in a form that is looked through quickly by code that never ran before: thousands of
 * them, while somebody stands still. Answers are four bytes: of a result, or inside of a space.
 */
export class Conditions {
  readonly #conditions: { readonly of: Result | Inside; readonly least: number; readonly most: number }[] =
    [];
  #compiled: Int32Array = new Int32Array();
  #answers: Int32Array = new Int32Array();

  /** How many there are, which is the number of the next. */
  get count(): number {
    return this.#conditions.length;
  }

  /** It is in a range. */
  within(of: Result | Inside, least: number, most: number = MOST): void {
    this.#conditions.push({ of, least, most });
  }

  /** It is this, a signed or an unsigned number. */
  equals(of: Result | Inside, value: number): void {
    this.within(of, value | 0, value | 0);
  }

  /** No condition is added any more, nor anything to the tape; `bytes` are the tape's, in this process. */
  compile(tape: Tape, bytes: Uint8Array): void {
    const data = tape.size - tape.dataLength;
    this.#answers = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
    this.#compiled = new Int32Array(this.#conditions.length * WIDTH);
    this.#conditions.forEach(({ of, least, most }, index) => {
      const at =
        of.kind === 'result'
          ? L.HEADER_SIZE + of.index * L.ENTRY_SIZE + L.ENTRY.result
          : data + of.space.offset + of.at;
      this.#compiled.set([at >> 2, least, most], index * WIDTH);
    });
    this.#conditions.length = 0;
  }

  /** The first of the conditions from `begin` on that is not met, or `end`. */
  firstUnmet(begin: number, end: number): number {
    const compiled = this.#compiled;
    const answers = this.#answers;
    for (let number = begin; number < end; number++) {
      const at = number * WIDTH;
      const answer = answers[compiled[at] ?? 0] ?? 0;
      if (answer < (compiled[at + 1] ?? 0) || answer > (compiled[at + 2] ?? 0)) return number;
    }
    return end;
  }
}
