import type { ImageId } from '../../image/kinds.js';
import { PagemapEncoder, type PagemapEntry, pagemapFile } from '../../image/pagemap.js';
import type { ImageFile } from '../../image/target.js';
import type { ImageWriter } from '../../image/writer.js';

/** pages-N.img and the pagemaps that say what is in them: one N for each process and each piece of shared memory. */
export class PagesFiles {
  readonly #writer: ImageWriter;
  #last = 0;

  constructor(writer: ImageWriter) {
    this.#writer = writer;
  }

  /**
   * Write a pagemap and, by `fill`, the contents of its runs, which it tells of as it goes: only the contents tell
   * which pages are worth keeping, and there can be too many runs to keep. Answers the number of pages.
   */
  add(
    id: ImageId,
    options: { shmem?: boolean },
    fill: (file: ImageFile, tell: (run: PagemapEntry) => void) => void,
  ): number {
    const pagesId = ++this.#last;
    const pagemap = this.#writer.openRaw(pagemapFile(id, options));
    const encoder = new PagemapEncoder(pagesId, (bytes) => pagemap.write(bytes));
    const pages = this.#writer.openRaw(`pages-${pagesId}.img`);
    fill(pages, (run) => encoder.add(run));
    encoder.flush();
    pagemap.close();
    pages.close();
    return encoder.pages;
  }
}
