import { createHash } from 'node:crypto';

/**
 * What every member of the demo's workload does: it keeps some memory, and at every beat takes one step of a chain that
 * runs through that memory and changes it. All of it follows from a seed, so whoever knows the seed knows what each
 * member must answer at each beat and what its memory must be then; a lost, repeated or changed byte shows at once.
 * The Python pair does the same in its own words (python.ts).
 */
export const PAGE_BYTES = 4096;
const STATE_BYTES = 32;

/** The memory a member begins with. */
export function ballastOf(seed: string, name: string, pages: number): Buffer {
  return createHash('shake256', { outputLength: pages * PAGE_BYTES })
    .update(`${seed}:${name}`)
    .digest();
}

export class Party {
  readonly #ballast: Uint8Array;
  readonly #pages: number;
  #state = Buffer.alloc(STATE_BYTES);

  /** `ballast` as of `ballastOf`; whole pages. It is changed in place. */
  constructor(ballast: Uint8Array) {
    this.#ballast = ballast;
    this.#pages = ballast.length / PAGE_BYTES;
  }

  /** One step: the state moves on through the page whose turn it is, and is left in it. Answers the state in hex. */
  step(beat: number): string {
    const number = Buffer.alloc(4);
    number.writeUInt32LE(beat);
    const start = (beat % this.#pages) * PAGE_BYTES;
    const page = this.#ballast.subarray(start, start + PAGE_BYTES);
    this.#state = createHash('sha256').update(this.#state).update(number).update(page).digest();
    page.set(this.#state);
    return this.#state.toString('hex');
  }

  /** SHA-256 of all of its memory, in hex. */
  get memoryHash(): string {
    return createHash('sha256').update(this.#ballast).digest('hex');
  }
}
