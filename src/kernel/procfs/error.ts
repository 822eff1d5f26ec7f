import { SyscallError } from '../errors.js';

/** A file below /proc that cannot be read, or that holds what we do not understand. */
export class ProcfsError extends Error {
  override readonly name = 'ProcfsError';
  readonly code = 'PROCFS';
  readonly path: string;
  /** The offending line; empty where the file could not be read at all. */
  readonly line: string;

  constructor(path: string, line: string, reason: string, options?: ErrorOptions) {
    super(line === '' ? `${path}: ${reason}` : `${path}: ${reason}: ${JSON.stringify(line)}`, options);
    this.path = path;
    this.line = line;
  }

  /** The error number's name of a failed read (ENOENT, ESRCH, EACCES …), or undefined. */
  get errno(): string | undefined {
    const cause: unknown = this.cause;
    if (!(cause instanceof Error) || !('code' in cause)) return undefined;
    return typeof cause.code === 'string' ? cause.code : undefined;
  }

  /** Whether the task, the descriptor or the mapping was gone when we looked. */
  get vanished(): boolean {
    return this.errno === 'ENOENT' || this.errno === 'ESRCH';
  }
}

/** Runs a read; undefined where what it wanted has vanished meanwhile. */
export function unlessVanished<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof ProcfsError && error.vanished) return undefined;
    // A call on a task that has ended (process_vm_readv, kcmp).
    if (error instanceof SyscallError && error.code === 'ESRCH') return undefined;
    throw error;
  }
}

/** Runs a read below /proc; undefined where what it wanted cannot be had: it has vanished, or may not be looked at. */
export function unlessHidden<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof ProcfsError) return undefined;
    throw error;
  }
}
