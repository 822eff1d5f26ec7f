import {
  describe,
  type fdinfo_entry,
  type file_entry,
  ImageError,
  type ImageProblem,
  ImageReader,
  type mm_entry,
  PAGE_BYTES,
  PE_LAZY,
  PE_PARENT,
  PE_PRESENT,
  readChecksums,
  verifyChecksums,
  verifyImage,
} from '../../image/index.js';
import type { ParsedOptions } from '../requests.js';
import type { InspectedMemory, InspectedProcess, InspectProblem, InspectResult } from '../results.js';

/** What an image holds: its tree, memory and descriptors a process, and where its size is. */

const TASK_STATE = { 1: 'alive', 2: 'zombie', 3: 'stopped' } as const;

/** Bits of a mapping's `status`. */
const VMA = {
  FILE: 0x40 | 0x80,
  ANON_SHARED: 0x100,
  ANON_PRIVATE: 0x200,
  SYSVIPC: 0x400,
  MEMFD: 0x4000,
} as const;

/** Members of a file's entry by what they are called. */
const FILE_KINDS: Readonly<Record<string, string>> = {
  reg: 'regular',
  pipe: 'pipe',
  fifo: 'fifo',
  efd: 'eventfd',
  epfd: 'epoll',
  sgfd: 'signalfd',
  tfd: 'timerfd',
  ify: 'inotify',
  ffy: 'fanotify',
  memfd: 'memfd',
  tty: 'terminal',
  isk: 'inet socket',
  usk: 'unix socket',
  psk: 'packet socket',
  nlsk: 'netlink socket',
  nsf: 'namespace',
  tunf: 'tun',
  bpf: 'bpf map',
  pidfd: 'pidfd',
  ext: 'external',
};

function kindOf(file: file_entry | undefined): string {
  if (file === undefined) return 'unknown';
  const member = Object.keys(FILE_KINDS).find((key) => file[key as keyof file_entry] !== undefined);
  return member === undefined ? `type ${file.type}` : (FILE_KINDS[member] ?? member);
}

/** @throws ImageError where the image cannot be read at all */
export function inspectImage({ directory, trust, verify }: ParsedOptions<'inspect'>): InspectResult {
  using reader = ImageReader.open(directory, { trust });
  const problems = verify ? problemsOf(reader) : null;
  const description = describe(directory, { trust });
  const files = new Map((reader.readOptional('files') ?? []).map((file) => [file.id, file]));
  const shared = description.files.filter(({ kind }) => kind === 'pagemap-shmem');
  return {
    directory: reader.directory,
    version: description.version,
    parent: description.parent,
    image_bytes: description.bytes,
    pages_bytes: description.pages_bytes,
    shared_memory_bytes: shared.reduce((sum, { pages }) => sum + (pages?.present ?? 0), 0),
    processes: (reader.readOptional('pstree') ?? []).map((entry) => {
      const core = reader.readOne('core', entry.pid);
      const state = TASK_STATE[(core.tc?.taskState ?? 1) as keyof typeof TASK_STATE] ?? 'alive';
      const { pid, ppid, pgid, sid } = entry;
      const comm = core.tc?.comm ?? '?';
      const base = { pid, ppid, pgid, sid, comm, state };
      if (state === 'zombie') return { ...base, threads: [pid], memory: null, descriptors: {} };
      return {
        ...base,
        threads: [...entry.threads],
        memory: memoryOf(reader, pid),
        descriptors: countDescriptors(reader, pid, files),
      } satisfies InspectedProcess;
    }),
    files: description.files
      .map(({ name, bytes, kind, records }) => ({ name, bytes, kind, records }))
      .sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1)),
    checksums: reader.hasOwnChecksums || reader.list().includes('stasis-checksums.json'),
    problems,
  };
}

/** All that is wrong with an image, its checksums included where it has some. */
export function problemsOf(reader: ImageReader): InspectProblem[] {
  const sums = readChecksums(reader);
  const own = attempt(() => reader.verifyOwn());
  const named = sums === undefined ? [] : verifyChecksums(reader, sums);
  return [...verifyImage(reader), ...own, ...named].map((problem) => ({
    file: problem.file,
    offset_bytes: problem.offset ?? null,
    message: problem.message,
  }));
}

function attempt(step: () => void): ImageProblem[] {
  try {
    step();
    return [];
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const { file, offset } = error;
    const message = error.message.slice(error.message.indexOf(': ') + 2);
    return [offset === undefined ? { file, message } : { file, offset, message }];
  }
}

function memoryOf(reader: ImageReader, pid: number): InspectedMemory {
  const mm = reader.readOptional('mm', pid)?.[0];
  const bytes = (mask: number): number => sumMappings(mm, mask);
  const pages = (flag: number): number => {
    let sum = 0;
    for (const entry of reader.pagemap(pid)?.entries ?? [])
      if (firstFlag(entry.flags) === flag) sum += entry.nrPages * PAGE_BYTES;
    return sum;
  };
  return {
    private_bytes: bytes(VMA.ANON_PRIVATE),
    shared_bytes: bytes(VMA.ANON_SHARED | VMA.SYSVIPC | VMA.MEMFD),
    file_bytes: bytes(VMA.FILE),
    image_bytes: pages(PE_PRESENT),
    parent_bytes: pages(PE_PARENT),
    lazy_bytes: pages(PE_LAZY),
    mappings: mm?.vmas.length ?? 0,
  };
}

/** A lazy page is in the image as well; one that a parent has is not. */
function firstFlag(flags: number): number {
  return [PE_PRESENT, PE_PARENT, PE_LAZY].find((flag) => (flags & flag) !== 0) ?? 0;
}

function sumMappings(mm: mm_entry | undefined, mask: number): number {
  return (mm?.vmas ?? []).reduce(
    (sum, vma) => sum + ((vma.status & mask) !== 0 ? Number(vma.end - vma.start) : 0),
    0,
  );
}

function countDescriptors(
  reader: ImageReader,
  pid: number,
  files: ReadonlyMap<number, file_entry>,
): Record<string, number> {
  const ids = reader.readOptional('ids', pid)?.[0] ?? reader.readOne('core', pid).ids;
  const table: readonly fdinfo_entry[] = (ids && reader.readOptional('fdinfo', ids.filesId)) ?? [];
  const counts: Record<string, number> = {};
  for (const { id } of table) {
    const kind = kindOf(files.get(id));
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}
