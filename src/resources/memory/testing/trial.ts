import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dump } from '../../../engine/dump.js';
import type { CheckpointOptions, RestoreRequest } from '../../../engine/options.js';
import { restore } from '../../../engine/restore.js';
import { readSmaps } from '../../../kernel/procfs/smaps.js';
import { Subject } from '../../../testing/subject.js';

/**
 * Live round trips of memory: a program sets something up, is saved, killed and restored, and must look the same
 * from outside (every line of smaps, every byte) and find by itself what it left.
 */

/** Runs a test file again in a pid namespace whose first process collects orphans; answers whether this is inside. */
export function inPidNamespace(url: string): boolean {
  if (process.env.STASIS_TEST_INSIDE === url) return true;
  const script = '"$0" "$1"; exit $?';
  const args = ['--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', script];
  const env: NodeJS.ProcessEnv = { ...process.env, STASIS_TEST_INSIDE: url };
  delete env.NODE_TEST_CONTEXT;
  const file = new URL(url).pathname;
  const result = spawnSync('unshare', [...args, process.execPath, file], {
    env,
    encoding: 'utf8',
    timeout: 300_000,
  });
  if (process.env.STASIS_TEST_VERBOSE !== undefined) process.stdout.write(result.stdout);
  if (result.status !== 0) throw new Error(`${result.stdout}\n${result.stderr}`);
  return false;
}

const PRELUDE = `
import ctypes, mmap, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.restype = ctypes.c_void_p
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
for name in ('munmap', 'mlock'): getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
for name in ('madvise', 'mprotect'): getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
NONE, R, W, X = 0, 1, 2, 4
SHARED, PRIVATE, FIXED, ANON, GROWSDOWN, NORESERVE, HUGETLB = 1, 2, 16, 32, 0x100, 0x4000, 0x40000
PAGE = 4096
def ok(result):
  if result in (-1, 2**64 - 1): raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return result
def new(pages, prot=R|W, flags=PRIVATE|ANON, fd=-1, offset=0, at=None):
  return ok(libc.mmap(at, pages * PAGE, prot, flags, fd, offset))
def put(address, data): ctypes.memmove(address, data, len(data))
def get(address, length): return ctypes.string_at(address, length)
def fill(address, pages, tag):
  for i in range(pages): put(address + i * PAGE, b'%s %d' % (tag, i))
def filled(address, pages, tag):
  for i in range(pages):
    want = b'%s %d' % (tag, i)
    assert get(address + i * PAGE, len(want)) == want, (hex(address), i, get(address + i * PAGE, 16))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def ready():
  print('ready', flush=True)
  signal.sigwait({signal.SIGUSR1})
`;

/** `build` and `check` are Python; `ready()` lies between them. */
export interface Trial {
  readonly build: string;
  readonly check?: string;
  /** Save and restore so many times. */
  readonly rounds?: number;
  /** Contents need not be the same: the stacks of borrowed threads are written to, far below what they use. */
  readonly anyContents?: boolean;
}

const QUIET = {
  shellJob: false,
  linkRemap: true,
  ghostLimit: 1 << 20,
  external: [],
  leaveRunning: false,
  fileLocks: false,
  tcpEstablished: false,
};

export function checkpointOptions(pid: number, directory: string): CheckpointOptions {
  return {
    ...QUIET,
    pid,
    directory,
    afterwards: 'kill',
    timeout_ms: 20_000,
    checksums: false,
    durable: false,
    overwrite: true,
    rehearsed: false,
    hooks: {},
  };
}

export function restoreRequest(directory: string): RestoreRequest {
  return {
    ...QUIET,
    directory,
    inheritFds: new Map(),
    verify: false,
    trust: true,
    sibling: false,
    leaveStopped: false,
    hooks: {},
  };
}

/** A program that has been set up. */
export async function started(build: string, check = ''): Promise<Subject> {
  const code = `${PRELUDE}\n${build}\nready()\n${check}\nprint('checked', flush=True)\nready()\n`;
  const directory = mkdtempSync(join(tmpdir(), 'stasis-memory-'));
  const file = join(directory, 'subject.py');
  writeFileSync(file, code);
  // The kernel writes the number of the CPU into an rseq area whenever it likes.
  const environment = ['/usr/bin/env', 'GLIBC_TUNABLES=glibc.pthread.rseq=0'];
  const subject = Subject.start([...environment, '/usr/bin/python3', file], directory);
  await subject.expect(/ready/);
  return subject;
}

/** As `started`, with a directory for an image of it; both are gone at the end. */
export async function withImage(
  build: string,
  check: string | undefined,
  run: (subject: Subject, directory: string) => Promise<void>,
): Promise<void> {
  using subject = await started(build, check);
  const directory = mkdtempSync(join(tmpdir(), 'stasis-memory-'));
  try {
    await run(subject, directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export async function roundTrip({ build, check, rounds = 1, anyContents = false }: Trial): Promise<void> {
  await withImage(build, check, async (subject, directory) => {
    for (let round = 0; round < rounds; round++) {
      const before = await looks(subject.pid, anyContents);
      dump(checkpointOptions(subject.pid, directory));
      await gone(subject.pid);
      restore(restoreRequest(directory));
      const after = await looks(subject.pid, anyContents);
      // Only what differs: a program has a hundred mappings.
      const same = new Set(before.filter((line) => after.includes(line)));
      const changed = (lines: string[]) => lines.filter((line) => !same.has(line));
      assert.deepEqual(changed(after), changed(before), 'restored (actual) and before (expected)');
    }
    subject.signal(10);
    await subject.expect(/checked/);
  });
}

/** The program goes on from a dump and checks; what is restored of that dump when it has ended checks as well. */
export async function goesOnAndComesBack(build: string, check: string): Promise<void> {
  await withImage(build, check, async (subject, directory) => {
    dump({ ...checkpointOptions(subject.pid, directory), afterwards: 'run' });
    subject.signal(10);
    await subject.expect(/checked/);
    subject.signal(9);
    await gone(subject.pid);
    restore(restoreRequest(directory));
    subject.signal(10);
    await subject.expect(/checked\n(.*\n)*.*checked/);
  });
}

export async function gone(pid: number): Promise<void> {
  while (existsSync(`/proc/${pid}`)) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Waits until the program waits, that is until its memory does not change any more. */
async function asleep(pid: number): Promise<bigint> {
  for (;;) {
    const words = readFileSync(`/proc/${pid}/syscall`, 'utf8').split(' ');
    // rt_sigtimedwait
    if (words[0] === '128') return BigInt(words.at(-2) ?? '0');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** One line a mapping: what smaps says of it, how many of its pages are its own, and a sum of its contents. */
async function looks(pid: number, anyContents: boolean): Promise<string[]> {
  const sp = await asleep(pid);
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    return readSmaps(pid).map((mapping) => {
      const { start, end, perms, offset, path, deleted, vmFlags } = mapping;
      const flags = vmFlags.filter((flag) => flag !== 'ac').join(' ');
      const name = `${path}${deleted ? ' (deleted)' : ''}`;
      const range = `${start.toString(16)}-${end.toString(16)}`;
      const sum = anyContents ? '' : sumOf(memory, path === '[stack]' ? sp : start, end);
      return `${range} ${perms} ${offset.toString(16)} ${name} [${flags}] ${sum}`;
    });
  } finally {
    closeSync(memory);
  }
}

const SUMMED_MAX = 256n << 20n;

function sumOf(memory: number, start: bigint, end: bigint): string {
  if (end - start > SUMMED_MAX || start > 0x7fff_ffff_f000n) return 'not summed';
  const hash = createHash('sha1');
  const buffer = Buffer.alloc(4096);
  for (let at = start & ~0xfffn; at < end; at += 4096n) {
    try {
      readSync(memory, buffer, 0, 4096, at);
      hash.update(at < start ? buffer.subarray(Number(start - at)) : buffer);
    } catch {
      hash.update('unreadable');
    }
  }
  return hash.digest('hex').slice(0, 12);
}
