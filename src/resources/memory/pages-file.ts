import type { ImageId } from '../../image/kinds.js';
import { encodePagemap, type PagemapEntry, pagemapFile } from '../../image/pagemap.js';
import type { ImageWriter } from '../../image/writer.js';

/** pages-N.img and the pagemaps that say what is in them: one N for each process and each piece of shared memory. */
export class PagesFiles {
  readonly #writer: ImageWriter;
  #last = 0;

  constructor(writer: ImageWriter) {
    this.#writer = writer;
  }

  /**
   * Write a pagemap and, by `fill`, the contents of its runs. The entries may come from `fill`, where only the
   * contents tell which pages are worth keeping. Answers the number of pages.
   */
  add(id: ImageId, options: { shmem?: boolean }, fill: (fd: number) => readonly PagemapEntry[]): number {
    const pagesId = ++this.#last;
    const fd = this.#writer.openRaw(`pages-${pagesId}.img`);
    const entries = fill(fd);
    this.#writer.writeBytes(pagemapFile(id, options), [encodePagemap(pagesId, entries)]);
    return entries.reduce((sum, { nrPages }) => sum + nrPages, 0);
  }
}
