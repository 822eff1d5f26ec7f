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
import {
  type FileStat,
  identityIn,
  STATX_BYTES,
  STATX_MOUNT_AT,
  STATX_SIZE_AT,
  statFrom,
} from '../../kernel/stat.js';
import { Conditions } from '../../tape/conditions.js';
import { OwnTape } from '../../tape/own.js';
import { type Inside, type Played, type Result, type Space, Tape } from '../../tape/tape.js';
import type { Descriptor, DescriptorInfo, DumpContext, FileKind, file_entry } from '../contract.js';
import type { Answers, DumpAnswers } from '../survey-contract.js';
import { Descriptions, type Expected } from './shared.js';

/** A record of what a descriptor answers. What has more to say than most (locks, targets of an epoll) has no room. */
const RECORD = { stat: 0, owner: STATX_BYTES, text: STATX_BYTES + 16, size: STATX_BYTES + 16 + 512 } as const;
const TEXT_ROOM = RECORD.size - RECORD.text;
const OWNER_PID = RECORD.owner + 4;
const NOBODY = 0;
const LOCK = 'lock:';

/**
 * The survey of a tree: its descriptors as a look saw them, and what they answer when the tree stands still. Between the
 * two anything may have changed; what is not the same file any more, or says too little, was not surveyed. Nothing of the tree
 * is held meanwhile: a duplicate would keep a file open that the program closes.
 */
export class DescriptorSurvey implements Disposable {
  readonly descriptions = new Descriptions();
  readonly #conditions = new Conditions();
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
    const drawing = { tape, conditions: this.#conditions, descriptions: this.descriptions };
    for (const [pid, seen] of this.#seen) this.#tables.set(pid, new SurveyedTable(pid, seen, drawing));
    this.descriptions.askAgain(tape, this.#conditions);
    this.#seen.clear();
    this.#tape = new OwnTape(tape);
    this.#conditions.compile(tape, this.#tape.bytes);
  }

  /** Frozen, `pids` are all there are: ask. Nobody was surveyed where somebody has gone, whose pid may be a stranger's. */
  ask(pids: ReadonlySet<number>): void {
    const isWhole = [...this.#tables.keys()].every((pid) => pids.has(pid));
    const played = isWhole ? this.#tape?.play('pidfd_getfd') : undefined;
    if (played === undefined) {
      this.#tables.clear();
      this.descriptions.forget();
    } else {
      for (const table of this.#tables.values()) table.read(played, this.#conditions);
      this.descriptions.confirm(this.#conditions);
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

/** What a survey is put together on. */
interface Drawing {
  readonly tape: Tape;
  readonly conditions: Conditions;
  readonly descriptions: Descriptions;
}

/** The descriptors of a process. */
export class SurveyedTable {
  readonly #files: SurveyedFile[] = [];
  readonly #byNumber = new Map<number, SurveyedFile>();
  readonly #records: Space;
  /** Numbers of the conditions that hold for the whole of it. */
  readonly #begin: number;
  readonly #end: number;
  /** Are all there are surveyed? */
  #isWhole: boolean;

  constructor(pid: number, seen: readonly Seen[], drawing: Drawing) {
    const { tape, conditions } = drawing;
    const flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    const texts = tape.call('openat', [AT_FDCWD, tape.string(`/proc/${pid}/fdinfo`), flags, 0], 'any');
    const pidfd = tape.call('pidfd_open', [pid, 0], 'any');
    this.#records = tape.space(seen.length * RECORD.size);
    seen.forEach((each, index) => {
      const file = surveyedFile(each, drawing, {
        texts,
        pidfd,
        records: this.#records,
        at: index * RECORD.size,
      });
      if (file !== undefined) this.#files.push(file);
    });
    for (const file of this.#files) this.#byNumber.set(file.fd, file);
    const stat = tape.space(STATX_BYTES);
    const counted = tape.call(
      'statx',
      [AT_FDCWD, tape.string(`/proc/${pid}/fd`), 0, STATX_SIZE, stat],
      'any',
    );
    tape.call('close', [pidfd], 'any');
    tape.call('close', [texts], 'any');
    // From Linux 6.2 its size is how many there are (fs/proc/fd.c proc_fd_getattr).
    this.#begin = conditions.count;
    conditions.equals(counted, 0);
    conditions.equals({ kind: 'inside', space: stat, at: STATX_SIZE_AT }, seen.length);
    this.#end = conditions.count;
    this.#isWhole = this.#files.length === seen.length;
  }

  /** Frozen. */
  read(played: Played, conditions: Conditions): void {
    const records = played.view(this.#records);
    const hasLocks = bytesOf(records, 0, records.byteLength).includes(LOCK);
    this.#isWhole &&= conditions.firstUnmet(this.#begin, this.#end) === this.#end;
    for (const file of this.#files)
      if (!file.read(played, records, conditions, hasLocks)) this.#isWhole = false;
  }

  /** All descriptors there are, ascending; undefined where they have to be listed. */
  get numbers(): Iterable<number> | undefined {
    return this.#isWhole ? this.#byNumber.keys() : undefined;
  }

  /** Undefined where the answers do not suffice. */
  file(fd: number): SurveyedFile | undefined {
    const file = this.#byNumber.get(fd);
    return file?.suffices === true ? file : undefined;
  }
}

/** Where the questions about a descriptor go. */
interface Place {
  readonly texts: Result;
  readonly pidfd: Result;
  readonly records: Space;
  readonly at: number;
}

/** What answers all descriptors give, and the numbers of their conditions. */
interface Cells {
  readonly signum: Result;
  readonly length: Result;
  readonly at: number;
  readonly begin: number;
  /** Those before are of its being the same file. */
  readonly same: number;
  readonly end: number;
}

/** Put on the tape what is asked about a descriptor. Undefined where that would say too little. */
function surveyedFile({ descriptor, kind }: Seen, drawing: Drawing, place: Place): SurveyedFile | undefined {
  const { tape, conditions, descriptions } = drawing;
  if (kind.ask === undefined) return undefined;
  const { texts, pidfd, records, at } = place;
  const { fd, info } = descriptor;
  const inside = (offset: number): Inside => ({ kind: 'inside', space: records, at: at + offset });
  const begin = conditions.count;
  const taken = tape.call('pidfd_getfd', [pidfd, fd, 0], 'any');
  conditions.within(taken, 0);
  const mask = STATX_BASIC_STATS | STATX_MNT_ID;
  tape.call('statx', [taken, tape.string(''), AT_EMPTY_PATH, mask, inside(RECORD.stat)], 'any');
  for (const [offset, value] of identityIn(info.stat)) conditions.equals(inside(RECORD.stat + offset), value);
  conditions.equals(inside(RECORD.stat + STATX_MOUNT_AT), info.info.mntId);
  const same = conditions.count;
  tape.call('fcntl', [taken, F_GETOWN_EX, inside(RECORD.owner)], 'any');
  conditions.equals(inside(OWNER_PID), NOBODY);
  const signum = tape.call('fcntl', [taken, F_GETSIG, 0], 'any');
  conditions.within(signum, 0);
  const begins = (text: string): void => textBegins(text, inside(RECORD.text), conditions);
  const dump = kind.ask(descriptor, { tape, taken, conditions, begins });
  tape.call('close', [taken], 'any');
  const opened = tape.call('openat', [texts, tape.string(String(fd)), O_RDONLY | O_CLOEXEC, 0], 'any');
  const length = tape.call('read', [opened, inside(RECORD.text), TEXT_ROOM], 'any');
  conditions.within(length, 1, TEXT_ROOM - 1);
  tape.call('close', [opened], 'any');
  // Only what is looked at again in the pause may be compared with others then.
  const expected = dump === undefined ? undefined : expect(descriptor, descriptions);
  if (dump === undefined || expected === undefined) return undefined;
  const cells = { signum, length, at, begin, same, end: conditions.count };
  return new SurveyedFile(descriptor, kind, dump, expected, cells);
}

/** Undefined where it, or one it is compared with, has been closed meanwhile. */
function expect(descriptor: Descriptor, descriptions: Descriptions): Expected | undefined {
  try {
    return descriptions.expect(descriptor);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

/** As far as it fills words. */
function textBegins(text: string, { space, at }: Inside, conditions: Conditions): void {
  const bytes = Buffer.from(text);
  for (let word = 0; word + 4 <= bytes.length; word += 4)
    conditions.equals({ kind: 'inside', space, at: at + word }, bytes.readInt32LE(word));
}

function bytesOf({ buffer, byteOffset }: DataView, at: number, length: number): Buffer {
  return Buffer.from(buffer, byteOffset + at, length);
}

/** A descriptor that was asked. It is looked at as if by readDescriptor; what it said is parsed when somebody wants to know. */
export class SurveyedFile implements Answers, DescriptorInfo {
  readonly fd: number;
  readonly kind: FileKind;
  readonly expected: Expected;
  suffices = false;
  readonly #before: Descriptor;
  readonly #dump: DumpAnswers;
  readonly #cells: Cells;
  #played: Played | undefined;
  #records: DataView | undefined;
  #stat: FileStat | undefined;
  #info: Fdinfo | undefined;

  constructor(before: Descriptor, kind: FileKind, dump: DumpAnswers, expected: Expected, cells: Cells) {
    this.fd = before.fd;
    this.#before = before;
    this.kind = kind;
    this.#dump = dump;
    this.expected = expected;
    this.#cells = cells;
  }

  /** Frozen; answers whether it is open. What is not the file it was says nothing of the order it was found in, either. */
  read(played: Played, records: DataView, conditions: Conditions, hasLocks: boolean): boolean {
    const { begin, same, end } = this.#cells;
    const unmet = conditions.firstUnmet(begin, end);
    this.#played = played;
    this.#records = records;
    if (unmet < same) this.expected.group.isSure = false;
    this.suffices = unmet === end && !(hasLocks && this.#text.includes(LOCK));
    return unmet > begin;
  }

  dump(descriptor: Descriptor, id: number, context: DumpContext): file_entry {
    return this.#dump(descriptor, id, this, context);
  }

  get played(): Played {
    if (this.#played === undefined) throw new Error(`descriptor ${this.fd} was not asked`);
    return this.#played;
  }

  get signum(): number {
    return this.played.number(this.#cells.signum);
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
    return bytesOf(this.#records, this.#cells.at + offset, length);
  }
}
