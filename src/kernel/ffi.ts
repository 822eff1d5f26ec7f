import koffi from 'koffi';
import { SYSCALL_X86_64, type SyscallName } from '../abi/syscalls.js';
import { CPUID } from '../machine/cpuid.js';
import { BATCH, HERE, LOOP, RAW_SYSCALL, SPAWN } from '../machine/x86_64.js';

/**
 * The one importer of the FFI. libc's syscall(2) is called once, to map a page for RAW_SYSCALL; from then on the
 * raw call answers −errno itself, so that nothing V8 does between two lines can overwrite an errno of ours.
 */

/** What a system call takes: an integer, or an address (bytes go by `NativeMemory` or `addressOf`). */
export type Argument = number | bigint;

type RawCall = (number: number, ...args: Argument[]) => number | bigint;

const PROT_RWX = 7;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const PAGE = 4096;
/** Where CPUID lies in the page, behind the other two. */
const CPUID_OFFSET = 2048;
const HERE_OFFSET = 1024;
const LOOP_OFFSET = 3072;
const BATCH_OFFSET = 1536;

function mapCode(): bigint {
  const libc = koffi.load(null);
  const syscall = libc.func(
    'int64_t syscall(int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t)',
  );
  const address = BigInt(
    syscall(SYSCALL_X86_64.mmap, 0, PAGE, PROT_RWX, MAP_PRIVATE_ANONYMOUS, -1, 0) as number,
  );
  if (address <= 0n) throw new Error('stasis: no executable page to be had for system calls (mmap failed)');
  const page = new Uint8Array(koffi.view(address, PAGE));
  page.set(RAW_SYSCALL, 0);
  page.set(SPAWN, RAW_SYSCALL.length);
  page.set(HERE, HERE_OFFSET);
  page.set(CPUID, CPUID_OFFSET);
  page.set(LOOP, LOOP_OFFSET);
  page.set(BATCH, BATCH_OFFSET);
  return address;
}

const code = mapCode();
// SAFETY: both prototypes name the registers that RAW_SYSCALL and SPAWN read; the page is never unmapped.
const raw = koffi.decode(
  code,
  koffi.proto('int64_t stasis_raw(int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t)'),
) as RawCall;
const spawn = koffi.decode(
  code + BigInt(RAW_SYSCALL.length),
  koffi.proto('int64_t stasis_spawn(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t)'),
) as (...args: Argument[]) => number | bigint;

// SAFETY: the prototype names the registers that HERE reads; LOOP uses no stack, and HERE saves all that neither may change.
const here = koffi.decode(
  code + BigInt(HERE_OFFSET),
  koffi.proto('int64_t stasis_here(uint64_t, uint64_t, uint64_t)'),
) as (...args: Argument[]) => number | bigint;

// SAFETY: the prototype names the registers that BATCH reads; it saves all that it may not change.
const batch = koffi.decode(
  code + BigInt(BATCH_OFFSET),
  koffi.proto('int64_t stasis_batch(uint64_t, uint64_t)'),
) as (...args: Argument[]) => number | bigint;

/** Called before every system call of ours when set; the fault tests end the process in it. */
export const hook: { beforeCall: ((name: SyscallName) => void) | undefined } = { beforeCall: undefined };

/**
 * Make one system call. Answers the kernel's result, −errno on failure.
 * A result above 2^53 (no address or length on x86-64 is) would lose precision and throws.
 */
export function call(
  name: SyscallName,
  a: Argument = 0,
  b: Argument = 0,
  c: Argument = 0,
  d: Argument = 0,
  e: Argument = 0,
  f: Argument = 0,
): number {
  hook.beforeCall?.(name);
  const result = raw(SYSCALL_X86_64[name], a, b, c, d, e, f);
  if (typeof result === 'bigint') throw new RangeError(`${name}: result ${result} does not fit a number`);
  return result;
}

/** clone3(2) with `cloneArgs`, the child executing `fd` at once; see SPAWN. Answers the child's pid or −errno. */
export function spawnFrom(
  cloneArgs: bigint,
  size: number,
  fd: number,
  empty: bigint,
  argv: bigint,
  envp: bigint,
): number {
  hook.beforeCall?.('clone3');
  return Number(spawn(cloneArgs, size, fd, empty, argv, envp));
}

/**
 * Play the tape that lies at `header` in this thread, from `entry` on; `name` is what most of its calls are.
 * SAFETY: the caller answers for every pointer in it, and that its tail leaves.
 */
export function playHere(name: SyscallName, header: bigint, entry: bigint): void {
  hook.beforeCall?.(name);
  here(header, entry, code + BigInt(LOOP_OFFSET));
}

/**
 * Make `count` calls, whose entries for BATCH lie at `first`, up to one that answers less than it must. Answers how many are
 * left, that one included.
 * SAFETY: the caller answers for every pointer in them.
 */
export function callAll(first: bigint, count: number): number {
  return Number(batch(first, count));
}

/**
 * Address of a buffer's bytes. Backing stores of at least 64 bytes lie outside V8's moving heap and stay put. The buffer
 * lives at least until this is asked of another: compiled code forgets what it only needs the address of.
 */
export function addressOf(bytes: Uint8Array): bigint {
  asked = bytes;
  return BigInt(koffi.address(bytes));
}

/** Kept from the garbage collector; see `addressOf`. */
export let asked: Uint8Array | undefined;

/** A view of `length` bytes of this process's memory at `address`. */
export function viewOf(address: bigint, length: number): ArrayBuffer {
  return koffi.view(address, length);
}

/** Run CPUID; its four answers are written to `registers`, an address of 16 bytes: eax, ebx, ecx, edx. */
export function cpuid(leaf: number, subleaf: number, registers: bigint): void {
  // SAFETY: the prototype names the registers that CPUID reads; it saves rbx, the only one it may not change.
  cpuidCode ??= koffi.decode(
    code + BigInt(CPUID_OFFSET),
    koffi.proto('int64_t stasis_cpuid(uint32_t, uint32_t, uint64_t)'),
  ) as (leaf: number, subleaf: number, registers: bigint) => number;
  cpuidCode(leaf, subleaf, registers);
}

let cpuidCode: ((leaf: number, subleaf: number, registers: bigint) => number) | undefined;
