import { CLONE_ARGS_SIZE_VER2 } from '../abi/process.js';
import { words } from '../kernel/words.js';
import type { Space, Tape } from './tape.js';

/** Offsets in struct clone_args (clone(2), include/uapi/linux/sched.h). */
const AT = { flags: 0, parentTid: 24, exitSignal: 32, setTid: 64, setTidSize: 72 } as const;

export interface CloneOptions {
  /** What the parent is sent at the child's death; none for a thread. */
  readonly exitSignal?: number;
  /** The id the child gets (CAP_CHECKPOINT_RESTORE). */
  readonly tid?: number;
  /** Where the parent finds the child's id (CLONE_PARENT_SETTID). */
  readonly parentTid?: Space;
}

/** The two arguments of clone3(2). */
export function cloneArguments(tape: Tape, flags: number, options: CloneOptions = {}): [Space, number] {
  const bytes = new Uint8Array(CLONE_ARGS_SIZE_VER2);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(AT.flags, BigInt(flags), true);
  view.setBigUint64(AT.exitSignal, BigInt(options.exitSignal ?? 0), true);
  if (options.tid !== undefined) view.setBigUint64(AT.setTidSize, 1n, true);
  const space = tape.space(bytes);
  if (options.tid !== undefined) tape.pointer(space, AT.setTid, tape.space(words([options.tid])));
  if (options.parentTid !== undefined) tape.pointer(space, AT.parentTid, options.parentTid);
  return [space, CLONE_ARGS_SIZE_VER2];
}
