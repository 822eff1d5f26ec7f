import { isRecord } from '../../image/json.js';
/** The content of stasis-sockets.json. Bytes are hexadecimal, contents of datagrams base64. */

/** A multicast group that a socket is a member of, with its source filter (RFC 3678). */
export interface Group {
  readonly interface: string;
  /** struct sockaddr_in or sockaddr_in6. */
  readonly address: string;
  /** MCAST_INCLUDE 1, MCAST_EXCLUDE 0. */
  readonly mode: number;
  readonly sources: readonly string[];
}

/** A datagram that nobody has read yet. */
export interface Datagram {
  /** struct sockaddr_in or sockaddr_in6 of its sender. */
  readonly from: string;
  /** Where it was sent to, if that is known. */
  readonly to?: string;
  readonly data: string;
  /** Time to live, and type of service, of its header. */
  readonly ttl?: number;
  readonly tos?: number;
}

export interface BesideSocket {
  /** Options by their names (option-table.ts); of interfaces, their names. */
  readonly options?: Readonly<Record<string, string>>;
  /** Owner of its inode, where it is not root. */
  readonly uid?: number;
  readonly gid?: number;
  readonly groups?: readonly Group[];
  readonly datagrams?: readonly Datagram[];
  /** Names of interfaces by their numbers, for entries that have only those. */
  readonly interfaces?: Readonly<Record<string, string>>;
  /** Of netlink: the groups beyond the first 32 that CRIU's image is to have. */
  readonly netlink_groups?: readonly number[];
  /** Of netlink: SOCK_DGRAM, where it is not SOCK_RAW. */
  readonly type?: number;
}

export type MutableBeside = { -readonly [K in keyof BesideSocket]: BesideSocket[K] };

const VERSION = 1;
const SOCKETS_MAX = 1 << 22;
const LIST_MAX = 1 << 20;

type Check = (value: unknown) => boolean;
const isNumber: Check = (value) =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffff_ffff;
const isHex: Check = (value) => typeof value === 'string' && /^(?:[0-9a-f]{2}){0,4096}$/.test(value);
const isText: Check = (value) => typeof value === 'string' && value.length <= 8192;
const isInterface: Check = (value) => typeof value === 'string' && /^[^\0/\s]{1,15}$/.test(value);
const isBase64: Check = (value) => typeof value === 'string' && /^[A-Za-z0-9+/]*={0,2}$/.test(value);
const isAddress: Check = (value) => isHex(value) && [32, 56].includes((value as string).length);
const orAbsent =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.length <= LIST_MAX && value.every(check);
const mapOf =
  (check: Check): Check =>
  (value) =>
    isRecord(value) && Object.values(value).every(check);
const recordOf =
  (checks: Readonly<Record<string, Check>>): Check =>
  (value) =>
    isRecord(value) && Object.entries(checks).every(([key, check]) => check(value[key]));

const CHECKS: Readonly<Record<keyof BesideSocket, Check>> = {
  options: mapOf(isText),
  uid: isNumber,
  gid: isNumber,
  groups: listOf(
    recordOf({ interface: isInterface, address: isAddress, mode: isNumber, sources: listOf(isAddress) }),
  ),
  datagrams: listOf(
    recordOf({
      from: isAddress,
      to: orAbsent(isAddress),
      data: isBase64,
      ttl: orAbsent(isNumber),
      tos: orAbsent(isNumber),
    }),
  ),
  interfaces: mapOf(isInterface),
  netlink_groups: listOf(isNumber),
  type: isNumber,
};

/** Throws Error saying what of which socket is not as it should be; what is unknown is a later release's. */
export function decodeBeside(content: unknown): ReadonlyMap<number, BesideSocket> {
  if (!isRecord(content) || content.version !== VERSION || !isRecord(content.sockets))
    throw new Error(`is not of version ${VERSION}`);
  const entries = Object.entries(content.sockets);
  if (entries.length > SOCKETS_MAX) throw new Error('has too many sockets');
  return new Map(entries.map(([id, socket]) => [Number(id), decodeSocket(id, socket)]));
}

function decodeSocket(id: string, socket: unknown): BesideSocket {
  if (!/^\d{1,10}$/.test(id) || !isRecord(socket)) throw new Error(`socket ${id} is no record`);
  for (const [key, value] of Object.entries(socket)) {
    const check: Check | undefined = Object.hasOwn(CHECKS, key)
      ? CHECKS[key as keyof BesideSocket]
      : undefined;
    if (check === undefined) throw new Error(`socket ${id}: ${key} is of a later release`);
    if (!check(value)) throw new Error(`socket ${id}: ${key} is not as it should be`);
  }
  return socket;
}
