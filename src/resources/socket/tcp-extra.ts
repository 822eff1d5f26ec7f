import * as S from '../../abi/socket.js';
import type { ImageReader, ImageWriter } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { fromCString } from '../../kernel/c-string.js';
import type { DumpContext, Result, Tape } from '../contract.js';
import { perDump } from '../description/state.js';
import { getBytes, getNumber, setBytes, setNumber } from './option-bytes.js';

/**
 * What CRIU's format has no place for, in a file of our own, which CRIU ignores: an object by the socket's id in
 * files.img.
 */
export interface TcpExtra {
  /** Options that are not as in a fresh socket, by their number. */
  readonly options: Readonly<Record<string, number>>;
  /** TCP_CONGESTION, where it is not the host's default. */
  readonly congestion?: string;
  /** Of a connection that is over: what getsockname(2) says. */
  readonly local?: { readonly port: number; readonly words: readonly number[] };
  /** Of such a one: its error has not been told yet. */
  readonly hasError?: boolean;
}

const FILE = 'stasis-tcp.json';

/** Those that can be read, set at any time, and have no field in CRIU's format (tcp(7), include/uapi/linux/tcp.h). */
const OPTIONS = [
  S.TCP_SYNCNT,
  S.TCP_LINGER2,
  S.TCP_DEFER_ACCEPT,
  S.TCP_USER_TIMEOUT,
  S.TCP_NOTSENT_LOWAT,
  S.TCP_THIN_LINEAR_TIMEOUTS,
  S.TCP_FASTOPEN_CONNECT,
  S.TCP_FASTOPEN_NO_COOKIE,
  S.TCP_SAVE_SYN,
  S.TCP_INQ,
  S.TCP_TX_DELAY,
] as const;
/** Only a listener takes it. */
const OF_LISTENERS = [S.TCP_FASTOPEN] as const;

const CONGESTION_SIZE = 16;

/** What a socket has that nobody has touched, by protocol; asked once a dump, for hosts differ, and settings change. */
const fresh = perDump(() => new Map<number, Readable>());

interface Readable {
  readonly options: ReadonlyMap<number, number>;
  readonly congestion: string;
}

function readAll(fd: number): Readable {
  const options = new Map<number, number>();
  for (const option of [...OPTIONS, ...OF_LISTENERS]) {
    const value = getNumber(fd, S.SOL_TCP, option);
    if (value !== undefined) options.set(option, value);
  }
  return { options, congestion: fromCString(getBytes(fd, S.SOL_TCP, S.TCP_CONGESTION, CONGESTION_SIZE)) };
}

/** `pristine` opens a socket that nobody has touched, and answers what is done with it. */
export function dumpExtra(
  fd: number,
  protocol: number,
  pristine: <T>(look: (fd: number) => T) => T,
  context: DumpContext,
): TcpExtra {
  const known = fresh(context);
  const usual = known.get(protocol) ?? pristine(readAll);
  known.set(protocol, usual);
  const { options, congestion } = readAll(fd);
  const changed: Record<string, number> = {};
  for (const [option, value] of options) if (usual.options.get(option) !== value) changed[option] = value;
  return { options: changed, ...(congestion === usual.congestion ? {} : { congestion }) };
}

export function restoreExtra(tape: Tape, fd: Result, extra: TcpExtra | undefined): void {
  if (extra === undefined) return;
  const known = new Set<number>([...OPTIONS, ...OF_LISTENERS]);
  for (const [option, value] of Object.entries(extra.options))
    if (known.has(Number(option))) setNumber(tape, fd, S.SOL_TCP, Number(option), value);
  if (extra.congestion !== undefined)
    setBytes(tape, fd, S.SOL_TCP, S.TCP_CONGESTION, Buffer.from(extra.congestion));
}

export function writeExtras(extras: ReadonlyMap<number, TcpExtra>, writer: ImageWriter): void {
  const worth = [...extras].filter(
    ([, extra]) => Object.keys(extra).length > 1 || Object.keys(extra.options).length > 0,
  );
  if (worth.length > 0) writer.writeBytes(FILE, [Buffer.from(JSON.stringify(Object.fromEntries(worth)))]);
}

export function readExtras(reader: ImageReader): ReadonlyMap<number, TcpExtra> {
  return readJson(reader, FILE, decode) ?? new Map();
}

function decode(content: unknown): Map<number, TcpExtra> {
  if (!isRecord(content)) throw new Error('holds no object');
  return new Map(Object.entries(content).map(([id, extra]) => [Number(id), decodeExtra(id, extra)]));
}

function decodeExtra(id: string, extra: unknown): TcpExtra {
  const fail = (what: string): never => {
    throw new Error(`${id}: ${what}`);
  };
  if (
    !isRecord(extra) ||
    !isRecord(extra.options) ||
    !Object.values(extra.options).every(Number.isSafeInteger)
  )
    return fail('has no options');
  const { congestion, local, hasError } = extra;
  if (congestion !== undefined && (typeof congestion !== 'string' || congestion.length >= CONGESTION_SIZE))
    fail('its congestion control is no name');
  if (local !== undefined && !(isRecord(local) && isPort(local.port) && isWords(local.words)))
    fail('its address is none');
  if (hasError !== undefined && typeof hasError !== 'boolean') fail('its error is no flag');
  // SAFETY: just that was looked at.
  return extra as unknown as TcpExtra;
}

function isPort(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffff;
}

function isWords(value: unknown): boolean {
  return (
    Array.isArray(value) && [1, 4].includes(value.length) && value.every((word) => Number.isInteger(word))
  );
}
