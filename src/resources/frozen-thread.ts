import type { RseqConfiguration } from '../kernel/ptrace.js';
import type { Registers } from '../kernel/registers.js';

/** What a thread is stopped with. */
export interface FrozenThread {
  registers: Registers;
  /** As the image has them: an interrupted system call is made again from its beginning. */
  readonly home: Registers;
  readonly mask: bigint;
  readonly xstate: Uint8Array;
  readonly rseq: RseqConfiguration | undefined;
  /** What is left of the interrupted call's relative timeout, in nanoseconds; undefined where it is not known. */
  readonly remaining_ns?: bigint;
  /**
   * When the wait ends whose timeout can be set in its registers, in nanoseconds of CLOCK_MONOTONIC; undefined for
   * others, which the kernel lets go on by itself.
   */
  readonly end_ns?: bigint;
}
