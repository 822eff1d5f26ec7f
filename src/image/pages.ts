import { ImageError } from './errors.js';
import type { ImageId } from './kinds.js';
import {
  checkPagemap,
  endOf,
  PAGE_BYTES,
  type Pagemap,
  type PagemapEntry,
  PE_LAZY,
  PE_PARENT,
  PE_PRESENT,
} from './pagemap.js';
import type { ImageReader } from './reader.js';

/** Consecutive pages whose contents are consecutive in one file, or are not in the image at all. */
export interface PageRun {
  readonly vaddr: bigint;
  readonly nrPages: number;
  /** The page may be loaded after the process runs again. */
  readonly lazy: boolean;
  /** Where the contents are; undefined where only the lazy page server has them. */
  readonly source: PageSource | undefined;
}

export interface PageSource {
  /** The image of the chain that has the pages. `reader.openPages(pagesId)` opens the file. */
  readonly reader: ImageReader;
  readonly pagesId: number;
  /** In bytes from the start of what `reader.openPages` opens. */
  readonly offset: number;
}

interface PagesOptions {
  readonly shmem?: boolean;
}

/** Checked once, and kept as long as their pagemaps are. */
const layers = new WeakMap<Pagemap, Layer>();

/** A pagemap of one image of the chain, with the offset of each run's contents. */
class Layer {
  readonly reader: ImageReader;
  readonly pagemap: Pagemap;
  readonly #offsets: Float64Array;
  readonly #id: ImageId;
  readonly #options: PagesOptions;
  #below: Layer | null | undefined;

  constructor(reader: ImageReader, pagemap: Pagemap, id: ImageId, options: PagesOptions) {
    this.reader = reader;
    this.pagemap = pagemap;
    this.#id = id;
    this.#options = options;
    this.#offsets = new Float64Array(pagemap.entries.length);
    let offset = 0;
    let index = 0;
    for (const { flags, nrPages } of pagemap.entries) {
      this.#offsets[index++] = offset;
      if ((flags & PE_PRESENT) !== 0) offset += nrPages * PAGE_BYTES;
    }
  }

  static load(reader: ImageReader, id: ImageId, options: PagesOptions): Layer | undefined {
    const pagemap = reader.pagemap(id, options);
    if (pagemap === undefined) return undefined;
    const known = layers.get(pagemap);
    if (known !== undefined) return known;
    checkPagemap(pagemap, pagesBytes(reader, pagemap));
    const layer = new Layer(reader, pagemap, id, options);
    layers.set(pagemap, layer);
    return layer;
  }

  /** Follows what is said to be in a parent. @throws ImageError for a page that no parent has */
  follow(): void {
    for (const { flags, vaddr, nrPages } of this.pagemap.entries)
      if ((flags & PE_PARENT) !== 0)
        for (const _run of this.runs(vaddr, vaddr + BigInt(nrPages) * BigInt(PAGE_BYTES)));
  }

  /** The runs between two addresses, the parents' put in place. */
  *runs(from: bigint, to: bigint): Generator<PageRun> {
    for (let index = this.#find(from); index < this.pagemap.entries.length; index++) {
      const entry = this.pagemap.entries.at(index);
      if (entry === undefined || entry.vaddr >= to) return;
      const vaddr = entry.vaddr > from ? entry.vaddr : from;
      const entry_end = endOf(entry);
      const end = entry_end < to ? entry_end : to;
      if ((entry.flags & PE_PARENT) !== 0) yield* this.#parentRuns(entry, vaddr, end);
      else yield* this.#runs(entry, index, vaddr, end);
    }
  }

  *#runs(entry: PagemapEntry, index: number, vaddr: bigint, end: bigint): Generator<PageRun> {
    const nrPages = Number((end - vaddr) / BigInt(PAGE_BYTES));
    const lazy = (entry.flags & PE_LAZY) !== 0;
    if ((entry.flags & PE_PRESENT) === 0) {
      yield { vaddr, nrPages, lazy, source: undefined };
      return;
    }
    const { reader } = this;
    const { pagesId } = this.pagemap;
    const offset = (this.#offsets[index] ?? 0) + Number(vaddr - entry.vaddr);
    let at = vaddr;
    for (const place of reader.placePages(pagesId, offset, nrPages * PAGE_BYTES)) {
      if (place.length % PAGE_BYTES !== 0)
        throw new ImageError(this.pagemap.file, `pages-${pagesId}.img is not cut between pages`);
      yield {
        vaddr: at,
        nrPages: place.length / PAGE_BYTES,
        lazy,
        source: { reader, pagesId, offset: place.at },
      };
      at += BigInt(place.length);
    }
  }

  *#parentRuns(entry: PagemapEntry, from: bigint, to: bigint): Generator<PageRun> {
    const lazy = (entry.flags & PE_LAZY) !== 0;
    let expected = from;
    for (const run of this.#parentLayer()?.runs(from, to) ?? []) {
      if (run.vaddr !== expected) break;
      expected += BigInt(run.nrPages) * BigInt(PAGE_BYTES);
      yield lazy ? { ...run, lazy } : run;
    }
    if (expected === to) return;
    throw new ImageError(this.pagemap.file, `the page at 0x${expected.toString(16)} is in no parent`);
  }

  #parentLayer(): Layer | null {
    if (this.#below === undefined) {
      const parent = this.reader.parent();
      this.#below = (parent && Layer.load(parent, this.#id, this.#options)) ?? null;
    }
    return this.#below;
  }

  /** The first run that ends after an address. */
  #find(address: bigint): number {
    const { entries } = this.pagemap;
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = entries.at(middle);
      if (entry !== undefined && endOf(entry) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The length of the pages file of a pagemap; 0 where there is none. */
function pagesBytes(reader: ImageReader, pagemap: Pagemap): number {
  return reader.size(`pages-${pagemap.pagesId}.img`) ?? 0;
}

/**
 * Every run of pages of a process (or of a shared mapping), in ascending order, each with the file it is in: pages
 * that are in the parent are looked up there, and so on down the chain. Yields nothing where there is no pagemap.
 * `within` two addresses only, what is across them cut.
 * @throws ImageError for a pagemap that is wrong, and for a page that no parent has
 */
export function* iteratePages(
  reader: ImageReader,
  id: ImageId,
  options: PagesOptions & { readonly within?: { readonly start: bigint; readonly end: bigint } } = {},
): Generator<PageRun> {
  const { start, end } = options.within ?? { start: 0n, end: 1n << 64n };
  yield* Layer.load(reader, id, options)?.runs(start, end) ?? [];
}

/** Checks a pagemap, and that its parents have what it says is there. @throws ImageError */
export function checkPages(reader: ImageReader, id: ImageId, options: PagesOptions = {}): void {
  Layer.load(reader, id, options)?.follow();
}
