import { writeAll } from '../../image/directory.js';
import { ImageError, reason } from '../../image/errors.js';
import type { ImageId } from '../../image/kinds.js';
import { PagemapEncoder, type PagemapEntry, pagemapFile } from '../../image/pagemap.js';
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
    fill: (fd: number, tell: (run: PagemapEntry) => void) => void,
  ): number {
    const pagesId = ++this.#last;
    const pages = `pages-${pagesId}.img`;
    const pagemap = pagemapFile(id, options);
    const fd = this.#writer.openRaw(pagemap);
    const encoder = new PagemapEncoder(pagesId, (bytes) => {
      try {
        writeAll(fd, bytes);
      } catch (error) {
        throw new ImageError(pagemap, `cannot be written: ${reason(error)}`, { cause: error });
      }
    });
    fill(this.#writer.openRaw(pages), (run) => encoder.add(run));
    encoder.flush();
    this.#writer.closeRaw(pagemap);
    this.#writer.closeRaw(pages);
    return encoder.pages;
  }
}
