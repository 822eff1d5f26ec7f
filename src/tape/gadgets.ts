import { closeSync, openSync, readSync } from 'node:fs';
import { type Mapping, mapFilePath } from '../kernel/procfs/maps.js';
import { readRemote } from '../kernel/remote.js';

/**
 * Instructions that are in every process anyway, by which a task can leave our memory behind: a `syscall` that
 * returns, and a signal restorer. What lies between `syscall` and `ret` may only clear registers.
 */
export interface Gadgets {
  /** `syscall`, register-clearing xors, `ret`. */
  readonly syscall: bigint;
  /** `mov $15,%eax; syscall`: rt_sigreturn. */
  readonly sigreturn: bigint;
}

const RESTORERS = [
  Buffer.from('48c7c00f0000000f05', 'hex'), // mov $15,%rax; syscall (glibc, musl)
  Buffer.from('b80f0000000f05', 'hex'), // mov $15,%eax; syscall (Go and others)
];
/** `jmp` to itself. */
const SPINS = [Buffer.from('ebfe', 'hex')];
const SEARCH_MAX = 256 * 1024 * 1024;
const CHUNK = 4 * 1024 * 1024;
const OVERLAP = 16;

/** Where `syscall` + xors + `ret` starts in some code; −1 if nowhere. */
export function findSyscallReturn(code: Uint8Array): number {
  for (let at = 0; at + 2 < code.length; at++) {
    if (code[at] !== 0x0f || code[at + 1] !== 0x05) continue;
    let next = at + 2;
    for (;;) {
      if (code[next] === 0x31) next += 2;
      else if (code[next] === 0x45 && code[next + 1] === 0x31) next += 3;
      else break;
    }
    if (code[next] === 0xc3) return at;
  }
  return -1;
}

/** Offsets in files, by device, inode and offset of the mapping: the same libraries are in every process. */
const found = new Map<string, number>();

function searchFile(pid: number, mapping: Mapping, patterns: readonly Buffer[]): number {
  const key = `${patterns[0]?.toString('hex')}:${mapping.major}:${mapping.minor}:${mapping.inode}:${mapping.offset}:${mapping.end - mapping.start}`;
  const known = found.get(key);
  if (known !== undefined) return known;
  const at = search(pid, mapping, patterns);
  found.set(key, at);
  return at;
}

function search(pid: number, mapping: Mapping, patterns: readonly Buffer[]): number {
  const size = Math.min(Number(mapping.end - mapping.start), SEARCH_MAX);
  const fd = openSync(mapFilePath(pid, mapping), 'r');
  try {
    const buffer = Buffer.alloc(Math.min(CHUNK + OVERLAP, size));
    for (let from = 0; from < size; from += CHUNK) {
      const length = Math.min(buffer.length, size - from);
      const count = readSync(fd, buffer, 0, length, Number(mapping.offset) + from);
      for (const pattern of patterns) {
        const at = buffer.subarray(0, count).indexOf(pattern);
        if (at >= 0) return from + at;
      }
    }
    return -1;
  } finally {
    closeSync(fd);
  }
}

function isCode(mapping: Mapping): boolean {
  return mapping.perms.startsWith('r-x');
}

function rank(mapping: Mapping): number {
  if (/\/(libc[.-]|ld-musl)/.test(mapping.path)) return 0;
  return mapping.end - mapping.start < 8n * 1024n * 1024n ? 1 : 2;
}

/**
 * Find the gadgets in a process. The file that holds the restorer is read, not the process's memory, unless the
 * mapping has no file. Undefined where there are none; whoever wants to borrow a thread then has to go without.
 */
export function findGadgets(pid: number, mappings: readonly Mapping[]): Gadgets | undefined {
  const vdso = mappings.find((mapping) => mapping.path === '[vdso]');
  const code = mappings.filter(isCode).sort((a, b) => rank(a) - rank(b));
  let syscall = vdso === undefined ? -1n : inMemory(pid, vdso, findSyscallReturn);
  let sigreturn = -1n;
  for (const mapping of code) {
    if (mapping.path.startsWith('[') || mapping.inode === 0n) continue;
    if (sigreturn < 0n) {
      const at = searchFile(pid, mapping, RESTORERS);
      if (at >= 0) sigreturn = mapping.start + BigInt(at);
    }
    if (syscall < 0n && mapping.end - mapping.start < BigInt(CHUNK))
      syscall = inMemory(pid, mapping, findSyscallReturn);
    if (syscall >= 0n && sigreturn >= 0n) return { syscall, sigreturn };
  }
  return undefined;
}

/**
 * A `jmp` to itself, where a thread can be kept without a system call; two bytes that are in any larger library, by
 * chance where not by intent. Undefined where there are none.
 */
export function findSpin(pid: number, mappings: readonly Mapping[]): bigint | undefined {
  for (const mapping of mappings) {
    if (!isCode(mapping) || mapping.path.startsWith('[') || mapping.inode === 0n) continue;
    const at = searchFile(pid, mapping, SPINS);
    if (at >= 0) return mapping.start + BigInt(at);
  }
  return undefined;
}

function inMemory(pid: number, mapping: Mapping, find: (code: Uint8Array) => number): bigint {
  const at = find(readRemote(pid, mapping.start, Number(mapping.end - mapping.start)));
  return at < 0 ? -1n : mapping.start + BigInt(at);
}
