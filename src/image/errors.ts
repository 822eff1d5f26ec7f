/**
 * Everything that is wrong with an image, or went wrong while reading or writing one, as one class: which file,
 * and where in it. The offset is in bytes from the start of the file; it is absent where the fault has no place
 * (a missing file, a wrong owner).
 */
export class ImageError extends Error {
  readonly code = 'EIMAGE';
  readonly file: string;
  readonly offset: number | undefined;

  constructor(file: string, message: string, options: { offset?: number; cause?: unknown } = {}) {
    const place = options.offset === undefined ? file : `${file}, offset ${options.offset}`;
    super(`${place}: ${message}`, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'ImageError';
    this.file = file;
    this.offset = options.offset;
  }
}

/** What a caught value says, for use inside a longer sentence. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
