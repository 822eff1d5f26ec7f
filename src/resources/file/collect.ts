import { FD_CLOEXEC, O_CLOEXEC, O_PATH } from '../../abi/fcntl.js';
import { createMessage, type fdinfo_entry } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { listDescriptors, readDescriptor, statAt } from '../../kernel/procfs/descriptors.js';
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
import { placeOf } from './place.js';
import { abandonRemaps, writeRemaps } from './remap.js';
import { Descriptions } from './shared.js';
import type { DescriptorSurvey, SurveyedFile } from './survey.js';
import { unknownFile } from './unknown.js';

/**
 * The files of a frozen tree. `begin`, then `dump`, while others may add files of theirs, then `write`. `abandon` when
 * the dump fails.
 */
export class DescriptorCollector implements FileCollector {
  readonly #kinds: readonly FileKind[];
  readonly #filesIdOf: (process: Process) => number;
  readonly #entries: file_entry[] = [];
  readonly #tables = new Map<number, readonly Found[]>();
  readonly #links = new Map<string, number>();
  readonly #survey: DescriptorSurvey | undefined;
  readonly #descriptions: Descriptions;
  readonly #found: Found[] = [];
  /** Those of `found` that hold locks. */
  readonly #locked: Found[] = [];
  /** Their entries are made of what they answered, when there is time. */
  readonly #surveyed: { readonly file: SurveyedFile; readonly found: Found }[] = [];
  /** What is in flight is compared with what turns up later, and looked at by the kinds' last questions. */
  readonly #inFlight: OwnedFd[] = [];
  readonly #steps: (() => void)[] = [];
  readonly #begun = new Set<FileKind>();
  readonly #byKind = new Map<FileKind, Descriptor[]>();
  #context: DumpContext | undefined;
  #locks: readonly FileLock[] = [];
  #lastId = 0;

  /** Processes with the same `filesIdOf` share their descriptor table. `survey` was prepared, if there is one. */
  constructor(
    kinds: readonly FileKind[],
    filesIdOf: (process: Process) => number,
    survey?: DescriptorSurvey,
  ) {
    this.#kinds = kinds;
    this.#filesIdOf = filesIdOf;
    this.#survey = survey;
    this.#descriptions = survey?.descriptions ?? new Descriptions();
  }

  begin(context: DumpContext): void {
    this.#context = context;
    this.#locks = readLocks();
  }

  get context(): DumpContext {
    if (this.#context === undefined) throw new Error('the collector was not begun');
    return this.#context;
  }

  get found(): readonly Found[] {
    return this.#found;
  }

  /** Every descriptor of every table, once, and the directories of each process. */
  dump(): void {
    const living = this.context.processes.filter(({ state }) => state !== 'zombie');
    this.#survey?.ask(new Set(living.map(({ pid }) => pid)));
    const tables = this.#readTables(living);
    this.#beginKinds([...tables.values()].flatMap(({ found }) => found));
    for (const [id, { process, found }] of tables) this.#tables.set(id, this.#dumpTable(process, found));
    for (let step = this.#steps.shift(); step !== undefined; step = this.#steps.shift()) step();
    const { refuse, options } = this.context;
    for (const [kind, descriptors] of this.#byKind) kind.checkAll?.(descriptors, refuse, options);
    for (const kind of this.#kinds) kind.conclude?.(this.context);
    for (const process of living) this.context.writer.write('fs', process.insidePid, [dumpFs(process, this)]);
    for (const kind of this.#kinds) kind.gather?.(this.context);
    gatherLocks(this.#locks, this.#locked, this.context);
  }

  /** Every table by its id, and one process that has it. */
  #readTables(living: readonly Process[]): Map<number, { process: Process; found: Recognised[] }> {
    const tables = new Map<number, { process: Process; found: Recognised[] }>();
    for (const process of living) {
      const id = this.#filesIdOf(process);
      if (!tables.has(id)) tables.set(id, { process, found: this.#readTable(process) });
    }
    return tables;
  }

  #readTable(process: Process): Recognised[] {
    const table = this.#survey?.tableOf(process.pid);
    const found: Recognised[] = [];
    for (const fd of table?.numbers ?? listDescriptors(process.pid)) {
      const surveyed = table?.file(fd);
      if (surveyed === undefined)
        found.push(this.#recognise({ process, fd, info: readDescriptor(process.pid, fd) }));
      else found.push({ descriptor: { process, fd, info: surveyed }, kind: surveyed.kind, surveyed });
    }
    return found;
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
    for (const { file, found } of this.#surveyed)
      this.#entries.push(file.dump(found.descriptor, found.id, this.context));
    for (const kind of this.#kinds) kind.write?.(this.context);
    const types = new Map(this.#entries.map(({ id, type }) => [id, type]));
    for (const [id, found] of this.#tables)
      writer.write(
        'fdinfo',
        id,
        found.map((each) => fdinfoOf(each, types)),
      );
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
    const id = this.#descriptions.intern(descriptor, () => {
      if (info.info.locks.length > 0)
        refuseNow(
          this.context,
          descriptor,
          'it holds locks, and nobody has it open who could take them again',
        );
      const recognised = this.#recognise(descriptor);
      this.#beginInFlight(recognised);
      return this.#dumpAs(recognised, fd);
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

  addLink(process: Process, link: string, flags: number, isLate = false): number {
    const path = `/proc/${process.pid}/${link}`;
    const target = readLink(path);
    const stat = statAt(path);
    const key = `${stat.dev}:${stat.ino}:${flags}:${target}`;
    const known = this.#links.get(key);
    if (known !== undefined) return known;
    const descriptor = { process, fd: -1, info: infoOfLink(target, stat, flags) };
    if (isLate && placeOf(target, stat).kind !== 'visible')
      refuseNow(this.context, descriptor, 'it was deleted or replaced when the tree had just gone on');
    using opened = openPath(path, O_PATH);
    const id = this.#dumpAs(this.#recognise(descriptor), opened.fd);
    this.#links.set(key, id);
    return id;
  }

  #nextId(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  #dumpTable(process: Process, table: readonly Recognised[]): Found[] {
    using pidfd = openPidfd(process.pid);
    return table.map((recognised) => {
      const { descriptor, surveyed } = recognised;
      const id =
        surveyed === undefined
          ? this.#describe(recognised, pidfd)
          : this.#note(surveyed, descriptor, recognised.kind);
      const found = { descriptor, id };
      this.#found.push(found);
      // Those with locks were not surveyed.
      if (surveyed === undefined && descriptor.info.info.locks.length > 0) this.#locked.push(found);
      return found;
    });
  }

  /** The id of a descriptor's description, which is dumped where it is met first. */
  #describe(recognised: Recognised, pidfd: OwnedFd): number {
    const { descriptor } = recognised;
    const { refuse, options } = this.context;
    checkLocks(descriptor, refuse, options);
    return this.#descriptions.intern(descriptor, () => {
      using taken = takeDescriptor(pidfd.fd, descriptor.fd, objectOf(descriptor));
      return this.#dumpAs(recognised, taken.fd);
    });
  }

  /** As `#describe`, of one that has answered all. */
  #note(file: SurveyedFile, descriptor: Descriptor, kind: FileKind): number {
    return this.#descriptions.internExpected(descriptor, file.expected, () => {
      const id = this.#nextId();
      this.#surveyed.push({ file, found: { descriptor, id } });
      this.#remember(descriptor, kind);
      return id;
    });
  }

  #remember(descriptor: Descriptor, kind: FileKind): void {
    if (kind.checkAll === undefined) return;
    const others = this.#byKind.get(kind);
    if (others === undefined) this.#byKind.set(kind, [descriptor]);
    else others.push(descriptor);
  }

  #dumpAs({ descriptor, kind }: Recognised, taken: number): number {
    const id = this.#nextId();
    // Looked at again: what the check before the freeze saw may have changed.
    if (descriptor.fd >= 0) {
      kind.check?.(descriptor, this.context.refuse, this.context.options);
      this.#remember(descriptor, kind);
    }
    this.#entries.push(kind.dump(descriptor, id, taken, this.context));
    return id;
  }
}

type Found = FileCollector['found'][number];

function fdinfoOf({ descriptor, id }: Found, types: ReadonlyMap<number, number>): fdinfo_entry {
  const { fd, info } = descriptor;
  const flags = (info.info.flags & O_CLOEXEC) === 0 ? 0 : FD_CLOEXEC;
  return createMessage('fdinfo', { id, flags, type: types.get(id) ?? 0, fd });
}

interface Recognised {
  readonly descriptor: Descriptor;
  readonly kind: FileKind;
  /** It has answered all. */
  readonly surveyed?: SurveyedFile;
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
