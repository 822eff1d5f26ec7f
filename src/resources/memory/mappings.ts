import { closeSync, openSync } from 'node:fs';
import { O_RDONLY, O_RDWR, O_WRONLY } from '../../abi/fcntl.js';
import { SyscallError } from '../../kernel/errors.js';
import { encodeBytes } from '../../kernel/procfs/bytes.js';
import { mapFilePath } from '../../kernel/procfs/maps.js';
import { readLink, taskPath } from '../../kernel/procfs/read.js';
import { type DetailedMapping, readSmaps } from '../../kernel/procfs/smaps.js';
import { statPath } from '../../kernel/stat.js';
import type { DumpContext, Process } from '../contract.js';
import { deviceOfShmem, MemfdCollector } from './memfd.js';
import type { Span } from './scan.js';
import { segmentOf } from './sysv.js';
import { classify, VMA, type Vma, withoutWorkspace } from './vma.js';

/** The mappings of a frozen process, and which files are behind them. */

/** All mappings but those of tapes; the kernel's data page of the vDSO is one, as in CRIU's images. */
export function readVmas(pid: number, workspace?: bigint): Vma[] {
  return vmasOf(readSmaps(pid), workspace);
}

export function vmasOf(mappings: readonly DetailedMapping[], workspace: bigint | undefined): Vma[] {
  const vmas = withoutWorkspace(mappings, workspace).map((mapping) => classify(mapping, deviceOfShmem()));
  return vmas.reduce<Vma[]>((merged, vma) => {
    const last = merged.at(-1);
    const both = last !== undefined && (last.status & vma.status & VMA.VVAR) !== 0;
    if (!both || last.mapping.end !== vma.mapping.start) merged.push(vma);
    else merged[merged.length - 1] = { ...last, mapping: { ...last.mapping, end: vma.mapping.end } };
    return merged;
  }, []);
}

/** The fields of vma_entry; those left out are absent in the image. */
export interface VmaFields {
  start: bigint;
  end: bigint;
  pgoff: bigint;
  shmid: bigint;
  prot: number;
  flags: number;
  status: number;
  fd: bigint;
  madv?: bigint;
  fdflags?: number;
}

const NO_FD = -1n;

/** What maps and links say together; files come into files.img by it. */
export class MappingCollector {
  readonly #process: Process;
  readonly #context: DumpContext;
  /** By file and access, for a program maps each of its libraries several times. */
  readonly #files = new Map<string, number>();

  readonly #isLate: boolean;

  /** `isLate`: the process is a copy, and the one that it was made of goes on already. */
  constructor(process: Process, context: DumpContext, isLate: boolean) {
    this.#process = process;
    this.#context = context;
    this.#isLate = isLate;
  }

  entry(vma: Vma): VmaFields {
    const { mapping, status, prot, flags, madv, backing } = vma;
    const { start, end } = mapping;
    const fields: VmaFields = {
      start,
      end,
      pgoff: mapping.offset,
      shmid: 0n,
      prot,
      flags,
      status,
      fd: NO_FD,
    };
    if (madv !== 0n) fields.madv = madv;
    if (backing === 'kernel' || backing === 'anonymous' || backing === 'ring') fields.pgoff = 0n;
    if (backing === 'sysv') fields.shmid = segmentOf(mapping);
    if (backing === 'socket' || backing === 'uring') fields.shmid = BigInt(this.#openOf(mapping));
    if (backing === 'file' || backing === 'memfd') {
      fields.fdflags = accessOf(this.#process.pid, mapping);
      fields.shmid = BigInt(this.#fileOf(vma, fields.fdflags));
    }
    return fields;
  }

  /** Its descriptors were dumped before; the check saw to it that the process has one. */
  #openOf({ path, inode }: DetailedMapping): number {
    const { found } = this.#context.files;
    const open = found.find(({ descriptor: { info } }) => info.link === path && info.stat.ino === inode);
    if (open === undefined) throw new Error(`${path} is mapped, and nobody has a descriptor of it`);
    return open.id;
  }

  #fileOf({ mapping, backing }: Vma, flags: number): number {
    const { major, minor, inode, path } = mapping;
    const key = `${major}:${minor}:${inode}:${flags}:${path}`;
    const known = this.#files.get(key);
    if (known !== undefined) return known;
    const id =
      backing === 'memfd'
        ? this.#memfd(mapping, flags)
        : this.#context.files.addLink(this.#process, linkOf(mapping), flags, this.#isLate);
    this.#files.set(key, id);
    return id;
  }

  #memfd(mapping: DetailedMapping, flags: number): number {
    const { memfds, files } = this.#context;
    if (!(memfds instanceof MemfdCollector)) throw new TypeError('memfds are collected by something else');
    const path = mapFilePath(this.#process.pid, mapping);
    const fd = openSync(path, 'r');
    try {
      return memfds.mapped(memfds.add(fd, readLink(path)), flags, files);
    } finally {
      closeSync(fd);
    }
  }
}

function linkOf({ start, end }: DetailedMapping): string {
  return `map_files/${start.toString(16)}-${end.toString(16)}`;
}

/** How the description behind a mapping was opened: the permission bits of its link in map_files. */
function accessOf(pid: number, mapping: DetailedMapping): number {
  const path = taskPath(pid, linkOf(mapping));
  const stat = statPath(encodeBytes(path), false);
  if (typeof stat === 'number') throw new SyscallError('statx', -stat, path);
  const mode = Number(stat.mode);
  if ((mode & 0o600) === 0o600) return O_RDWR;
  return (mode & 0o200) !== 0 ? O_WRONLY : O_RDONLY;
}

export function guardEntry({ start, end }: Span): VmaFields {
  return {
    start: BigInt(start),
    end: BigInt(end),
    pgoff: 0n,
    shmid: 0n,
    prot: 0,
    flags: 0,
    status: VMA.GUARD,
    fd: NO_FD,
  };
}

export function spanOf({ mapping }: Vma): Span {
  return { start: Number(mapping.start), end: Number(mapping.end) };
}
