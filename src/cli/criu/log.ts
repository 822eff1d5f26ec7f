import { closeSync, constants, openSync } from 'node:fs';
import { hrtime } from 'node:process';
import { writeTo } from '../output.js';

/**
 * The log as callers of `criu` know it. Up to level 2 a line is its text alone, from level 3 on it begins with the
 * time since the log was opened: `(00.012345) Error (freeze): …`. What is said before the log is open waits for it.
 */

const LEVEL = { message: 0, error: 1, warning: 2, info: 3, debug: 4 } as const;
const TIMESTAMPS_FROM = LEVEL.info;
const STDOUT = 1;
const STDERR = 2;

export class Log {
  #level: number;
  #fd = STDERR;
  #start = hrtime.bigint();
  #early: { level: number; text: string }[] | undefined = [];
  /** The first error, in words. */
  firstError: string | undefined;

  constructor(level: number) {
    this.#level = level;
  }

  set level(level: number) {
    this.#level = level;
  }

  /** Begins to write: to a file in the working directory, to stdout (`-`), or to stderr (undefined). */
  open(file: string | undefined): void {
    this.#start = hrtime.bigint();
    if (file === '-') this.#fd = STDOUT;
    else if (file !== undefined) {
      const { O_CREAT, O_TRUNC, O_WRONLY, O_APPEND } = constants;
      this.#fd = openSync(file, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0o600);
    }
    this.flush();
  }

  /** Early lines go where the log goes by now, which is stderr when it was never opened. */
  flush(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const { level, text } of early) this.#write(level, text);
  }

  get fd(): number {
    return this.#fd;
  }

  error(area: string, text: string): void {
    this.firstError ??= text;
    for (const line of text.split('\n')) this.#say(LEVEL.error, `Error (${area}): ${line}`);
  }

  warn(area: string, text: string): void {
    for (const line of text.split('\n')) this.#say(LEVEL.warning, `Warn  (${area}): ${line}`);
  }

  info(text: string): void {
    this.#say(LEVEL.info, text);
  }

  debug(text: string): void {
    this.#say(LEVEL.debug, text);
  }

  #say(level: number, text: string): void {
    if (this.#early !== undefined) this.#early.push({ level, text });
    else this.#write(level, text);
  }

  #write(level: number, text: string): void {
    if (level > this.#level) return;
    writeTo(this.#fd, `${this.#level >= TIMESTAMPS_FROM ? this.#timestamp() : ''}${text}\n`);
  }

  #timestamp(): string {
    const elapsed_us = (hrtime.bigint() - this.#start) / 1000n;
    const seconds = String(elapsed_us / 1_000_000n).padStart(2, '0');
    return `(${seconds}.${String(elapsed_us % 1_000_000n).padStart(6, '0')}) `;
  }

  close(): void {
    if (this.#fd > STDERR) closeSync(this.#fd);
    this.#fd = STDERR;
  }
}
