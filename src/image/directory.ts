import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  unlinkSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { ImageError, reason } from './errors.js';

/*
 * An image directory, held open. Files are reached through /proc/self/fd/N/NAME, so that they come from the
 * directory that was checked even when its path is changed meanwhile; names have no slash and the last component is
 * never followed, so that no file outside can be reached.
 */

/** What a file of an image may be called: no path, nothing hidden. */
export const IMAGE_FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/;
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;
const OTHERS_WRITE = 0o022;
/** One read or write call moves at most this much: the kernel's own limit is just under 2 GiB. */
const TRANSFER_BYTES_MAX = 1 << 30;

export class ImageDirectory implements Disposable {
  readonly path: string;
  #fd: number;

  private constructor(directory: string, fd: number) {
    this.path = directory;
    this.#fd = fd;
  }

  static open(directory: string): ImageDirectory {
    const absolute = path.resolve(directory);
    try {
      return new ImageDirectory(absolute, openSync(absolute, constants.O_RDONLY | constants.O_DIRECTORY));
    } catch (error) {
      throw new ImageError(absolute, `cannot be opened: ${reason(error)}`, { cause: error });
    }
  }

  static create(directory: string): ImageDirectory {
    const absolute = path.resolve(directory);
    try {
      mkdirSync(absolute, { recursive: true, mode: DIRECTORY_MODE });
    } catch (error) {
      throw new ImageError(absolute, `cannot be created: ${reason(error)}`, { cause: error });
    }
    return ImageDirectory.open(absolute);
  }

  /** Where a file is reached; only good while this is open. */
  #at(name: string): string {
    if (!IMAGE_FILE_NAME.test(name))
      throw new ImageError(this.path, `${JSON.stringify(name)} is no name of an image file`);
    if (this.#fd < 0) throw new ImageError(this.path, 'the image was closed');
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  /** The path a person knows the file by. */
  display(name: string): string {
    return `${this.path}/${name}`;
  }

  list(): string[] {
    if (this.#fd < 0) throw new ImageError(this.path, 'the image was closed');
    return readdirSync(`/proc/self/fd/${this.#fd}`).sort();
  }

  stat(): Stats {
    return fstatSync(this.#fd);
  }

  /** A descriptor for reading, of a regular file only, and what fstat(2) says of it; undefined when there is none. */
  openFile(name: string): { readonly fd: number; readonly stat: Stats } | undefined {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    let fd: number;
    try {
      fd = openSync(this.#at(name), flags);
    } catch (error) {
      if (error instanceof ImageError) throw error;
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new ImageError(this.display(name), `cannot be opened: ${reason(error)}`, { cause: error });
    }
    const stat = fstatSync(fd);
    if (stat.isFile()) return { fd, stat };
    closeSync(fd);
    throw new ImageError(this.display(name), 'is not a regular file');
  }

  /** A new file, open for reading and writing, with mode 0600 whatever the umask. */
  createFile(name: string): number {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    try {
      const fd = openSync(this.#at(name), flags, FILE_MODE);
      fchmodSync(fd, FILE_MODE);
      return fd;
    } catch (error) {
      if (error instanceof ImageError) throw error;
      throw new ImageError(this.display(name), `cannot be created: ${reason(error)}`, { cause: error });
    }
  }

  remove(name: string): void {
    rmSync(this.#at(name), { force: true });
  }

  unlink(name: string): void {
    unlinkSync(this.#at(name));
  }

  rename(from: string, to: string): void {
    renameSync(this.#at(from), this.#at(to));
  }

  /** Where the symbolic link `parent` leads, as an absolute path; undefined when there is none. */
  parent(): string | undefined {
    try {
      return path.resolve(this.path, readlinkSync(this.#at('parent')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new ImageError(this.display('parent'), `cannot be read: ${reason(error)}`, { cause: error });
    }
  }

  sync(): void {
    fsyncSync(this.#fd);
  }

  /** Distinguishes directories, so that a chain of parents that leads back into itself is found. */
  identity(): string {
    const { dev, ino } = this.stat();
    return `${dev}:${ino}`;
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** Refuses what another user could have written or can still change. */
export function checkTrust(file: string, stat: Stats, advice = ''): void {
  const uid = process.geteuid?.() ?? 0;
  if (stat.uid !== 0 && stat.uid !== uid)
    throw new ImageError(file, `belongs to another user (uid ${stat.uid})${advice}`);
  if ((stat.mode & OTHERS_WRITE) !== 0) {
    throw new ImageError(file, `can be written by others (mode ${(stat.mode & 0o777).toString(8)})${advice}`);
  }
}

/** The `size` bytes of an open file, which must not be longer than `limit` bytes. */
export function readAll(file: string, fd: number, size: number, limit: number): Uint8Array {
  if (size > limit) throw new ImageError(file, `is ${size} bytes long, more than the ${limit} allowed`);
  const bytes = Buffer.allocUnsafeSlow(size);
  let done = 0;
  while (done < size) {
    const count = readSync(fd, bytes, done, Math.min(size - done, TRANSFER_BYTES_MAX), done);
    if (count === 0) throw new ImageError(file, 'became shorter while it was read', { offset: done });
    done += count;
  }
  return bytes;
}

/** Writes all of `bytes` at the descriptor's position. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(fd, bytes, done, Math.min(bytes.length - done, TRANSFER_BYTES_MAX));
  }
}
