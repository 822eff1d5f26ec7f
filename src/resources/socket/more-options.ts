import * as S from '../../abi/socket.js';
import { ImageError } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { perNetwork } from '../../kernel/namespace.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, Holder, Result, Tape } from '../contract.js';
import type { SocketIdentity } from '../description/identify.js';
import { BESIDE_FILE, besideFor, besideOf } from './beside.js';
import { interfaceName, mustHaveInterface } from './interfaces.js';
import { OptionBatch } from './option-batch.js';
import { getBytes, setBytes } from './option-bytes.js';
import { OPTION_BY_NAME, OPTIONS, type OptionSpec } from './option-table.js';

/**
 * Options that CRIU's image has no field for (option-table.ts), and the owner of the socket's inode, which packet
 * filters and SO_REUSEPORT look at. Kept is what a fresh socket of the same make has otherwise.
 */
export function dumpMoreOptions(
  fd: number,
  id: number,
  socket: SocketIdentity,
  { info }: Descriptor,
  context: DumpContext,
): void {
  const options: Record<string, string> = {};
  const fresh = freshOptions(socket);
  // Most sockets have nothing set: then what comes back is what a fresh one says.
  if (!fresh.isAnswered(fd))
    for (const { spec, value } of fresh.all) {
      const own = read(fd, spec);
      if (own !== undefined && own !== value) options[spec.name] = own;
    }
  if (Object.keys(options).length > 0) besideOf(context, id).options = options;
  const [uid, gid] = [Number(info.stat.uid), Number(info.stat.gid)];
  if (uid === 0 && gid === 0) return;
  besideOf(context, id).uid = uid;
  besideOf(context, id).gid = gid;
}

/** Options that can be read, but not set to what they were. */
export function moreOptionsProblem(fd: number, socket: SocketIdentity): string | undefined {
  for (const { spec, value } of freshOptions(socket).refused)
    if (spec.refused !== undefined && read(fd, spec) !== value) return spec.refused;
  return undefined;
}

function read(fd: number, { level, option, length, device }: OptionSpec): string | undefined {
  const bytes = getBytes(fd, level, option, length);
  if (bytes === undefined) return undefined;
  if (device === undefined) return Buffer.from(bytes).toString('hex');
  const index = new DataView(bytes.buffer).getUint32(0, device === 'host');
  return index === 0 ? '' : (interfaceName(index) ?? '');
}

/** An option that such sockets have, and what a fresh one has. */
interface Fresh {
  readonly spec: OptionSpec;
  readonly value: string | undefined;
}

interface FreshOptions {
  readonly all: readonly Fresh[];
  readonly refused: readonly Fresh[];
  /** Does a socket say the same of all of them? */
  readonly isAnswered: (fd: number) => boolean;
}

const known = perNetwork(() => new Map<string, FreshOptions>());

/** What a socket of this make has from the start, in this network namespace. */
function freshOptions(socket: SocketIdentity): FreshOptions {
  const { family, type, protocol } = socket;
  const key = `${family}:${type}:${protocol}`;
  const found = known().get(key) ?? askFresh(socket);
  known().set(key, found);
  return found;
}

function askFresh(socket: SocketIdentity): FreshOptions {
  const { family, type, protocol } = socket;
  const specs = OPTIONS.filter((spec) => spec.of(socket));
  // A packet socket with a protocol would begin to receive.
  const made = attempt('socket', [family, type | S.SOCK_CLOEXEC, family === S.AF_PACKET ? 0 : protocol]);
  const isRefused = ({ spec }: Fresh): boolean => spec.refused !== undefined;
  if (made < 0) {
    const all = specs.map((spec) => ({ spec, value: undefined }));
    return { all, refused: all.filter(isRefused), isAnswered: () => false };
  }
  using opened = new OwnedFd(made);
  const all = specs.map((spec) => ({ spec, value: read(opened.fd, spec) }));
  const batch = new OptionBatch(specs);
  const answers = Buffer.from(batch.ask(opened.fd));
  return { all, refused: all.filter(isRefused), isAnswered: (fd) => answers.equals(batch.ask(fd)) };
}

/** To be played first of all, before `restoreEarlyOptions`: an interface to send by is not taken once there is a device. */
export function restoreEarlyMore(holder: Holder, id: number, fd: Result | number): void {
  const { uid, gid } = besideFor(holder.reader, id);
  setThose(holder, id, fd, true);
  if (uid !== undefined && gid !== undefined) holder.tape.call('fchown', [fd, uid, gid]);
}

/** When its queues are filled, after the options that CRIU's image has. */
export function restoreLateMore(holder: Holder, id: number, fd: Result | number): void {
  setThose(holder, id, fd, false);
}

function setThose(holder: Holder, id: number, fd: Result | number, early: boolean): void {
  const { options = {} } = besideFor(holder.reader, id);
  for (const name of Object.keys(options))
    if (!OPTION_BY_NAME.has(name))
      throw new ImageError(BESIDE_FILE, `socket ${id}: option ${name} is of a later release`);
  for (const spec of OPTIONS) {
    const value = options[spec.name];
    if (value === undefined || (spec.isEarly === true) !== early) continue;
    set(holder.tape, fd, spec, value, id);
  }
}

function set(tape: Tape, fd: Result | number, spec: OptionSpec, value: string, id: number): void {
  const { level, option, isHint } = spec;
  setBytes(tape, fd, level, option, bytesOf(spec, value, id), isHint === true);
}

function bytesOf({ name, length, device }: OptionSpec, value: string, id: number): Uint8Array {
  if (device !== undefined) {
    const bytes = new Uint8Array(4);
    const index = value === '' ? 0 : mustHaveInterface(value, `socket ${id} (${name})`);
    new DataView(bytes.buffer).setUint32(0, index, device === 'host');
    return bytes;
  }
  if (!/^(?:[0-9a-f]{2})*$/.test(value) || value.length > length * 2)
    throw new ImageError(BESIDE_FILE, `socket ${id}: ${name} is ${JSON.stringify(value.slice(0, 40))}`);
  return Buffer.from(value, 'hex');
}
