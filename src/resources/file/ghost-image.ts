import {
  decodeImage,
  fileOf,
  type ghost_file_entry,
  ImageError,
  type ImageReader,
} from '../../image/index.js';

/** A run of contents: where it is in the image's file, and where it goes in the ghost. */
export interface Extent {
  readonly position: number;
  readonly offset: number;
  readonly length: number;
}

/** A ghost's attributes, and where in ghost-file-N.img its contents lie. */
export function readGhost(
  reader: ImageReader,
  id: number,
): { readonly entry: ghost_file_entry; readonly extents: Extent[] } {
  const name = fileOf('ghost-file', id);
  const bytes = reader.bytes(name);
  if (bytes === undefined) throw new ImageError(name, 'is missing');
  const [record] = decodeImage('ghost-file', bytes, name);
  if (record === undefined) throw new ImageError(name, 'is empty');
  const extents = record.raw.map((raw, index) => ({
    position: raw.byteOffset - bytes.byteOffset,
    offset: Number(record.nested[index]?.off ?? 0n),
    length: raw.length,
  }));
  return { entry: record.message, extents };
}
