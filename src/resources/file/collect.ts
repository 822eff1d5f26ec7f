import { FD_CLOEXEC, O_CLOEXEC, O_PATH } from '../../abi/fcntl.js';
import { createMessage, type fdinfo_entry } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { readDescriptor, readDescriptors, statAt } from '../../kernel/procfs/descriptors.js';
import { type FileLock, readLocks } from '../../kernel/procfs/locks.js';
import { readLink } from '../../kernel/procfs/read.js';
import type {
  Descriptor,
  DescriptorInfo,
  DumpContext,
  FileCollector,
  FileKind,
  file_entry,
  Process,
} from '../contract.js';
import { openPath, openPidfd, takeDescriptor } from '../description/calls.js';
import { objectOf, refuseNow } from '../description/described.js';
import { dumpFs } from './fs.js';
import { checkLocks, gatherLocks, writeLocks } from './locks.js';
import { abandonRemaps, writeRemaps } from './remap.js';
import { Descriptions } from './shared.js';
import { unknownFile } from './unknown.js';

/**
 * The files of a frozen tree. `begin`, then `dump`, while others may add files of theirs, then `write`. `abandon` when
 * the dump fails.
 */
export class DescriptorCollector implements FileCollector {
  readonly #kinds: readonly FileKind[];
  readonly #filesIdOf: (process: Process) => number;
  readonly #entries: file_entry[] = [];
  readonly #tables = new Map<number, fdinfo_entry[]>();
  readonly #links = new Map<string, number>();
  readonly #descriptions = new Descriptions();
  readonly #found: { descriptor: Descriptor; id: number }[] = [];
  /** What is in flight is compared with what turns up later, and looked at by the kinds' last questions. */
  readonly #inFlight: OwnedFd[] = [];
  readonly #steps: (() => void)[] = [];
  readonly #begun = new Set<FileKind>();
  readonly #byKind = new Map<FileKind, Descriptor[]>();
  #context: DumpContext | undefined;
  #locks: readonly FileLock[] = [];
  #lastId = 0;

  /** Processes with the same `filesIdOf` share their descriptor table. */
  constructor(kinds: readonly FileKind[], filesIdOf: (process: Process) => number) {
    this.#kinds = kinds;
    this.#filesIdOf = filesIdOf;
  }

  begin(context: DumpContext): void {
    this.#context = context;
    this.#locks = readLocks();
  }

  get context(): DumpContext {
    if (this.#context === undefined) throw new Error('the collector was not begun');
    return this.#context;
  }

  get found(): readonly { readonly descriptor: Descriptor; readonly id: number }[] {
    return this.#found;
  }

  /** Every descriptor of every table, once, and the directories of each process. */
  dump(): void {
    const tables = this.#readTables();
    this.#beginKinds([...tables.values()].flatMap(({ found }) => found));
    for (const [id, { process, found }] of tables) this.#tables.set(id, this.#dumpTable(process, found));
    for (let step = this.#steps.shift(); step !== undefined; step = this.#steps.shift()) step();
    const { refuse, options } = this.context;
    for (const [kind, descriptors] of this.#byKind) kind.checkAll?.(descriptors, refuse, options);
    for (const kind of this.#kinds) kind.conclude?.(this.context);
    for (const process of this.context.processes)
      if (process.state !== 'zombie')
        this.context.writer.write('fs', process.insidePid, [dumpFs(process, this)]);
    for (const kind of this.#kinds) kind.gather?.(this.context);
    gatherLocks(this.#locks, this.context);
  }

  /** Every table by its id, and one process that has it. */
  #readTables(): Map<number, { process: Process; found: Recognised[] }> {
    const tables = new Map<number, { process: Process; found: Recognised[] }>();
    for (const process of this.context.processes) {
      if (process.state === 'zombie') continue;
      const id = this.#filesIdOf(process);
      if (tables.has(id)) continue;
      const found = readDescriptors(process.pid).map((info) =>
        this.#recognise({ process, fd: info.fd, info }),
      );
      tables.set(id, { process, found });
    }
    return tables;
  }

  #beginKinds(all: readonly Recognised[]): void {
    for (const kind of this.#kinds) {
      if (kind.begin === undefined) continue;
      const descriptors = all.filter((each) => each.kind === kind).map(({ descriptor }) => descriptor);
      if (descriptors.length === 0) continue;
      kind.begin(descriptors, this.context);
      this.#begun.add(kind);
    }
  }

  /** As `#beginKinds` for what turned up in flight only; a kind begins once. */
  #beginInFlight({ kind, descriptor }: Recognised): void {
    if (kind.begin === undefined) return;
    if (this.#begun.has(kind))
      refuseNow(
        this.context,
        descriptor,
        `it is a ${kind.name} that nobody of the tree has open, and there are others`,
      );
    kind.begin([descriptor], this.context);
    this.#begun.add(kind);
  }

  #recognise(descriptor: Descriptor): Recognised {
    const kind = this.#kinds.find((kind) => kind.recognise(descriptor));
    if (kind === undefined) {
      this.context.refuse(unknownFile(descriptor));
      throw new Error(`${objectOf(descriptor)} is of no kind`);
    }
    return { descriptor, kind };
  }

  /** files.img, fdinfo-*.img and what the kinds write. No file is added after this. */
  write(): void {
    const { writer } = this.context;
    for (const kind of this.#kinds) kind.write?.(this.context);
    for (const [id, entries] of this.#tables) writer.write('fdinfo', id, entries);
    writer.write('files', null, this.#entries);
    writeLocks(this.context);
    writeRemaps(this.context);
    this.close();
  }

  /** Take back what was made outside of the image. */
  abandon(): void {
    this.close();
    if (this.#context !== undefined) abandonRemaps(this.#context);
  }

  addTaken(fd: number, from: Descriptor): number {
    this.#inFlight.push(new OwnedFd(fd));
    // Whoever looks at it looks at this process, but speaks of the one that would receive it.
    const holder = { ...from.process, pid: process.pid };
    const info = readDescriptor(process.pid, fd);
    // Locks belong to a process and a descriptor of it, which those of a table are.
    const unlocked = { ...info, info: { ...info.info, locks: [] } };
    const descriptor = { process: holder, fd, info: unlocked, isInFlight: true } as const;
    const { id } = this.#descriptions.intern(descriptor, () => {
      if (info.info.locks.length > 0)
        refuseNow(
          this.context,
          descriptor,
          'it holds locks, and nobody has it open who could take them again',
        );
      const recognised = this.#recognise(descriptor);
      this.#beginInFlight(recognised);
      const id = this.#nextId();
      return { id, type: this.#dumpAs(id, recognised, fd).type };
    });
    this.#found.push({ descriptor, id });
    return id;
  }

  defer(step: () => void): void {
    this.#steps.push(step);
  }

  /** Nobody asks about descriptors any more. */
  close(): void {
    for (const fd of this.#inFlight.splice(0)) fd[Symbol.dispose]();
  }

  add(entry: (id: number) => file_entry): number {
    const id = this.#nextId();
    this.#entries.push(entry(id));
    return id;
  }

  addLink(process: Process, link: string, flags: number): number {
    const path = `/proc/${process.pid}/${link}`;
    const target = readLink(path);
    const stat = statAt(path);
    const key = `${stat.dev}:${stat.ino}:${flags}:${target}`;
    const known = this.#links.get(key);
    if (known !== undefined) return known;
    const descriptor = { process, fd: -1, info: infoOfLink(target, stat, flags) };
    using opened = openPath(path, O_PATH);
    const id = this.#nextId();
    this.#dumpAs(id, this.#recognise(descriptor), opened.fd);
    this.#links.set(key, id);
    return id;
  }

  #nextId(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  #dumpTable(process: Process, found: readonly Recognised[]): fdinfo_entry[] {
    using pidfd = openPidfd(process.pid);
    return found.map((recognised) => {
      const { descriptor } = recognised;
      const { info } = descriptor;
      checkLocks(descriptor, this.context.refuse, this.context.options);
      const entry = this.#describe(recognised, pidfd);
      this.#found.push({ descriptor, id: entry.id });
      return createMessage('fdinfo', {
        id: entry.id,
        flags: (info.info.flags & O_CLOEXEC) === 0 ? 0 : FD_CLOEXEC,
        type: entry.type,
        fd: info.fd,
      });
    });
  }

  /** The entry of a descriptor's description, made where it is met first. */
  #describe({ descriptor, kind }: Recognised, pidfd: OwnedFd): { id: number; type: number } {
    return this.#descriptions.intern(descriptor, () => {
      using taken = takeDescriptor(pidfd.fd, descriptor.fd, objectOf(descriptor));
      const id = this.#nextId();
      return { id, type: this.#dumpAs(id, { descriptor, kind }, taken.fd).type };
    });
  }

  #dumpAs(id: number, { descriptor, kind }: Recognised, taken: number): file_entry {
    // Looked at again: what the check before the freeze saw may have changed.
    if (descriptor.fd >= 0) kind.check?.(descriptor, this.context.refuse, this.context.options);
    if (descriptor.fd >= 0) {
      const others = this.#byKind.get(kind);
      if (others === undefined) this.#byKind.set(kind, [descriptor]);
      else others.push(descriptor);
    }
    const entry = kind.dump(descriptor, id, taken, this.context);
    this.#entries.push(entry);
    return entry;
  }
}

interface Recognised {
  readonly descriptor: Descriptor;
  readonly kind: FileKind;
}

/** A magic link of procfs as if it were a descriptor. */
function infoOfLink(link: string, stat: DescriptorInfo['stat'], flags: number): DescriptorInfo {
  return {
    fd: -1,
    link,
    stat,
    info: {
      pos: 0n,
      flags,
      mntId: -1,
      ino: undefined,
      locks: [],
      fields: new Map(),
      rest: [],
      epoll: [],
      inotify: [],
      fanotify: [],
    },
  };
}
