import type { Tape } from '../../tape/tape.js';

const CLONE_ARGS = { flags: 0, exitSignal: 32, setTid: 64, setTidSize: 72 };
const CLONE_ARGS_SIZE = 88;

/** Append clone3(2) with a chosen id; the new task is ours to trace (CLONE_PTRACE), and stops before its first instruction. */
export function clone(tape: Tape, tid: number, flags: number, exitSignal: number): void {
  const bytes = new Uint8Array(CLONE_ARGS_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(CLONE_ARGS.flags, BigInt(flags), true);
  view.setBigUint64(CLONE_ARGS.exitSignal, BigInt(exitSignal), true);
  view.setBigUint64(CLONE_ARGS.setTidSize, 1n, true);
  const args = tape.space(bytes);
  const ids = new Uint8Array(4);
  new DataView(ids.buffer).setInt32(0, tid, true);
  tape.pointer(args, CLONE_ARGS.setTid, tape.space(ids));
  tape.call('clone3', [args, CLONE_ARGS_SIZE], tid);
}
