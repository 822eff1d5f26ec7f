import * as L from './layout.js';
import type { BranchResult, Result, Space, Tape } from './tape.js';

/** What came back of a tape that was played. */
export class Played {
  readonly tape: Tape;
  /** The slice's bytes from its start, as they were after the play. */
  readonly bytes: Uint8Array;

  constructor(tape: Tape, bytes: Uint8Array) {
    this.tape = tape;
    this.bytes = bytes;
  }

  /** An entry's result, signed: −errno on failure; −1 also where it was never played. */
  result(result: Result): bigint {
    const at = L.HEADER_SIZE + result.index * L.ENTRY_SIZE + L.ENTRY.result;
    return this.#view.getBigInt64(at, true);
  }

  /** As `result`, of an entry of a branch. */
  branchResult(result: BranchResult): bigint {
    return this.#view.getBigInt64(this.tape.branchResultOffset(result), true);
  }

  /** The bytes of a space. */
  read(space: Space): Uint8Array {
    const data = this.tape.size - this.tape.dataLength;
    return this.bytes.subarray(data + space.offset, data + space.offset + space.length);
  }

  view(space: Space): DataView {
    const bytes = this.read(space);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get #view(): DataView {
    return new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  }
}
