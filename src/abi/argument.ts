/** How one argument of a system call prints; values are registers, that is 64 bits without a sign. */
import { signalName } from './signal.js';

/** A field of several bits inside a set of flags, whose values have names of their own. */
interface FlagField {
  readonly mask: bigint;
  readonly names: ReadonlyMap<bigint, string>;
}

export interface FlagSet {
  readonly fields: readonly FlagField[];
  /** Most bits first, so that O_SYNC is found before the O_DSYNC in it. */
  readonly bits: readonly (readonly [string, bigint])[];
  /** What nothing set prints as. */
  readonly zero: string;
}

export type ConstantTable = ReadonlyMap<bigint, string>;

export type Argument = { readonly name: string } & (
  | { readonly kind: 'int' | 'long' | 'uint' | 'hex' | 'size' | 'mask' }
  | { readonly kind: 'fd' | 'dirfd' | 'pid' | 'mode' | 'signal' }
  | { readonly kind: 'address' | 'pointer' | 'path' }
  | { readonly kind: 'flags'; readonly set: FlagSet }
  | { readonly kind: 'constant'; readonly table: ConstantTable; readonly flags?: FlagSet }
  /** What it is hangs on an earlier argument: fcntl's by the command, an option's name by the level. */
  | {
      readonly kind: 'dependent';
      readonly on: number;
      readonly cases: ReadonlyMap<bigint, Argument>;
      readonly otherwise: Argument;
    }
);

type Named = Readonly<Record<string, unknown>>;

/** Names and values of a module of constants (`import * as mman`) that match a pattern. */
function select(module: Named, pattern: RegExp): [string, bigint][] {
  const found: [string, bigint][] = [];
  for (const [name, value] of Object.entries(module)) {
    if (!pattern.test(name)) continue;
    if (typeof value === 'number' || typeof value === 'bigint') found.push([name, BigInt(value)]);
  }
  return found;
}

/** A table of one-of-these constants; of two names with one value the first stays. */
export function constants(module: Named, pattern: RegExp): ConstantTable {
  const table = new Map<bigint, string>();
  for (const [name, value] of select(module, pattern)) if (!table.has(value)) table.set(value, name);
  return table;
}

/** A set of flags; what matches `field` are values under the mask of that name, not bits. */
export function flagSet(module: Named, pattern: RegExp, field?: { mask: bigint; values: RegExp }): FlagSet {
  const all = select(module, pattern);
  const zero = all.find(([, value]) => value === 0n)?.[0] ?? '0';
  const inField = (name: string) => field?.values.test(name) === true;
  const bits = all.filter(([name, value]) => value > 0n && !inField(name));
  bits.sort((a, b) => bitCount(b[1]) - bitCount(a[1]) || (a[1] < b[1] ? -1 : 1));
  const fields = field === undefined ? [] : [{ mask: field.mask, names: constants(module, field.values) }];
  return { fields, bits, zero };
}

function bitCount(value: bigint): number {
  let count = 0;
  for (let rest = value; rest !== 0n; rest &= rest - 1n) count++;
  return count;
}

export function formatFlags(set: FlagSet, value: bigint): string {
  const names: string[] = [];
  let rest = value;
  for (const field of set.fields) {
    const part = rest & field.mask;
    const name = field.names.get(part);
    if (name === undefined) continue;
    names.push(name);
    rest &= ~field.mask;
  }
  if (names.length === 0 && rest === 0n) return set.zero;
  for (const [name, bit] of set.bits) {
    if ((rest & bit) !== bit) continue;
    names.push(name);
    rest &= ~bit;
  }
  if (rest !== 0n) names.push(hex(rest));
  return names.join('|');
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;
const int32 = (value: bigint): bigint => BigInt.asIntN(32, value);
const AT_FDCWD = -100n;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;

/** An int may come sign-extended or not: both halves of the table are asked. */
function formatConstant(table: ConstantTable, value: bigint): string | undefined {
  return table.get(value) ?? table.get(BigInt.asUintN(32, value)) ?? table.get(int32(value));
}

/** A constant, or one with flags or-ed into it (SOCK_STREAM|SOCK_CLOEXEC, FUTEX_WAKE|FUTEX_PRIVATE_FLAG). */
function formatTagged(table: ConstantTable, flags: FlagSet | undefined, value: bigint): string {
  const whole = formatConstant(table, value);
  if (whole !== undefined) return whole;
  if (flags === undefined) return formatUnknown(value);
  const mask = flags.bits.reduce((sum, [, bit]) => sum | bit, 0n);
  const base = formatConstant(table, value & ~mask) ?? formatUnknown(value & ~mask);
  return (value & mask) === 0n ? base : `${base}|${formatFlags(flags, value & mask)}`;
}

function formatUnknown(value: bigint): string {
  const signed = int32(value);
  return signed < 0n && signed > -4096n ? String(signed) : hex(value);
}

/** All ones of 32 or 64 bits in a flags argument is −1: "all", or a wrong value, but no list of names. */
function isMinusOne(value: bigint): boolean {
  return value === ALL_ONES || value === 0xffff_ffffn;
}

/** Prints a register as the argument it is; the call's other registers serve those that hang on one. */
export function formatArgument(argument: Argument, value: bigint, all: readonly bigint[] = []): string {
  const register = BigInt.asUintN(64, value);
  switch (argument.kind) {
    case 'int':
    case 'fd':
    case 'pid':
      return String(int32(register));
    case 'dirfd':
      return int32(register) === AT_FDCWD ? 'AT_FDCWD' : String(int32(register));
    case 'long':
      return String(BigInt.asIntN(64, register));
    case 'uint':
    case 'size':
      return register === ALL_ONES ? '-1' : String(register);
    case 'hex':
    case 'mask':
      return hex(register);
    case 'address':
    case 'pointer':
    case 'path':
      return register === 0n ? 'NULL' : hex(register);
    case 'mode':
      return register === 0n ? '0' : `0${(register & 0xffff_ffffn).toString(8)}`;
    case 'signal':
      return signalName(Number(int32(register)));
    case 'flags':
      return isMinusOne(register) ? '-1' : formatFlags(argument.set, register);
    case 'constant':
      return formatTagged(argument.table, argument.flags, register);
    case 'dependent': {
      const other = all[argument.on];
      const found = other === undefined ? undefined : argument.cases.get(BigInt.asUintN(32, other));
      return formatArgument(found ?? argument.otherwise, register, all);
    }
    default:
      return argument satisfies never;
  }
}

// Makers of descriptors, for the tables.
export const int = (name: string): Argument => ({ name, kind: 'int' });
export const long = (name: string): Argument => ({ name, kind: 'long' });
export const uint = (name: string): Argument => ({ name, kind: 'uint' });
export const hexadecimal = (name: string): Argument => ({ name, kind: 'hex' });
export const mask = (name: string): Argument => ({ name, kind: 'mask' });
export const size = (name = 'size'): Argument => ({ name, kind: 'size' });
export const fd = (name = 'fd'): Argument => ({ name, kind: 'fd' });
export const dirfd = (name = 'dirfd'): Argument => ({ name, kind: 'dirfd' });
export const pid = (name = 'pid'): Argument => ({ name, kind: 'pid' });
export const mode = (name = 'mode'): Argument => ({ name, kind: 'mode' });
export const signal = (name = 'sig'): Argument => ({ name, kind: 'signal' });
export const address = (name = 'addr'): Argument => ({ name, kind: 'address' });
export const pointer = (name: string): Argument => ({ name, kind: 'pointer' });
export const path = (name = 'path'): Argument => ({ name, kind: 'path' });
export const flags = (name: string, set: FlagSet): Argument => ({ name, kind: 'flags', set });
export const one = (name: string, table: ConstantTable, tags?: FlagSet): Argument =>
  tags === undefined ? { name, kind: 'constant', table } : { name, kind: 'constant', table, flags: tags };

/** An argument that hangs on the one at an index: what it is for each value of that. */
export function dependent(
  otherwise: Argument,
  on: number,
  cases: Readonly<Record<number, Argument>>,
): Argument {
  const map = new Map(Object.entries(cases).map(([value, argument]) => [BigInt(value), argument]));
  return { name: otherwise.name, kind: 'dependent', on, cases: map, otherwise };
}
