import { decodeAny } from './codec.js';
import { ImageError } from './errors.js';
import { type ImageId, isRawFile, type KindName, kindOfFile, pagemapOfFile } from './kinds.js';
import { PAGE_BYTES, type PagemapEntry, PE_LAZY, PE_PARENT, PE_PRESENT } from './pagemap.js';
import { ImageReader, type ReaderOptions } from './reader.js';

/** A file of an image, as far as the format knows it. */
export interface FileDescription {
  readonly name: string;
  readonly bytes: number;
  /** `raw` for files without a format of their own, `other` for what is no part of an image. */
  readonly kind: KindName | 'pagemap' | 'pagemap-shmem' | 'raw' | 'other';
  readonly id: ImageId | null;
  readonly records: number | null;
  /** Bytes by where they are, for pagemaps. */
  readonly pages?: PageBytes;
}

export interface PageBytes {
  readonly present: number;
  readonly parent: number;
  readonly lazy: number;
}

export interface ImageDescription {
  readonly directory: string;
  readonly version: number;
  /** The lengths of all files of the image together; holes count. */
  readonly bytes: number;
  readonly pages_bytes: number;
  readonly parent: string | null;
  readonly tasks: number;
  readonly threads: number;
  /** Records by kind of file. */
  readonly counts: Readonly<Record<string, number>>;
  readonly files: readonly FileDescription[];
}

function countPages(entries: Iterable<PagemapEntry>): PageBytes {
  const bytes = { present: 0, parent: 0, lazy: 0 };
  for (const { flags, nrPages } of entries) {
    if ((flags & PE_PRESENT) !== 0) bytes.present += nrPages * PAGE_BYTES;
    else if ((flags & PE_PARENT) !== 0) bytes.parent += nrPages * PAGE_BYTES;
    else if ((flags & PE_LAZY) !== 0) bytes.lazy += nrPages * PAGE_BYTES;
  }
  return bytes;
}

/** What a file is by its name and contents. @throws ImageError when a file of a known kind cannot be parsed */
function describeFile(reader: ImageReader, name: string): FileDescription {
  const known = kindOfFile(name);
  const pagemap = pagemapOfFile(name);
  if (known === undefined && pagemap === undefined && !isRawFile(name)) {
    return { name, bytes: 0, kind: 'other', id: null, records: null };
  }
  const bytes = reader.size(name) ?? 0;
  if (pagemap !== undefined) {
    const entries = reader.pagemap(pagemap.id, { shmem: pagemap.shmem })?.entries ?? [];
    const kind = pagemap.shmem ? 'pagemap-shmem' : 'pagemap';
    return { name, bytes, kind, id: pagemap.id, records: entries.length, pages: countPages(entries) };
  }
  if (known === undefined) return { name, bytes, kind: 'raw', id: null, records: null };
  const contents = reader.bytes(name) ?? new Uint8Array();
  const records = decodeAny(known.kind, contents, `${reader.directory}/${name}`).length;
  return { name, bytes, kind: known.kind, id: known.id, records };
}

/** What an image directory holds, as data to print. @throws ImageError */
export function describe(directory: string, options: ReaderOptions = {}): ImageDescription {
  using reader = ImageReader.open(directory, options);
  const files = reader
    .list()
    .filter((name) => name !== 'parent')
    .map((name) => describeFile(reader, name));
  const counts: Record<string, number> = {};
  for (const { kind, records } of files) {
    if (records !== null) counts[kind] = (counts[kind] ?? 0) + records;
  }
  const tree = reader.readOptional('pstree') ?? [];
  return {
    directory: reader.directory,
    version: reader.inventory.imgVersion,
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    pages_bytes: files.reduce((sum, file) => sum + (file.name.startsWith('pages-') ? file.bytes : 0), 0),
    parent: parentOf(reader),
    tasks: tree.length,
    threads: tree.reduce((sum, task) => sum + task.threads.length, 0),
    counts,
    files,
  };
}

function parentOf(reader: ImageReader): string | null {
  try {
    return reader.parent()?.directory ?? null;
  } catch (error) {
    // That a parent is gone is worth describing the rest for; verifyImage tells what is wrong with it.
    if (error instanceof ImageError) return error.file;
    throw error;
  }
}
