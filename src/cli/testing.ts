import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Commands of this checkout, run as their callers do. */

export const CRIU = fileURLToPath(new URL('../../libexec/criu', import.meta.url));
export const STASIS = fileURLToPath(new URL('../../bin/stasis', import.meta.url));

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const TIMEOUT_MS = 60_000;

export function runCommand(command: string, args: readonly string[], env: Record<string, string> = {}): Ran {
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
  });
  return { status, stdout, stderr };
}

/** A directory that goes with its scope. */
export class Scratch implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'stasis-cli-'));

  file(name: string): string {
    return join(this.path, name);
  }

  read(name: string): string {
    return readFileSync(this.file(name), 'utf8');
  }

  /** An executable shell script. */
  script(name: string, text: string): string {
    const file = this.file(name);
    writeFileSync(file, `#!/bin/sh\n${text}\n`);
    chmodSync(file, 0o755);
    return file;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Counts in a file, which is never empty, nor another one, forever; ends with status 7 by SIGTERM. */
export function counting(file: string): string {
  return `
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
n = 0
print('ready', flush=True)
while True:
    n += 1
    fd = os.open(${JSON.stringify(file)}, os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, b'%012d' % n, 0)
    os.close(fd)
    time.sleep(0.005)
`;
}

export function counted(file: string): number {
  try {
    return Number(readFileSync(file, 'utf8'));
  } catch {
    return 0;
  }
}

/** Wait until something is so. */
export async function until(what: string, condition: () => boolean, timeout_ms = 20_000): Promise<void> {
  const deadline = Date.now() + timeout_ms;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not so after ${timeout_ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Wait until the program counts on from where it is now. */
export async function countsOn(file: string): Promise<void> {
  const now = counted(file);
  await until(`${file} counts on from ${now}`, () => counted(file) > now);
}

export function stateOf(pid: number): string | undefined {
  try {
    return /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
}

export function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}
