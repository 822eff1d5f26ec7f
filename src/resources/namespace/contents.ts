import { reason } from '../../image/errors.js';
import type { ImageReader, ImageWriter } from '../../image/index.js';
import { Network } from '../../kernel/namespace.js';
import { conntrack } from './conntrack.js';
import { ip6tables, iptables, nftables } from './filters.js';
import { links } from './links.js';
import { others } from './others.js';
import type { Part } from './part.js';
import { addresses, routes4, routes6, rules } from './routing.js';
import { sysctls } from './sysctls.js';

/**
 * All that is in a network namespace. Whether it can be made again is not reasoned about but tried: before the tree is
 * frozen a copy is made, in a namespace that nobody uses, and both are looked at (`problems`).
 */

/** A part, whatever it is of. SAFETY: what a part has read or loaded is given to no other. */
type AnyPart = Part<unknown>;

function any<T>(part: Part<T>): AnyPart {
  return part as unknown as AnyPart;
}

/** In the order in which they are made. */
const PARTS: readonly AnyPart[] = [
  any(sysctls),
  ...[links, addresses, routes4, routes6, rules].map(any),
  ...others.map(any),
  ...[iptables, ip6tables, nftables].map(any),
  any(conntrack),
];

export type Contents = ReadonlyMap<AnyPart, unknown>;

/** Of the namespace this thread is in. */
export function readContents(): Contents {
  return new Map(PARTS.map((part) => [part, readPart(part)]));
}

function readPart(part: AnyPart): unknown {
  try {
    return part.read();
  } catch (error) {
    throw new UnreadableError(`${part.name}: ${reason(error)}`, { cause: error });
  }
}

/** What is in a namespace does not show, so it cannot be made again. */
export class UnreadableError extends Error {
  override readonly name = 'UnreadableError';
}

/** In a namespace that was just born: before there are sockets in it, and (`late`) when all are there. */
export function buildContents(contents: Contents, when: 'early' | 'late'): void {
  for (const [part, content] of contents)
    if ((part.isLate === true) === (when === 'late')) part.build?.(content);
}

export function writeContents(contents: Contents, writer: ImageWriter, id: number): void {
  const of = <U>(part: Part<U>): U => contents.get(any(part)) as U;
  for (const [part, content] of contents) part.write?.(content, writer, id, of);
}

export function loadContents(reader: ImageReader, id: number): Contents {
  return new Map(
    PARTS.flatMap((part) => (part.load === undefined ? [] : [[part, part.load(reader, id)] as const])),
  );
}

/** Why a namespace with these contents could not be made again, in words. */
export function problems(contents: Contents): string[] {
  using _ = Network.fresh();
  const failed = [...contents].flatMap(([part, content]) => {
    try {
      part.build?.(content);
      return [];
    } catch (error) {
      return [`${part.name}: ${reason(error)}`];
    }
  });
  return [...failed, ...differences(contents, readContents())];
}

/** Of which parts two namespaces are not the same. */
export function differences(one: Contents, other: Contents): string[] {
  return [...one].flatMap(([part, content]) => {
    const [here, there] = [part.lines(content), part.lines(other.get(part))];
    const [more, less] = [without(here, there), without(there, here)];
    if (more.length === 0 && less.length === 0) return [];
    const what = more.length > 0 ? more : less;
    const count =
      more.length > 0
        ? `it has ${more.length} that a copy has not`
        : `it lacks ${less.length} that a copy has`;
    const rest = what.length > SHOWN ? `; …` : '';
    return [`${part.name}: ${count} (${what.slice(0, SHOWN).map(shortened).join('; ')}${rest})`];
  });
}

function without(lines: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others);
  return lines.filter((line) => !known.has(line));
}

/** How many lines, and how much of each, a refusal shows. */
const SHOWN = 4;
const WIDTH = 60;

function shortened(line: string): string {
  return line.length > WIDTH ? `${line.slice(0, WIDTH)}…` : line;
}
