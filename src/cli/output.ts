import { writeSync } from 'node:fs';

/**
 * Output by write(2) alone. Node's own streams set O_NONBLOCK on terminals and pipes, which is a flag of the open
 * file description: the shell, and a restored tree that shares the terminal, would find it set as well.
 */

const STDOUT = 1;
const STDERR = 2;
/** Milliseconds to wait when somebody else's O_NONBLOCK makes a full pipe say EAGAIN. */
const RETRY_MS = 5;

/** Writes all of `text`; a reader that went away (EPIPE), or a descriptor that never was (EBADF), ends it silently. */
export function writeTo(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  let done = 0;
  while (done < bytes.length) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
}

export function print(text: string): void {
  writeTo(STDOUT, `${text}\n`);
}

export function printError(text: string): void {
  writeTo(STDERR, `${text}\n`);
}
