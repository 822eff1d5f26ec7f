import { existsSync } from 'node:fs';
import { ERRNO } from '../abi/errno.js';
import * as C from '../abi/process.js';
import { PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP } from '../abi/ptrace.js';
import { SIGCHLD, SIGURG } from '../abi/signal.js';
import { SyscallError } from '../kernel/errors.js';
import { OwnedFd } from '../kernel/fd.js';
import { addressOf, spawnFrom } from '../kernel/ffi.js';
import { insist } from '../kernel/insist.js';
import { NativeMemory, scratch, scratchString } from '../kernel/memory.js';
import * as ptrace from '../kernel/ptrace.js';
import { attempt, sleep_us, syscall } from '../kernel/syscall.js';
import { describeStatus, isEventStop, waitFor } from '../kernel/wait.js';
import { STEM_PAGES_SIZE, stemElf } from '../machine/stem.js';
import { LOOP_IDLE } from '../machine/x86_64.js';
import { CODE_SIZE, PAGE_SIZE, type Slice } from './layout.js';
import { type Actor, LostTaskError } from './play.js';

/**
 * Where a stem's workspace lies: the stem's own file below it, then the loop, then the leader's slice.
 * `address` and `size` are multiples of the page size.
 */
export interface Workspace {
  readonly address: bigint;
  readonly size: bigint;
}

export const ELF_ROOM = BigInt(STEM_PAGES_SIZE) * 4n;

/** The slice at `offset` (from CODE_SIZE on) of a workspace. */
export function sliceOf(workspace: Workspace, offset: number, size: number): Slice {
  return { code: workspace.address, address: workspace.address + BigInt(offset), size };
}

export interface StemOptions {
  readonly workspace: Workspace;
  /** Bytes of the first task's slice. */
  readonly sliceSize: number;
  /** The pid it must get, in this process's pid namespace; any when undefined. */
  readonly pid?: number;
  /** Make it a sibling of this process, not a child (CLONE_PARENT). */
  readonly sibling?: boolean;
  readonly name: string;
}

const SIGKILL = 9;
const STACK_SIZE = 16 * 1024;

/**
 * Start a stem, seized with PTRACE_O_EXITKILL, stopped and ready to play; its parent's death kills it as well
 * (PR_SET_PDEATHSIG), until a tape says otherwise. Works from a multi-threaded process: the
 * child shares our memory until it executes, and runs only SPAWN.
 * Throws SyscallError (EEXIST: the pid is taken; EPERM: no CAP_CHECKPOINT_RESTORE).
 */
export function startStem(options: StemOptions): Actor {
  const born: number[] = [];
  try {
    return bear(options, born);
  } catch (error) {
    for (const pid of born) endStem(pid);
    throw error;
  }
}

/** Whatever fails after it is in `born`, the letting go of what was used included, it is to be ended. */
function bear(options: StemOptions, born: number[]): Actor {
  const { workspace } = options;
  using file = stemFile(workspace);
  using memory = new NativeMemory(STACK_SIZE + PAGE_SIZE);
  const at = STACK_SIZE;
  const view = memory.view;
  const flags = C.CLONE_VM | C.CLONE_VFORK | (options.sibling === true ? C.CLONE_PARENT : 0);
  view.setBigUint64(at, BigInt(flags) | BigInt(C.CLONE_CLEAR_SIGHAND), true);
  view.setBigUint64(at + 32, options.sibling === true ? 0n : BigInt(SIGCHLD), true);
  view.setBigUint64(at + 40, memory.address, true);
  view.setBigUint64(at + 48, BigInt(STACK_SIZE), true);
  if (options.pid !== undefined) {
    view.setBigUint64(at + 64, memory.address + BigInt(at + 128), true);
    view.setBigUint64(at + 72, 1n, true);
    view.setInt32(at + 128, options.pid, true);
  }
  memory.bytes.set(Buffer.from('stasis-stem\0'), at + 256);
  view.setBigUint64(at + 192, memory.address + BigInt(at + 256), true);
  view.setInt32(at + 224, options.sibling === true ? process.ppid : process.pid, true);
  const base = memory.address + BigInt(at);
  const pid = whenFree(options.pid, () =>
    spawnFrom(base, C.CLONE_ARGS_SIZE_VER2, file.fd, base + 208n, base + 192n, base + 200n),
  );
  if (pid < 0) throw new SyscallError('clone3', -pid, `${options.name}, pid ${options.pid ?? 'any'}`);
  born.push(pid);
  return adopt(pid, options);
}

/** How long a number may be in use that nobody has. */
const FREED_MS = 2000;

/** A task is gone for all to see a moment before its number is free (kernel/exit.c release_task). */
function whenFree(pid: number | undefined, spawn: () => number): number {
  for (const deadline = Date.now() + FREED_MS; ; sleep_us(500)) {
    const result = spawn();
    const isLeft = result === -ERRNO.EEXIST && pid !== undefined && !existsSync(`/proc/${pid}`);
    if (!isLeft || Date.now() > deadline) return result;
  }
}

/** SIGKILL a stem, and wait until it is gone. */
export function endStem(pid: number): void {
  insist(() => {
    attempt('kill', [pid, SIGKILL]);
    while (waitFor(pid).kind === 'stopped');
  });
}

function stemFile(workspace: Workspace): OwnedFd {
  const elf = stemElf(workspace.address - ELF_ROOM, workspace.address, workspace.size);
  const MFD_CLOEXEC = 1;
  const MFD_EXEC = 0x10;
  const file = new OwnedFd(syscall('memfd_create', [scratchString('stasis-stem'), MFD_CLOEXEC | MFD_EXEC]));
  const bytes = new Uint8Array(new ArrayBuffer(PAGE_SIZE), 0, elf.length);
  bytes.set(elf);
  syscall('write', [file.fd, addressOf(bytes), elf.length]);
  return file;
}

/** Seize the new process and bring it to its idle loop. */
function adopt(pid: number, options: StemOptions): Actor {
  seize(pid);
  const idle = options.workspace.address + BigInt(LOOP_IDLE);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    // An interrupt stops it before its next instruction, so it has to be given time in between to get anywhere.
    sleep_us(20 * attempt);
    ptrace.interrupt(pid);
    const status = waitFor(pid);
    if (!isEventStop(status))
      throw new LostTaskError(
        `stem for ${options.name}: ${describeStatus(status)}; address ${options.workspace.address.toString(16)} may be taken`,
      );
    const base = ptrace.getRegisters(pid);
    if (base.ip >= idle && base.ip < idle + 16n) {
      const slice = sliceOf(options.workspace, CODE_SIZE, options.sliceSize);
      return {
        tid: pid,
        inside: insideIds(pid),
        slice,
        base,
        stopSignal: SIGURG,
        leave: undefined,
        name: options.name,
      };
    }
    ptrace.resume(pid);
    if (attempt > HURRIED_ATTEMPTS) pause();
  }
  throw new LostTaskError(`stem for ${options.name} did not reach its idle loop`);
}

/** A page fault that meets a pending stop is given up and made again, so a stem interrupted too often never arrives. */
const HURRIED_ATTEMPTS = 10;

/** Sleep 50 µs. */
function pause(): void {
  scratch.view.setBigInt64(0, 0n, true);
  scratch.view.setBigInt64(8, 50_000n, true);
  syscall('nanosleep', [scratch.address, 0]);
}

/** The last of them wait ten milliseconds each, two and a half seconds together. */
const ATTEMPTS = 500;

function insideIds(pid: number): { pid: number; tid: number } {
  return { pid, tid: pid };
}

/** A half-restored tree dies with us. */
export const STEM_OPTIONS = PTRACE_O_EXITKILL;

/**
 * Filters that a tape installs must not see the rest of its calls. Tracers without the privilege (or with filters of
 * their own) cannot have it, and cannot restore tasks with filters then. Tasks born of a stem inherit the options.
 */
function seize(pid: number): void {
  try {
    ptrace.seize(pid, STEM_OPTIONS | PTRACE_O_SUSPEND_SECCOMP);
  } catch (error) {
    if (!(error instanceof SyscallError) || (error.errno !== ERRNO.EPERM && error.errno !== ERRNO.EINVAL))
      throw error;
    ptrace.seize(pid, STEM_OPTIONS);
  }
}
