/** CRIU's image format: framing, messages, pages. Imports nothing of ours. */

export { ArchiveDecoder } from './archive/decoder.js';
export { FLAG_ANSWERS } from './archive/format.js';
export { type Packed, type PackOptions, packImage, unpackImage } from './archive/pack.js';
export { ArchiveStore, unnamedFile } from './archive/store.js';
export { ArchiveTarget, type Ending, StreamTarget } from './archive/target.js';
export * from './checksums.js';
export {
  createMessage,
  decodeAny,
  decodeImage,
  encodeImage,
  type ImageRecord,
  RECORD_BYTES_MAX,
  type RecordInput,
} from './codec.js';
export { checkTrust } from './directory.js';
export { DirectoryTarget } from './directory-target.js';
export * from './errors.js';
export * from './inspect.js';
export * from './kinds.js';
export * from './magic.js';
export * from './pagemap.js';
export * from './pages.js';
export { FILE_BYTES_MAX, ImageReader, type ReaderOptions } from './reader.js';
export * from './schema/index.js';
export type { ImageStore } from './store.js';
export type { CommitOptions, ImageFile, ImageTarget } from './target.js';
export { decodeName, encodeName } from './text.js';
export * from './verify.js';
export { CHECKSUMS_FILE, ImageWriter, writeFileOfKind } from './writer.js';
