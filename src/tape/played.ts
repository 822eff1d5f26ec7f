import * as L from './layout.js';
import type { BranchResult, Result, Space, Tape } from './tape.js';

/** What came back of a tape that was played. */
export class Played {
  readonly tape: Tape;
  /** The slice's bytes from its start, as they were after the play. */
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  /** Where the spaces begin. */
  readonly #data: number;

  constructor(tape: Tape, bytes: Uint8Array) {
    this.tape = tape;
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#data = tape.size - tape.dataLength;
  }

  /** An entry's result, signed: −errno on failure; −1 also where it was never played. */
  result(result: Result): bigint {
    return this.#view.getBigInt64(offsetOf(result), true);
  }

  /** As `result`, where that is no address, nor as large. */
  number(result: Result): number {
    return this.#view.getInt32(offsetOf(result), true);
  }

  /** As `result`, of an entry of a branch. */
  branchResult(result: BranchResult): bigint {
    return this.#view.getBigInt64(this.tape.branchResultOffset(result), true);
  }

  /** The bytes of a space. */
  read(space: Space): Uint8Array {
    const at = this.#data + space.offset;
    return this.bytes.subarray(at, at + space.length);
  }

  view(space: Space): DataView {
    const bytes = this.read(space);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

function offsetOf({ index }: Result): number {
  return L.HEADER_SIZE + index * L.ENTRY_SIZE + L.ENTRY.result;
}
