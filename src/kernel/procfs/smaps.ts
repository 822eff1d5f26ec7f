/** /proc/PID/smaps: proc_pid_smaps(5), fs/proc/task_mmu.c show_smap(). A line of maps, then `Key: value` lines. */
import { Cursor, type Mapping, nextMapping } from './maps.js';
import { readText, taskPath, type Where } from './read.js';

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

type Details = { -readonly [K in Exclude<keyof DetailedMapping, keyof Mapping>]: DetailedMapping[K] };

const NO_DETAILS: Details = {
  kernelPageSize: 0,
  rss: 0,
  anonymous: 0,
  anonHugePages: 0,
  swap: 0,
  locked: 0,
  sharedHugetlb: 0,
  privateHugetlb: 0,
  thpEligible: undefined,
  protectionKey: undefined,
  vmFlags: [],
};

export function parseSmaps(text: string, path = '/proc/PID/smaps'): DetailedMapping[] {
  const cursor = new Cursor(text, path);
  const mappings: DetailedMapping[] = [];
  while (!cursor.done) {
    const mapping = nextMapping(cursor);
    const details: Details = { ...NO_DETAILS };
    while (!cursor.done && isKey(text.charCodeAt(cursor.at))) readDetail(cursor, details);
    if (details.kernelPageSize === 0 || details.vmFlags.length === 0) {
      cursor.at--;
      cursor.fail('the block before has no KernelPageSize or no VmFlags');
    }
    mappings.push({ ...mapping, ...details });
  }
  return mappings;
}

/** Keys begin with a capital letter, addresses with a digit or a small one. */
function isKey(code: number): boolean {
  return code >= 65 && code <= 90;
}

function readDetail(cursor: Cursor, details: Details): void {
  const { text } = cursor;
  const end = cursor.lineEnd();
  const colon = text.indexOf(':', cursor.at);
  if (colon < 0 || colon > end) cursor.fail('no colon');
  switch (text.slice(cursor.at, colon)) {
    case 'KernelPageSize':
      details.kernelPageSize = kilobytes(cursor, colon, end);
      break;
    case 'Rss':
      details.rss = kilobytes(cursor, colon, end);
      break;
    case 'Anonymous':
      details.anonymous = kilobytes(cursor, colon, end);
      break;
    case 'AnonHugePages':
      details.anonHugePages = kilobytes(cursor, colon, end);
      break;
    case 'Swap':
      details.swap = kilobytes(cursor, colon, end);
      break;
    case 'Locked':
      details.locked = kilobytes(cursor, colon, end);
      break;
    case 'Shared_Hugetlb':
      details.sharedHugetlb = kilobytes(cursor, colon, end);
      break;
    case 'Private_Hugetlb':
      details.privateHugetlb = kilobytes(cursor, colon, end);
      break;
    case 'THPeligible':
      details.thpEligible = decimal(cursor, colon, end) !== 0;
      break;
    case 'ProtectionKey':
      details.protectionKey = decimal(cursor, colon, end);
      break;
    case 'VmFlags':
      details.vmFlags = flags(cursor, colon, end);
      break;
    default: // The rest (Pss, Referenced …) is statistics that no restore needs.
  }
  cursor.at = end + 1;
}

function decimal(cursor: Cursor, colon: number, end: number): number {
  let at = colon + 1;
  while (cursor.text.charCodeAt(at) === 32) at++;
  const from = at;
  let value = 0;
  for (; at < end; at++) {
    const digit = cursor.text.charCodeAt(at) - 48;
    if (digit < 0 || digit > 9) cursor.fail('not a number');
    value = value * 10 + digit;
  }
  if (at === from) cursor.fail('no number');
  return value;
}

function kilobytes(cursor: Cursor, colon: number, end: number): number {
  if (!cursor.text.startsWith(' kB', end - 3)) cursor.fail('no kB');
  return decimal(cursor, colon, end - 3) * 1024;
}

const flagLists = new Map<string, readonly string[]>();

/** Few different lists occur in one system, so they are shared. */
function flags(cursor: Cursor, colon: number, end: number): readonly string[] {
  const text = cursor.text.slice(colon + 1, end).trim();
  const known = flagLists.get(text);
  if (known !== undefined) return known;
  const list = text.split(' ');
  // '??' is what the kernel prints for a bit that has no name of its own.
  if (!list.every((flag) => /^([a-z0-9]{2}|\?\?)$/.test(flag))) cursor.fail('flags are not two letters each');
  if (flagLists.size >= 1024) flagLists.clear();
  flagLists.set(text, list);
  return list;
}

export function readSmaps(pid: number, where: Where = {}): DetailedMapping[] {
  const path = taskPath(pid, 'smaps', where);
  return parseSmaps(readText(path), path);
}
