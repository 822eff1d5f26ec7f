import { MoveError, UnsupportedError } from '../engine/errors.js';
import { ImageError } from '../image/errors.js';
import { CancelledError } from '../library/errors.js';

/** Exit statuses of `stasis`; docs/commands.md documents them. */
export const EXIT = {
  DONE: 0,
  FAILED: 1,
  USAGE: 2,
  /** The tree, or the host, is such that it cannot be done; nothing was touched. */
  UNSUPPORTED: 3,
  /** The image cannot be used as it is. */
  IMAGE: 4,
  /** A tree was sent, and nobody here knows whether it runs at the other end: it is stopped, and whole. */
  UNDECIDED: 5,
} as const;
/** Plus the number of the signal that called it off, or that ended a restored root. */
export const EXIT_SIGNAL = 128;

export function statusOf(error: unknown): number {
  if (error instanceof UnsupportedError) return EXIT.UNSUPPORTED;
  if (error instanceof ImageError) return EXIT.IMAGE;
  if (error instanceof MoveError && error.sourceState === 'stopped') return EXIT.UNDECIDED;
  return EXIT.FAILED;
}

/** What `--json` prints of an error. */
export function errorAsJson(error: unknown): object {
  if (!(error instanceof Error)) return { error: { name: 'Error', code: null, message: String(error) } };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : null;
  const base = { name: error.name, code, message: error.message };
  if (error instanceof UnsupportedError) return { error: { ...base, refusals: error.items } };
  if (error instanceof ImageError)
    return { error: { ...base, file: error.file, offset_bytes: error.offset ?? null } };
  if (error instanceof MoveError) return { error: { ...base, source_state: error.sourceState } };
  return { error: base };
}

/** What a person is told. */
export function messageOf(error: unknown): string {
  if (error instanceof CancelledError) return 'Called off; nothing was changed';
  return error instanceof Error ? error.message : String(error);
}
