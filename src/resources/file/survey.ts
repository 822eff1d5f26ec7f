import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  F_GETOWN_EX,
  F_GETSIG,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  STATX_BASIC_STATS,
  STATX_MNT_ID,
  STATX_SIZE,
} from '../../abi/fcntl.js';
import { SyscallError } from '../../kernel/errors.js';
import { type Fdinfo, parseFdinfo } from '../../kernel/procfs/fdinfo.js';
import { FileIdentity, type FileStat, mountOf, STATX_BYTES, sizeOf, statFrom } from '../../kernel/stat.js';
import { OwnTape } from '../../tape/own.js';
import { type Played, type Result, type Space, Tape } from '../../tape/tape.js';
import type { Descriptor, DescriptorInfo, DumpContext, FileKind, file_entry } from '../contract.js';
import type { Answers, Questions } from '../survey-contract.js';
import { Descriptions, type Expected } from './shared.js';

/** A record of what a descriptor answers. Only what says no more than the fdinfo of plain files has room. */
const RECORD = { stat: 0, owner: STATX_BYTES, text: STATX_BYTES + 16, size: STATX_BYTES + 16 + 512 } as const;
const TEXT_ROOM = RECORD.size - RECORD.text;
const OWNER_PID = RECORD.owner + 4;

/**
 * The survey of a tree: its descriptors as a look saw them, and what they answer when the tree stands still. Between the
 * two anything may have changed; what is not the same file any more, or says too little, was not surveyed. Nothing of the tree
 * is held meanwhile: a duplicate would keep a file open that the program closes.
 */
export class DescriptorSurvey implements Disposable {
  readonly descriptions = new Descriptions();
  readonly #seen = new Map<number, Seen[]>();
  readonly #tables = new Map<number, SurveyedTable>();
  #tape: OwnTape | undefined;

  /** A look begins, which replaces the one before. */
  begin(): void {
    this.#seen.clear();
  }

  add(descriptor: Descriptor, kind: FileKind): void {
    const { pid } = descriptor.process;
    const known = this.#seen.get(pid);
    if (known === undefined) this.#seen.set(pid, [{ descriptor, kind }]);
    else known.push({ descriptor, kind });
  }

  /** The tree runs: all questions are put on a tape. */
  prepare(): void {
    const tape = new Tape('descriptors of the tree');
    for (const [pid, seen] of this.#seen)
      this.#tables.set(pid, new SurveyedTable(pid, seen, tape, this.descriptions));
    this.descriptions.askAgain(tape);
    this.#seen.clear();
    this.#tape = new OwnTape(tape);
  }

  /** Frozen, `pids` are all there are: ask. Who was not there before was not surveyed, nor is anybody where others have gone. */
  ask(pids: ReadonlySet<number>): void {
    const isWhole = [...this.#tables.keys()].every((pid) => pids.has(pid));
    const played = isWhole ? this.#tape?.play('pidfd_getfd') : undefined;
    if (played === undefined) this.#tables.clear();
    else {
      for (const table of this.#tables.values()) table.read(played);
      this.descriptions.confirm(played);
    }
  }

  tableOf(pid: number): SurveyedTable | undefined {
    return this.#tables.get(pid);
  }

  [Symbol.dispose](): void {
    this.#tape?.[Symbol.dispose]();
    this.#tape = undefined;
  }
}

interface Seen {
  readonly descriptor: Descriptor;
  readonly kind: FileKind;
}

/** The descriptors of a process. */
export class SurveyedTable {
  readonly #files = new Map<number, SurveyedFile>();
  readonly #records: Space;
  readonly #stat: Space;
  /** How many there were, surveyed or not. */
  readonly #count: number;
  #isWhole = false;

  constructor(pid: number, seen: readonly Seen[], tape: Tape, descriptions: Descriptions) {
    const flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    const texts = tape.call('openat', [AT_FDCWD, tape.string(`/proc/${pid}/fdinfo`), flags, 0], 'any');
    const pidfd = tape.call('pidfd_open', [pid, 0], 'any');
    this.#stat = tape.space(STATX_BYTES);
    const path = tape.string(`/proc/${pid}/fd`);
    tape.call('statx', [AT_FDCWD, path, 0, STATX_SIZE, this.#stat], 'any');
    this.#records = tape.space(seen.length * RECORD.size);
    this.#count = seen.length;
    seen.forEach(({ descriptor, kind }, index) => {
      const place = { texts, pidfd, records: this.#records, at: index * RECORD.size };
      const file = surveyedFile(descriptor, kind, tape, place, descriptions);
      if (file !== undefined) this.#files.set(descriptor.fd, file);
    });
    tape.call('close', [pidfd], 'any');
    tape.call('close', [texts], 'any');
  }

  /** Frozen. */
  read(played: Played): void {
    const records = played.view(this.#records);
    const { buffer, byteOffset, byteLength } = records;
    const hasLocks = Buffer.from(buffer, byteOffset, byteLength).includes(LOCK);
    let open = 0;
    for (const file of this.#files.values()) if (file.read(played, records, hasLocks)) open++;
    // From Linux 6.2 it is how many there are (fs/proc/fd.c proc_fd_getattr).
    this.#isWhole = open === this.#count && sizeOf(played.view(this.#stat)) === open;
  }

  /** All descriptors there are, ascending; undefined where it does not show, and they have to be listed. */
  get numbers(): Iterable<number> | undefined {
    return this.#isWhole ? this.#files.keys() : undefined;
  }

  /** Undefined where what was asked does not suffice. */
  file(fd: number): SurveyedFile | undefined {
    const file = this.#files.get(fd);
    return file?.suffices === true ? file : undefined;
  }
}

const LOCK = 'lock:';
/** Constant in F_GETOWN_EX: nobody. */
const NOBODY = 0;

interface Place {
  readonly texts: Result;
  readonly pidfd: Result;
  readonly records: Space;
  readonly at: number;
}

interface Cells {
  readonly taken: Result;
  readonly signum: Result;
  readonly length: Result;
}

/** Put on the tape what is asked about a descriptor. Undefined where that would say too little. */
function surveyedFile(
  descriptor: Descriptor,
  kind: FileKind,
  tape: Tape,
  { texts, pidfd, records, at }: Place,
  descriptions: Descriptions,
): SurveyedFile | undefined {
  if (kind.ask === undefined) return undefined;
  const expected = expect(descriptor, descriptions);
  if (expected === undefined) return undefined;
  const { fd } = descriptor;
  const inside = (offset: number) => ({ kind: 'inside', space: records, at: at + offset }) as const;
  const taken = tape.call('pidfd_getfd', [pidfd, fd, 0], 'any');
  const mask = STATX_BASIC_STATS | STATX_MNT_ID;
  tape.call('statx', [taken, tape.string(''), AT_EMPTY_PATH, mask, inside(RECORD.stat)], 'any');
  tape.call('fcntl', [taken, F_GETOWN_EX, inside(RECORD.owner)], 'any');
  const signum = tape.call('fcntl', [taken, F_GETSIG, 0], 'any');
  const questions = kind.ask(descriptor, taken, tape);
  tape.call('close', [taken], 'any');
  const opened = tape.call('openat', [texts, tape.string(String(fd)), O_RDONLY | O_CLOEXEC, 0], 'any');
  const length = tape.call('read', [opened, inside(RECORD.text), TEXT_ROOM], 'any');
  tape.call('close', [opened], 'any');
  if (questions === undefined) return undefined;
  return new SurveyedFile(descriptor, kind, questions, expected, { taken, signum, length }, at);
}

/** Undefined where it has been closed meanwhile, or is looked at in a bad moment. */
function expect(descriptor: Descriptor, descriptions: Descriptions): Expected | undefined {
  try {
    return descriptions.expect(descriptor);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

/** A descriptor that was asked. It is looked at as if by readDescriptor; what it said is parsed when somebody wants to know. */
export class SurveyedFile implements Answers, DescriptorInfo {
  readonly kind: FileKind;
  readonly expected: Expected;
  suffices = false;
  readonly #before: Descriptor;
  readonly #questions: Questions;
  readonly #identity: FileIdentity;
  readonly #cells: Cells;
  readonly #at: number;
  #played: Played | undefined;
  #records: DataView | undefined;
  #stat: FileStat | undefined;
  #info: Fdinfo | undefined;

  constructor(
    before: Descriptor,
    kind: FileKind,
    questions: Questions,
    expected: Expected,
    cells: Cells,
    at: number,
  ) {
    this.#before = before;
    this.kind = kind;
    this.#questions = questions;
    this.expected = expected;
    this.#identity = new FileIdentity(before.info.stat);
    this.#cells = cells;
    this.#at = at;
  }

  /** Frozen; answers whether the descriptor is open. Whoever is not what it was is no measure for others, either. */
  read(played: Played, records: DataView, hasLocks: boolean): boolean {
    const isOpen = played.number(this.#cells.taken) >= 0;
    const at = this.#at;
    this.#played = played;
    this.#records = records;
    const isSame =
      isOpen &&
      this.#identity.isThatOf(records, at + RECORD.stat) &&
      mountOf(records, at + RECORD.stat) === this.#before.info.info.mntId;
    if (!isSame) this.expected.group.isSure = false;
    const length = played.number(this.#cells.length);
    this.suffices =
      isSame &&
      length > 0 &&
      length < TEXT_ROOM &&
      this.signum >= 0 &&
      records.getInt32(at + OWNER_PID, true) === NOBODY &&
      !(hasLocks && this.shows(LOCK)) &&
      this.#questions.suffice(this);
    return isOpen;
  }

  dump(descriptor: Descriptor, id: number, context: DumpContext): file_entry {
    return this.#questions.dump(descriptor, id, this, context);
  }

  get played(): Played {
    if (this.#played === undefined) throw new Error(`descriptor ${this.fd} was not asked`);
    return this.#played;
  }

  get signum(): number {
    return this.played.number(this.#cells.signum);
  }

  shows(text: string): boolean {
    return this.#text.includes(text);
  }

  get fd(): number {
    return this.#before.fd;
  }

  get link(): string {
    return this.#before.info.link;
  }

  get stat(): FileStat {
    this.#stat ??= statFrom(this.#bytes(RECORD.stat, STATX_BYTES));
    return this.#stat;
  }

  get info(): Fdinfo {
    this.#info ??= parseFdinfo(this.#text.toString('latin1'));
    return this.#info;
  }

  get #text(): Buffer {
    return this.#bytes(RECORD.text, this.played.number(this.#cells.length));
  }

  #bytes(offset: number, length: number): Buffer {
    if (this.#records === undefined) throw new Error(`descriptor ${this.fd} was not asked`);
    const { buffer, byteOffset } = this.#records;
    return Buffer.from(buffer, byteOffset + this.#at + offset, length);
  }
}
