import * as S from '../../abi/socket.js';
import type { Descriptor, DumpOptions, Refusal } from '../contract.js';
import { refusalOf } from '../description/described.js';
import { STATE, type UnixDiag } from './unix-diag.js';
import { printName } from './unix-name.js';

/** All Unix sockets of the host's namespace, and which of them the tree has. */
export interface Surroundings {
  readonly all: ReadonlyMap<number, UnixDiag>;
  readonly inside: { has(inode: number): boolean };
  /** Who listens, by whom it has not accepted yet. */
  readonly listeners: ReadonlyMap<number, UnixDiag>;
}

export function surround(
  all: ReadonlyMap<number, UnixDiag>,
  inside: { has(inode: number): boolean },
): Surroundings {
  const listeners = new Map<number, UnixDiag>();
  for (const diag of all.values()) for (const inode of diag.waiting) listeners.set(inode, diag);
  return { all, inside, listeners };
}

/** Why a socket cannot be saved; `passes` when that may be over in a moment. */
export interface Judgement {
  readonly refusal: Refusal;
  readonly passes: boolean;
}

const SHUT_BOTH = 3;
const SLASH = 0x2f;

/** Is the socket, or its peer, left to `--inherit-fd` at restore? */
export function isExternal({ inode, peer }: UnixDiag, { external }: DumpOptions): boolean {
  if (external.length === 0) return false;
  const keys = [inode, peer ?? 0].flatMap((number) => [`socket:[${number}]`, `unix[${number}]`]);
  return keys.some((key) => external.includes(key));
}

export function judge(
  descriptor: Descriptor,
  inode: number,
  surroundings: Surroundings,
  options: DumpOptions,
): Judgement | undefined {
  const diag = surroundings.all.get(inode);
  if (diag !== undefined && isWhole(diag, surroundings)) return undefined;
  const refuse = (reason: string, help?: string, passes = false): Judgement => ({
    refusal: refusalOf(descriptor, reason, help),
    passes,
  });
  if (diag === undefined) return refuse('it is a Unix socket of another network namespace');
  if (isExternal(diag, options)) return undefined;
  const external = `--external unix[${inode}], and --inherit-fd fd[N]:socket:[${inode}] at restore`;
  if (diag.state === STATE.listen) return judgeListener(diag, surroundings, refuse);
  if (diag.peer !== undefined && diag.peer !== 0)
    return surroundings.inside.has(diag.peer)
      ? undefined
      : judgeOutside(diag, surroundings, options, refuse, external);
  if (diag.type === S.SOCK_DGRAM || diag.state !== STATE.established) return undefined;
  return judgeHalf(diag, surroundings, refuse, external);
}

/** What most are: connected to another of the tree. */
function isWhole({ peer = 0 }: UnixDiag, { inside }: Surroundings): boolean {
  return peer !== 0 && inside.has(peer);
}

type Refuse = (reason: string, help?: string, passes?: boolean) => Judgement;

function judgeListener(
  { waiting }: UnixDiag,
  { inside }: Surroundings,
  refuse: Refuse,
): Judgement | undefined {
  if (waiting.includes(0))
    return refuse(
      'a connection waits to be accepted whose other end was closed: what it sent cannot be read',
      'let the program accept its connections first',
      true,
    );
  const outside = waiting.filter((inode) => !inside.has(inode));
  if (outside.length === 0) return undefined;
  return refuse(
    `connections of processes outside of the tree wait to be accepted (${outside.length})`,
    'let the program accept its connections first',
    true,
  );
}

function judgeOutside(
  { type, peer = 0 }: UnixDiag,
  { all }: Surroundings,
  { extUnixSk }: DumpOptions,
  refuse: Refuse,
  external: string,
): Judgement | undefined {
  const name = all.get(peer)?.name;
  // A relative name leads nowhere without the directory that it was meant in, which the kernel does not tell.
  const isNamed = type === S.SOCK_DGRAM && (name?.[0] === 0 || name?.[0] === SLASH);
  if (isNamed && extUnixSk === true) return undefined;
  const help = isNamed ? `--ext-unix-sk; or ${external}` : external;
  const whom = name === undefined ? '' : ` (${printName(name)})`;
  return refuse(`it is connected to a socket outside of the tree${whom}`, help);
}

/** Connected, but the other end has no inode: it was closed, or is not accepted yet. */
function judgeHalf(
  { inode, shutdown, queues }: UnixDiag,
  { inside, listeners }: Surroundings,
  refuse: Refuse,
  external: string,
): Judgement | undefined {
  const listener = listeners.get(inode);
  if (listener === undefined) {
    if (shutdown === SHUT_BOTH) return undefined;
    return refuse('its peer is a socket that nobody has a descriptor of', undefined, true);
  }
  if (!inside.has(listener.inode))
    return refuse(
      `it waits to be accepted by a socket outside of the tree (${printName(listener.name ?? new Uint8Array())})`,
      external,
      true,
    );
  if (queues[1] === 0) return undefined;
  return refuse(
    'it has sent data and is not accepted yet: the data cannot be read',
    'let the program accept its connections first',
    true,
  );
}
