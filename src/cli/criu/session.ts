import { closeSync, constants, openSync, writeSync } from 'node:fs';
import path from 'node:path';
import type { Log } from './log.js';
import type { CriuOptions } from './options.js';

/** One run of `criu`: options, log, and the directories it works with. */
export interface Session {
  readonly options: CriuOptions;
  readonly log: Log;
  /** Absolute. */
  readonly imagesDir: string;
  /** Held open, so that scripts can reach it as /proc/PID/fd/N. */
  readonly imagesFd: number;
}

/** What ends a verb with status 1; it was not logged yet. */
export class CriuError extends Error {
  readonly area: string;

  constructor(area: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.area = area;
  }
}

/** Opens the image directory, goes to the working directory and opens the log there. */
export function openSession(options: CriuOptions, log: Log): Session {
  const images = options.imagesDir ?? '.';
  const session = { options, log, ...openImages(images) };
  const work = options.workDir ?? images;
  try {
    process.chdir(work);
  } catch (error) {
    throw new CriuError('criu', `Can't change directory to ${work}: ${reasonOf(error)}`, { cause: error });
  }
  try {
    log.open(options.logFile);
  } catch (error) {
    throw new CriuError('log', `Can't create log file ${options.logFile ?? ''}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
  return session;
}

function openImages(directory: string): { imagesDir: string; imagesFd: number } {
  try {
    const imagesFd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
    return { imagesDir: path.resolve(directory), imagesFd };
  } catch (error) {
    throw new CriuError('image', `Couldn't open image dir ${directory}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The root's pid, in a file that must not be there yet (relative to the working directory). */
export function writePidfile(file: string, pid: number): void {
  try {
    const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      writeSync(fd, String(pid));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new CriuError('pidfile', `Can't write pid ${pid} to ${file}: ${reasonOf(error)}`, { cause: error });
  }
}

/** `--status-fd`: a zero byte, and the end, once what was asked for is done. */
export function reportStatus({ options, log }: Session): void {
  if (options.statusFd === undefined) return;
  try {
    writeSync(options.statusFd, Uint8Array.of(0));
    closeSync(options.statusFd);
  } catch (error) {
    log.warn('status', `Can't write to --status-fd ${options.statusFd}: ${reasonOf(error)}`);
  }
}
