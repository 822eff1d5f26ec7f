import { writeSync } from 'node:fs';
import { MFD_CLOEXEC } from '../../abi/mman.js';
import type { ImageReader } from '../../image/reader.js';
import { scratchString } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';
import type { Holder } from '../contract.js';
import { countRuns } from './runs.js';

/**
 * Where the pages of an image with very many runs go. As part of the tapes the addresses would be in our memory, several
 * times over; in a file they are in nobody's, and every call that reads pages is preceded by one that fetches its part.
 */
export class AddressFile {
  /** Closed by the holder. */
  readonly fd = syscall(
    'memfd_create',
    [scratchString('stasis-addresses'), MFD_CLOEXEC],
    'addresses of pages',
  );
  #end = 0;

  /** Answers where it begins. */
  append(bytes: Uint8Array): number {
    const at = this.#end;
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.fd, bytes, done, bytes.length - done, at + done);
    this.#end += bytes.length;
    return at;
  }
}

export const ADDRESSES = 'addresses of pages';
/** Fewer are no burden. */
const RUNS_MIN = 50_000;

const files = new WeakMap<ImageReader, AddressFile>();

export function addressFileOf(reader: ImageReader): AddressFile | undefined {
  return files.get(reader);
}

/** Gives the holder one if any of these processes needs it. */
export function holdAddresses(pids: readonly number[], holder: Holder): void {
  const { reader, tape } = holder;
  files.delete(reader);
  if (!pids.some((pid) => countRuns(reader, pid) > RUNS_MIN)) return;
  const file = new AddressFile();
  files.set(reader, file);
  tape.about(ADDRESSES);
  // It is closed when the tapes were played, or will not be.
  holder.hold(ADDRESSES, holder.bring(file.fd));
}
