import { readlinkSync } from 'node:fs';
import path from 'node:path';
import { ImageDirectory } from '../directory.js';
import { DirectoryStore } from '../directory-store.js';
import { DirectoryTarget } from '../directory-target.js';
import { ImageError } from '../errors.js';
import { KINDS } from '../kinds.js';
import type { ImageStore } from '../store.js';
import type { ImageTarget } from '../target.js';
import { DATA_BYTES_MAX } from './format.js';
import { ArchiveStore } from './store.js';
import { ArchiveTarget } from './target.js';

/** An image directory as one file, and back: every file byte for byte, the link `parent` as it is. */

const INVENTORY_FILE = KINDS.inventory.file;

export interface PackOptions {
  /** Accept files that another user owns or could change. */
  readonly trust: boolean;
  readonly overwrite: boolean;
  /** Wait for the disk. */
  readonly durable: boolean;
}

/** Answers how many files, and bytes of files. @throws ImageError; nothing is left then */
export interface Packed {
  readonly files: number;
  readonly bytes: number;
}

export function packImage(directory: string, file: string, options: PackOptions): Packed {
  using store = DirectoryStore.open(directory, options.trust);
  using target = ArchiveTarget.create(file, options);
  if (store.parent() !== undefined) target.link(readlinkSync(path.join(store.path, 'parent')));
  return copy(store, target, options.durable);
}

export function unpackImage(file: string, directory: string, options: PackOptions): Packed {
  using store = ArchiveStore.open(file);
  const target = DirectoryTarget.create(directory, options);
  const made: string[] = [];
  try {
    if (store.parentLink !== undefined) {
      target.link(store.parentLink);
      made.push('parent');
    }
    return copy(store, target, options.durable, made);
  } catch (error) {
    target[Symbol.dispose]();
    using held = ImageDirectory.open(directory);
    for (const name of made) held.remove(name);
    throw error;
  } finally {
    target[Symbol.dispose]();
  }
}

function copy(store: ImageStore, target: ImageTarget, durable: boolean, made: string[] = []): Packed {
  const names = store.list().filter((name) => name !== 'parent' && name !== INVENTORY_FILE);
  const inventory = store.read(INVENTORY_FILE, DATA_BYTES_MAX);
  if (inventory === undefined)
    throw new ImageError(store.display(INVENTORY_FILE), 'is missing: there is no image, or only part of one');
  const buffer = Buffer.allocUnsafeSlow(DATA_BYTES_MAX);
  let bytes = inventory.length;
  for (const name of names) {
    const file = target.create(name);
    made.push(name);
    for (const part of partsOf(store, name, buffer)) file.write(part);
    file.close();
    bytes += file.bytes;
  }
  target.commit(inventory, { durable, publish: (act) => act() });
  return { files: names.length + 1, bytes };
}

function* partsOf(store: ImageStore, name: string, buffer: Buffer): Generator<Uint8Array> {
  if (store instanceof ArchiveStore) {
    for (const file of store.files) if (file.name === name) yield* store.checked(file);
    return;
  }
  const size = store.size(name);
  if (size === undefined) throw new ImageError(store.display(name), 'is no file that can be read');
  for (let at = 0; at < size; ) {
    const count = store.readAt(name, buffer, at);
    if (count === 0)
      throw new ImageError(store.display(name), 'became shorter while it was read', { offset: at });
    yield buffer.subarray(0, count);
    at += count;
  }
}
