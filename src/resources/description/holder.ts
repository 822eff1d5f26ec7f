import { rmSync } from 'node:fs';
import { F_DUPFD_CLOEXEC, O_CLOEXEC } from '../../abi/fcntl.js';
import { RLIMIT_NOFILE } from '../../abi/process.js';
import type { ImageReader } from '../../image/index.js';
import { syscall } from '../../kernel/syscall.js';
import { type Deferred, deferred, Tape } from '../../tape/tape.js';
import type { FileKind, file_entry, Holder, RestoreActs, RestoreOptions, Result } from '../contract.js';
import { fcntl } from './calls.js';
import { DescriptorLimitError, descriptorLimit } from './limit.js';
import { setOwners } from './owner.js';
import { namesOnly } from './used.js';

/**
 * Slots begin here. Below it lie descriptors that are being made: each is moved to its slot before the next is, so
 * the kernel's lowest-first allocation (fs/file.c alloc_fd) never reaches a slot.
 */
export const FIRST_SLOT = 64;

/**
 * The holder of an image. Its tapes, in the order in which the engine plays them on the holder's stem:
 * `openings` (before any process of the image exists), `late` (when all exist, before they take descriptors), `latest`
 * (when they have taken them, and their threads exist), `last` (when the tree is complete), and `resume` (when it is about
 * to go on).
 */
export class StemHolder implements Holder, Disposable {
  readonly openings = new Tape('open descriptions');
  readonly late = new Tape('open descriptions that need the processes');
  readonly latest = new Tape('open descriptions that need the descriptors of processes');
  readonly last = new Tape('remove temporary names');
  /** Files that are opened on the latest tape, by their ids. */
  readonly waiting = new Set<number>();
  readonly resume = new Tape('what others notice');
  readonly reader: ImageReader;
  readonly options: RestoreOptions;
  /** This process, as the holder sees it. */
  readonly controller: Deferred;
  /** Descriptors of this process that were given away by `bring`; to be closed once the openings were played. */
  readonly brought: number[] = [];
  /** What this process does around the restore. */
  readonly acts: RestoreActs[] = [];
  readonly #slots = new Map<string, number>();
  readonly #held = new Set<string>();
  readonly #states = new Map<object, unknown>();
  readonly #leftovers: string[] = [];
  #tape: Tape;
  #next = FIRST_SLOT;
  readonly #limit: number;

  constructor(reader: ImageReader, options: RestoreOptions) {
    this.reader = reader;
    this.options = options;
    this.controller = deferred('this process');
    this.#tape = this.openings;
    this.#limit = descriptorLimit();
    const limits = this.openings.space(limitBytes(this.#limit));
    this.openings.about('an empty table, with as much room as there may be');
    this.openings.call('close_range', [0, 0xffff_ffff, 0]);
    this.openings.call('prlimit64', [0, RLIMIT_NOFILE, limits, 0]);
    // Modes of files that are made are meant as they are.
    this.openings.call('umask', [0]);
  }

  get tape(): Tape {
    return this.#tape;
  }

  slot(key: string): number {
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    const slot = this.#next++;
    if (slot >= this.#limit)
      throw new DescriptorLimitError(
        `the image needs more than ${this.#limit - FIRST_SLOT} descriptors at once, and RLIMIT_NOFILE's hard limit here is ${this.#limit}: raise it (ulimit -Hn)`,
      );
    this.#slots.set(key, slot);
    return slot;
  }

  /** Is there, or will there be by the end of the tapes, something in the slot of `key`? */
  holds(key: string): boolean {
    return this.#held.has(key);
  }

  /** Keys that somebody takes and nobody filled: a bug, or an image that lacks them. */
  get missing(): string[] {
    return [...this.#slots.keys()].filter((key) => !this.#held.has(key));
  }

  hold(key: string, fd: Result | number): void {
    this.tape.call('dup3', [fd, this.slot(key), O_CLOEXEC]);
    this.tape.call('close', [fd]);
    this.#held.add(key);
  }

  bring(fd: number): Result {
    const key = 'controller';
    if (!this.#held.has(key)) this.hold(key, this.tape.call('pidfd_open', [this.controller, 0]));
    this.brought.push(fd);
    return this.tape.call('pidfd_getfd', [this.slot(key), fd, 0]);
  }

  leaves(path: string): void {
    this.#leftovers.push(path);
  }

  around(acts: RestoreActs): void {
    this.acts.push(acts);
  }

  state<T>(owner: object, initial: () => T): T {
    if (!this.#states.has(owner)) this.#states.set(owner, initial());
    return this.#states.get(owner) as T;
  }

  /**
   * Open every entry of files.img that is open somewhere, those that need the processes on the late tape; then what
   * connects them, and their owners. Files whose memory the memory module holds (memfd:) must have been held before.
   */
  openAll(kinds: readonly FileKind[], entries: readonly file_entry[]): void {
    const names = namesOnly(this.reader, entries);
    const all = entries
      .filter(({ id }) => !names.has(id))
      .map((entry) => ({ kind: kindOfEntry(kinds, entry, this.reader), entry }));
    const when = ({ kind, entry }: (typeof all)[number]) => kind.late?.(entry, this) ?? false;
    for (const each of all) if (when(each) === false) this.#open(each.kind, each.entry);
    this.#tape = this.late;
    for (const each of all) if (when(each) === true) this.#open(each.kind, each.entry);
    const latest = all.filter((each) => when(each) === 'tables');
    if (latest.length > 0) this.#tape = this.latest;
    for (const { kind, entry } of latest) {
      this.waiting.add(entry.id);
      this.#open(kind, entry);
    }
    for (const { kind, entry } of all) {
      this.tape.about(`file ${entry.id} (${kind.name})`);
      kind.connect?.(entry, this);
    }
    setOwners(this, this.tape);
  }

  /** From now on `tape` is the last one. */
  turnToLast(): void {
    this.#tape = this.last;
  }

  /**
   * The end of the last tape: what watches files (inotify) begins when everything else is done. What the holder has
   * open is closed before, for that may be an event too.
   */
  watchAll(kinds: readonly FileKind[], entries: readonly file_entry[]): void {
    const watchers = entries.flatMap((entry) => {
      const kind = kinds.find(({ member }) => entry[member] !== undefined);
      return kind?.watch === undefined || !this.#held.has(`file:${entry.id}`) ? [] : [{ kind, entry }];
    });
    if (watchers.length === 0) return;
    const own = new Set(watchers.map(({ entry }) => `file:${entry.id}`));
    const isNeeded = (key: string) => own.has(key) || key.startsWith('watch:') || key.startsWith('ghost:');
    const needed = [...this.#slots].filter(([key]) => isNeeded(key)).map(([, slot]) => slot);
    this.last.about('what is not needed any more');
    let first = 0;
    for (const slot of needed.sort((a, b) => a - b)) {
      if (slot > first) this.last.call('close_range', [first, slot - 1, 0]);
      first = slot + 1;
    }
    this.last.call('close_range', [first, 0xffff_ffff, 0]);
    for (const { kind, entry } of watchers) kind.watch?.(entry, this);
  }

  #open(kind: FileKind, entry: file_entry): void {
    this.tape.about(`file ${entry.id} (${kind.name})`);
    this.hold(`file:${entry.id}`, kind.open(entry, this));
  }

  [Symbol.dispose](): void {
    this.closeBrought();
    for (const path of this.#leftovers) rmSync(path, { recursive: true, force: true });
  }

  /** Close what `bring` was given. To be called when the openings were played, or will not be. */
  closeBrought(): void {
    for (const fd of this.brought.splice(0)) syscall('close', [fd]);
  }
}

/** A second descriptor of ours, to be given away, for one that stays the caller's. */
export function duplicate(fd: number): number {
  return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

function kindOfEntry(kinds: readonly FileKind[], entry: file_entry, reader: ImageReader): FileKind {
  const kind = kinds.find(
    (each) => entry[each.member] !== undefined && each.restores?.(entry, reader) !== false,
  );
  if (kind !== undefined) return kind;
  const member = Object.keys(entry).find((key) => key !== 'type' && key !== 'id' && !key.startsWith('$'));
  throw new UnknownFileError(
    `files.img: file ${entry.id} is of a kind that cannot be restored yet (${member})`,
  );
}

/** An entry of files.img that no kind opens. */
export class UnknownFileError extends Error {
  override readonly name = 'UnknownFileError';
  readonly code = 'EUNSUPPORTED';
}

function limitBytes(limit: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(limit), true);
  view.setBigUint64(8, BigInt(limit), true);
  return bytes;
}
