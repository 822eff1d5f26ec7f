import { SYSCALL_X86_64, type SyscallName } from '../abi/syscalls.js';
import { playHere } from '../kernel/ffi.js';
import { NativeMemory } from '../kernel/memory.js';
import * as L from './layout.js';
import { Played, type Tape } from './tape.js';

/**
 * A tape that this process plays itself: hundreds of calls for the price of one through the FFI, prepared when there is time
 * and played when there is none. It does not stop before its end, so its entries should expect `any` answer.
 */
export class OwnTape implements Disposable {
  readonly #tape: Tape;
  readonly #memory: NativeMemory;

  constructor(tape: Tape) {
    this.#tape = tape;
    this.#memory = new NativeMemory(tape.size);
    const { address, bytes, view } = this.#memory;
    bytes.set(tape.assemble(address));
    // At its end a tape makes a call to stop by; this one has nobody to stop for.
    view.setBigUint64(L.HEADER.stopCall, BigInt(SYSCALL_X86_64.getpid), true);
    view.setBigUint64(L.HEADER.tail, tape.tailAddress(address), true);
  }

  get bytes(): Uint8Array {
    return this.#memory.bytes;
  }

  /** `name` is what most of its calls are. What it answers is good until the tape is disposed of. */
  play(name: SyscallName): Played {
    const { address, bytes } = this.#memory;
    playHere(name, address, this.#tape.entryAddress(0, address));
    return new Played(this.#tape, bytes);
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
