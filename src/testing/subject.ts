import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attempt } from '../kernel/syscall.js';

/**
 * Programs as subjects of live tests. They are started through a shell that ends at once, so that they are no
 * children of the test process: libuv would swallow the stops of a traced child. They lead a session of their own.
 */
export class Subject implements Disposable {
  readonly pid: number;
  /** Its stdout and stderr go here. */
  readonly outputFile: string;
  readonly directory: string;

  private constructor(pid: number, directory: string, outputFile: string) {
    this.pid = pid;
    this.directory = directory;
    this.outputFile = outputFile;
  }

  /** Start a program; descriptors 0–2 are /dev/null and the output file, all others closed. */
  static start(command: readonly string[], directory = mkdtempSync(join(tmpdir(), 'stasis-test-'))): Subject {
    const outputFile = join(directory, 'output');
    const script =
      'for fd in $(ls /proc/self/fd); do [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done 2>/dev/null; out="$1"; shift; setsid "$@" </dev/null >>"$out" 2>&1 & echo $!';
    const pid = execFileSync('bash', ['-c', script, 'bash', outputFile, ...command], { encoding: 'utf8' });
    return new Subject(Number(pid), directory, outputFile);
  }

  /**
   * Python code; print with flush=True. A signal that comes after Python's last look for one and before its pause(2) is
   * handled when the next one comes; so programs with handlers wait in pieces: `signal.sigtimedwait((), 0.05)`.
   */
  static python(code: string): Subject {
    const directory = mkdtempSync(join(tmpdir(), 'stasis-test-'));
    const file = join(directory, 'subject.py');
    writeFileSync(file, code);
    return Subject.start(['/usr/bin/python3', file], directory);
  }

  get output(): string {
    try {
      return readFileSync(this.outputFile, 'utf8');
    } catch {
      return '';
    }
  }

  /** Wait until the output matches. */
  async expect(pattern: RegExp, timeout_ms = 20_000): Promise<RegExpMatchArray> {
    const deadline = Date.now() + timeout_ms;
    for (;;) {
      const match = this.output.match(pattern);
      if (match !== null) return match;
      if (Date.now() > deadline)
        throw new Error(`pid ${this.pid} did not print ${pattern} in ${timeout_ms} ms, but:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Is it there (zombies count as gone)? */
  get isAlive(): boolean {
    try {
      return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${this.pid}/status`, 'utf8'));
    } catch {
      return false;
    }
  }

  signal(signal: number): void {
    attempt('kill', [this.pid, signal]);
  }

  [Symbol.dispose](): void {
    attempt('kill', [this.pid, 9]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}
