import { IORING_OFF_SQ_RING } from '../../abi/io-uring.js';
import { MAP_POPULATE, MAP_SHARED, PAGE_SIZE, PROT_READ } from '../../abi/mman.js';
import { Pagemap, readPagemap } from '../../kernel/procfs/pagemap.js';
import { syscall } from '../../kernel/syscall.js';
import { kernelMemory, type RegisteredBuffer, type RingMemory } from './io-uring-state.js';

/**
 * Registered buffers are pages, not addresses: what the program has mapped there since is other memory, and a buffer that is
 * registered anew would be that. So the page that a buffer has at each of its pieces is compared with the one that is
 * mapped, by the distance of their descriptions (struct page) in the kernel from that of a page that is known.
 */
/** Why the buffers of a ring cannot be registered by their addresses; undefined if they can. `pid` is whose they are. */
export function changedBuffer(
  buffers: readonly RegisteredBuffer[],
  memory: RingMemory,
  pid: number,
): string | undefined {
  const { known, frame } = knownPage(memory);
  const size = BigInt(kernelMemory().types.size('page'));
  using pagemap = new Pagemap(pid);
  for (const [index, { address, pieces }] of buffers.entries()) {
    let at = address;
    for (const { page, offset, length } of pieces) {
      const start = at & ~(PAGE - 1n);
      const [entry = 0n] = pagemap.read(start, start + PAGE);
      const mapped = known + ((entry & FRAME_MASK) - frame) * size;
      const own = page + BigInt(offset >> PAGE_SHIFT) * size;
      if ((entry & PRESENT) === 0n || mapped !== own)
        return `registered buffer ${index} is memory that the program has unmapped, or copied, since`;
      at += BigInt(length);
    }
  }
  return undefined;
}

const PAGE = BigInt(PAGE_SIZE);
const PAGE_SHIFT = 12;
/** Documentation/admin-guide/mm/pagemap.rst. */
const PRESENT = 1n << 63n;
const FRAME_MASK = (1n << 55n) - 1n;

/** The first page of the ring's memory: the address of its description, and its number. */
function knownPage({ firstPage, length, fd }: RingMemory): { known: bigint; frame: bigint } {
  const how = MAP_SHARED | MAP_POPULATE;
  const address = BigInt(syscall('mmap', [0, length, PROT_READ, how, fd, IORING_OFF_SQ_RING], 'a ring'));
  try {
    const [entry = 0n] = readPagemap(process.pid, { start: address, end: address + PAGE });
    if ((entry & PRESENT) === 0n || (entry & FRAME_MASK) === 0n)
      throw new Error('the numbers of pages cannot be seen (CAP_SYS_ADMIN)');
    return { known: firstPage, frame: entry & FRAME_MASK };
  } finally {
    syscall('munmap', [address, length]);
  }
}
