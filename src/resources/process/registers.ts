import { create } from '@bufbuild/protobuf';
import {
  type core_entry,
  thread_info_x86Schema,
  type user_desc_t,
  user_desc_tSchema,
  user_x86_regs_entrySchema,
} from '../../image/schema/index.js';
import { REGISTER_NAMES, type RegisterName, type Registers } from '../../kernel/registers.js';
import { nameOf, type RestoreTask, type Thread } from '../contract.js';
import { extrasFor } from './extras.js';
import type { TaskExtras } from './extras-codec.js';
import { registersFromImage } from './interrupted.js';
import { decodeFpregs, encodeFpregs } from './xstate.js';

/** General and extended registers: read and written by ptrace while a thread is stopped. */

/** user_x86_regs_mode: a 64-bit task. */
const NATIVE = 1;
/** GDT entries of set_thread_area(2), which 64-bit programs do not use. */
const TLS_ENTRIES = [12, 13, 14];

const FIELD = {
  r15: 'r15', r14: 'r14', r13: 'r13', r12: 'r12', bp: 'bp', bx: 'bx', r11: 'r11', r10: 'r10', r9: 'r9', r8: 'r8',
  ax: 'ax', cx: 'cx', dx: 'dx', si: 'si', di: 'di', orig_ax: 'origAx', ip: 'ip', cs: 'cs', flags: 'flags', sp: 'sp',
  ss: 'ss', fs_base: 'fsBase', gs_base: 'gsBase', ds: 'ds', es: 'es', fs: 'fs', gs: 'gs',
} as const satisfies Record<RegisterName, string>; // biome-ignore format: two tables side by side

/**
 * Fill in `core.thread_info` of a frozen thread, with an interrupted system call ready to be made again. The extended
 * state follows by `dumpExtendedRegisters`, which may come after the thaw.
 */
export function dumpRegisters(thread: Thread): void {
  const { frozen } = thread;
  if (frozen === undefined) throw new Error(`${nameOf(thread)} is not frozen`);
  const { home: registers } = frozen;
  const gpregs = create(user_x86_regs_entrySchema, { mode: NATIVE });
  for (const name of REGISTER_NAMES) gpregs[FIELD[name]] = registers[name];
  thread.core.threadInfo = create(thread_info_x86Schema, {
    clearTidAddr: 0n,
    gpregs,
    tls: TLS_ENTRIES.map(emptyTls),
  });
}

/** The extended state that was read at the freeze. */
export function dumpExtendedRegisters({ core, frozen }: Thread): void {
  if (core.threadInfo !== undefined && frozen !== undefined)
    core.threadInfo.fpregs = encodeFpregs(frozen.xstate);
}

function emptyTls(entryNumber: number): user_desc_t {
  return create(user_desc_tSchema, {
    entryNumber,
    baseAddr: 0,
    limit: 0,
    seg32bit: false,
    contentsH: false,
    contentsL: false,
    readExecOnly: true,
    limitInPages: false,
    segNotPresent: true,
    usable: false,
  });
}

export interface LoadedRegisters {
  readonly registers: Registers;
  /** For PTRACE_SETREGSET(NT_X86_XSTATE); undefined where the image has no extended state. */
  readonly xstate: Uint8Array | undefined;
  /** What is left of the relative timeout of the call that is made again, in nanoseconds; undefined: all of it. */
  readonly remaining_ns: bigint | undefined;
}

/**
 * What to set by ptrace before a restored task is let go. `host` is an xsave area that PTRACE_GETREGSET gave on this
 * machine (the stem's own): its size and features say how one is laid out here.
 * Throws when the task is not a 64-bit one, or uses registers that this machine lacks.
 */
export function loadRegisters(
  task: Pick<RestoreTask, 'core' | 'tid' | 'name' | 'reader'>,
  host: Uint8Array,
): LoadedRegisters {
  const { core, name } = task;
  const info = core.threadInfo;
  const gpregs = info?.gpregs;
  if (info === undefined || gpregs === undefined)
    throw new Error(`${name}: the image has no registers for it`);
  if (gpregs.mode !== NATIVE) throw new Error(`${name} is a 32-bit task, which this release cannot restore`);
  refuseTls(core, name);
  const extras = extrasFor(task.reader, task.tid);
  const image = {} as Registers;
  for (const register of REGISTER_NAMES) image[register] = gpregs[FIELD[register]];
  const registers = registersFromImage(image, extras?.restart);
  const xstate =
    info.fpregs === undefined
      ? undefined
      : decodeFpregs(info.fpregs, extras?.xstate ?? new Map(), host, name);
  return { registers, xstate, remaining_ns: remainingFor(core, extras) };
}

/** A seccomp filter would have to allow restart_syscall(2), which the program need not have thought of. */
function remainingFor(core: core_entry, extras: TaskExtras | undefined): bigint | undefined {
  const { restart, remaining } = extras ?? {};
  if (restart === undefined || remaining === undefined) return undefined;
  return (core.threadCore?.seccompMode ?? 0) === 0 ? BigInt(remaining) : undefined;
}

function refuseTls(core: core_entry, name: string): void {
  if (core.threadInfo?.tls.some(({ usable, segNotPresent }) => usable || !segNotPresent))
    throw new Error(`${name} has segments made with set_thread_area(2), which this release cannot restore`);
}
