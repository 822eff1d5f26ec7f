import { IORING_OFF_SQ_RING } from '../../abi/io-uring.js';
import { MAP_POPULATE, MAP_SHARED, PAGE_SHIFT, PAGE_SIZE, PROT_READ } from '../../abi/mman.js';
import { kernelMemory } from '../../kernel/bpf/kernel-memory.js';
import { frameOf, isPresent, Pagemap, readPagemap } from '../../kernel/procfs/pagemap.js';
import { syscall } from '../../kernel/syscall.js';
import type { RegisteredBuffer, RingMemory } from './io-uring-state.js';

/**
 * Registered buffers are pages, not addresses: what the program has mapped there since is other memory, and a buffer that is
 * registered anew would be that. So each page of a buffer is compared with the one that is mapped, by the distance of
 * their descriptions (struct page) in the kernel from that of a page that is known.
 */

/** Why the buffers of a ring cannot be registered by their addresses; undefined if they can. `pid` is whose they are. */
export function changedBuffer(
  buffers: readonly RegisteredBuffer[],
  memory: RingMemory,
  pid: number,
): string | undefined {
  const { known, frame } = knownPage(memory);
  if (frame === 0n) return 'it has registered buffers, and numbers of pages cannot be seen (CAP_SYS_ADMIN)';
  const size = BigInt(kernelMemory().types.size('page'));
  using pagemap = new Pagemap(pid);
  for (const [index, buffer] of buffers.entries()) {
    const own = pagesOf(buffer, size);
    const start = buffer.address & ~(PAGE - 1n);
    const entries = pagemap.read(start, start + BigInt(own.length) * PAGE);
    const isOwn = (page: bigint, at: number) => {
      const entry = entries[at] ?? 0n;
      return isPresent(entry) && page === known + (frameOf(entry) - frame) * size;
    };
    if (!own.every(isOwn))
      return `registered buffer ${index} is memory that the program has unmapped, or copied, since`;
  }
  return undefined;
}

/** Addresses of the descriptions of all its pages: a piece is one, or as many as lie in a row (huge pages). */
function pagesOf({ pieces }: RegisteredBuffer, size: bigint): bigint[] {
  return pieces.flatMap(({ page, offset, length }) => {
    const first = offset >>> PAGE_SHIFT;
    const count = ((offset + length + PAGE_SIZE - 1) >>> PAGE_SHIFT) - first;
    return Array.from({ length: count }, (_, index) => page + BigInt(first + index) * size);
  });
}

const PAGE = BigInt(PAGE_SIZE);

/** The first page of the ring's memory: the address of its description, and its number, 0 where that is not shown. */
function knownPage({ firstPage, length, fd }: RingMemory): { known: bigint; frame: bigint } {
  const how = MAP_SHARED | MAP_POPULATE;
  const address = BigInt(syscall('mmap', [0, length, PROT_READ, how, fd, IORING_OFF_SQ_RING], 'a ring'));
  try {
    const [entry = 0n] = readPagemap(process.pid, { start: address, end: address + PAGE });
    return { known: firstPage, frame: frameOf(entry) };
  } finally {
    syscall('munmap', [address, length]);
  }
}
