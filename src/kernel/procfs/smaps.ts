/** /proc/PID/smaps: proc_pid_smaps(5), fs/proc/task_mmu.c show_smap(). A line of maps, then `Key: value` lines. */
import { decodeBytes } from './bytes.js';
import { Cursor, type Mapping, nextMapping } from './maps.js';
import { readBytes, taskPath, type Where } from './read.js';

/** Sizes are bytes. */
export interface DetailedMapping extends Mapping {
  readonly kernelPageSize: number;
  readonly rss: number;
  readonly anonymous: number;
  readonly anonHugePages: number;
  readonly swap: number;
  readonly locked: number;
  readonly sharedHugetlb: number;
  readonly privateHugetlb: number;
  readonly thpEligible: boolean | undefined;
  readonly protectionKey: number | undefined;
  /** Two letters each: rd wr ex sh mr mw me ms gd pf dw lo io sr rr dc de ac nr ht sf ar wf dd sd mm hg nh mg um uw ui ss sl … */
  readonly vmFlags: readonly string[];
}

type Writable = { -readonly [K in keyof DetailedMapping]: DetailedMapping[K] };

/** Spelled out field by field: spreading objects takes ten times as long, and most of a parse. */
function emptyMapping(head: Mapping): Writable {
  return {
    start: head.start,
    end: head.end,
    perms: head.perms,
    offset: head.offset,
    major: head.major,
    minor: head.minor,
    inode: head.inode,
    path: head.path,
    deleted: head.deleted,
    kernelPageSize: ABSENT,
    rss: ABSENT,
    anonymous: ABSENT,
    anonHugePages: 0,
    swap: ABSENT,
    locked: ABSENT,
    sharedHugetlb: 0,
    privateHugetlb: 0,
    thpEligible: undefined,
    protectionKey: undefined,
    vmFlags: NO_FLAGS,
  };
}

/** Marks what every block has to hold and did not yet. */
const ABSENT = -1;
const NO_FLAGS: readonly string[] = [];

function isComplete(mapping: DetailedMapping): boolean {
  const { kernelPageSize, rss, anonymous, swap, locked, vmFlags } = mapping;
  return Math.min(kernelPageSize, rss, anonymous, swap, locked) !== ABSENT && vmFlags !== NO_FLAGS;
}

export function parseSmaps(text: string, path = '/proc/PID/smaps'): DetailedMapping[] {
  const cursor = new Cursor(text, path);
  const mappings: DetailedMapping[] = [];
  while (!cursor.done) {
    const mapping = emptyMapping(nextMapping(cursor));
    while (!cursor.done && isKey(text.charCodeAt(cursor.at))) readDetail(cursor, mapping);
    if (!isComplete(mapping)) {
      cursor.at--;
      cursor.fail('the block that ends here is not complete');
    }
    mappings.push(mapping);
  }
  return mappings;
}

/** Keys begin with a capital letter, addresses with a digit or a small one. */
function isKey(code: number): boolean {
  return code >= 65 && code <= 90;
}

/** Dispatch on the first letter leaves few comparisons; most lines (Pss, Referenced …) no restore needs. */
function readDetail(cursor: Cursor, mapping: Writable): void {
  const { text, at } = cursor;
  const end = cursor.lineEnd();
  switch (text.charAt(at)) {
    case 'K':
      if (text.startsWith('KernelPageSize:', at)) mapping.kernelPageSize = kilobytes(cursor, at + 15, end);
      break;
    case 'R':
      if (text.startsWith('Rss:', at)) mapping.rss = kilobytes(cursor, at + 4, end);
      break;
    case 'A':
      if (text.startsWith('Anonymous:', at)) mapping.anonymous = kilobytes(cursor, at + 10, end);
      else if (text.startsWith('AnonHugePages:', at)) mapping.anonHugePages = kilobytes(cursor, at + 14, end);
      break;
    case 'S':
      if (text.startsWith('Swap:', at)) mapping.swap = kilobytes(cursor, at + 5, end);
      else if (text.startsWith('Shared_Hugetlb:', at))
        mapping.sharedHugetlb = kilobytes(cursor, at + 15, end);
      break;
    case 'L':
      if (text.startsWith('Locked:', at)) mapping.locked = kilobytes(cursor, at + 7, end);
      break;
    case 'P':
      if (text.startsWith('Private_Hugetlb:', at)) mapping.privateHugetlb = kilobytes(cursor, at + 16, end);
      else if (text.startsWith('ProtectionKey:', at)) mapping.protectionKey = decimal(cursor, at + 14, end);
      break;
    case 'T':
      if (text.startsWith('THPeligible:', at)) mapping.thpEligible = decimal(cursor, at + 12, end) !== 0;
      break;
    case 'V':
      if (text.startsWith('VmFlags:', at)) mapping.vmFlags = flags(cursor, at + 8, end);
  }
  cursor.at = end + 1;
}

function decimal(cursor: Cursor, from: number, end: number): number {
  let at = from;
  while (cursor.text.charCodeAt(at) === 32) at++;
  const first = at;
  let value = 0;
  for (; at < end; at++) {
    const digit = cursor.text.charCodeAt(at) - 48;
    if (digit < 0 || digit > 9) cursor.fail('not a number');
    value = value * 10 + digit;
  }
  if (at === first) cursor.fail('no number');
  return value;
}

function kilobytes(cursor: Cursor, from: number, end: number): number {
  if (!cursor.text.startsWith(' kB', end - 3)) cursor.fail('no kB');
  return decimal(cursor, from, end - 3) * 1024;
}

const flagLists = new Map<string, readonly string[]>();

/** Few different lists occur in one system, so they are shared. */
function flags(cursor: Cursor, from: number, end: number): readonly string[] {
  const text = cursor.text.slice(from, end).trim();
  const known = flagLists.get(text);
  if (known !== undefined) return known;
  const list = text === '' ? [] : text.split(' ');
  // '??' is what the kernel prints for a bit that has no name of its own.
  if (!list.every((flag) => /^([a-z0-9]{2}|\?\?)$/.test(flag))) cursor.fail('flags are not two letters each');
  if (flagLists.size >= 1024) flagLists.clear();
  flagLists.set(text, list);
  return list;
}

export function readSmaps(pid: number, where: Where = {}): DetailedMapping[] {
  return mappingsIn(readSmapsBytes(pid, where));
}

/** To be looked through, and parsed later. */
export function readSmapsBytes(pid: number, where: Where = {}): Buffer {
  return readBytes(taskPath(pid, 'smaps', where));
}

/** What `readSmapsBytes` has read. */
export function mappingsIn(bytes: Buffer): DetailedMapping[] {
  return parseSmaps(decodeBytes(bytes));
}
