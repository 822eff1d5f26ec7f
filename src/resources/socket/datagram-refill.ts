import * as S from '../../abi/socket.js';
import { ImageError, type inet_sk_entry } from '../../image/index.js';
import { cString } from '../../kernel/c-string.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';
import { words } from '../../kernel/words.js';
import type { Holder, Result, Tape } from '../contract.js';
import { perRestore } from '../description/state.js';
import { BESIDE_FILE, besideFor } from './beside.js';
import type { BesideSocket, Datagram } from './beside-codec.js';
import { familyOf, localOf, targetOf, unmapped } from './datagram-target.js';
import * as A from './inet-address.js';
import { RESTORE_MARK } from './lock-table.js';
import { setBytes, setNumber } from './option-bytes.js';
import { encodeUdp } from './udp-packet.js';

/**
 * Puts datagrams back into the queue of a socket of UDP. A raw socket sends each with its first sender's address to an
 * address of this host: what goes to one is delivered through lo, still with the route it was sent by, so that nobody
 * asks whether it could have come from there (net/ipv4/ip_input.c: skb_valid_dst; drivers/net/loopback.c). It leaves the
 * host under no circumstances, for no address that is not its own is sent to.
 *
 * Meanwhile a filter keeps out what others send, by the mark of those who rebuild sockets (lock-table.ts); and the tape looks at what arrived,
 * one by one, before it goes on. The program sees lo as the interface they came by, and the time of the restore.
 */
/** Longer than any queue takes, in seconds: what does not arrive was filtered out on the way. */
const PATIENCE_S = 5n;
const ROOM = 1 << 29;
const TTL = 64;
const CPU_BYTES = 1024;

/** Right after the socket was made: what it takes is only ours until `refill` is done. */
export function closeForOthers(tape: Tape, fd: Result): void {
  const BPF = { load: 0x20, equals: 0x15, answer: 0x06, mark: 0xffff_f000 + 20 } as const;
  const code = new Uint8Array(32);
  const view = new DataView(code.buffer);
  const put = (at: number, opcode: number, onTrue: number, onFalse: number, k: number): void => {
    view.setUint16(at * 8, opcode, true);
    view.setUint8(at * 8 + 2, onTrue);
    view.setUint8(at * 8 + 3, onFalse);
    view.setUint32(at * 8 + 4, k, true);
  };
  put(0, BPF.load, 0, 0, BPF.mark);
  put(1, BPF.equals, 0, 1, RESTORE_MARK);
  put(2, BPF.answer, 0, 0, 0xffff_ffff);
  put(3, BPF.answer, 0, 0, 0);
  const program = tape.space(words([4, 0, 0, 0]));
  tape.pointer(program, 8, tape.space(code));
  tape.call('setsockopt', [fd, S.SOL_SOCKET, S.SO_ATTACH_FILTER, program, 16]);
}

/** `fd` is bound, but not connected yet, and none of its late options is set. */
export function refill(holder: Holder, fd: Result, socket: inet_sk_entry): void {
  const { tape } = holder;
  const beside = besideFor(holder.reader, socket.id);
  const datagrams = beside.datagrams ?? [];
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_RCVBUFFORCE, ROOM);
  setTimeout(tape, fd, PATIENCE_S);
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_PEEK_OFF, 0);
  const release = preferred(holder, fd, socket);
  for (const family of [S.AF_INET, S.AF_INET6]) {
    const those = datagrams.filter(({ from }) => familyOf(from) === family);
    if (those.length === 0) continue;
    const raw = rawSender(tape, family, socket.opts?.soBoundDev ?? '');
    for (const datagram of those) {
      const packet = packetOf(datagram, socket, beside, family);
      const { bytes, to, length } = packet;
      tape.call('sendto', [raw, tape.space(bytes), bytes.length, 0, tape.space(to), to.length]);
      tape.call(
        'recvfrom',
        [fd, tape.space(Math.max(length, 1)), Math.max(length, 1), S.MSG_PEEK, 0, 0],
        length,
      );
    }
    tape.call('close', [raw]);
  }
  release();
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_PEEK_OFF, -1);
  setTimeout(tape, fd, 0n);
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_DETACH_FILTER, 0);
}

function setTimeout(tape: Tape, fd: Result, seconds: bigint): void {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setBigUint64(0, seconds, true);
  setBytes(tape, fd, S.SOL_SOCKET, S.SO_RCVTIMEO, bytes);
}

function rawSender(tape: Tape, family: number, device: string): Result {
  const raw = tape.call('socket', [family, S.SOCK_RAW | S.SOCK_CLOEXEC, S.IPPROTO_RAW]);
  if (family === S.AF_INET6) setNumber(tape, raw, S.SOL_IPV6, S.IPV6_HDRINCL, 1);
  // A socket that is bound to an interface takes what is said to come by it.
  if (device !== '') setBytes(tape, raw, S.SOL_SOCKET, S.SO_BINDTODEVICE, cString(device));
  setNumber(tape, raw, S.SOL_SOCKET, S.SO_MARK, RESTORE_MARK);
  setNumber(tape, raw, S.SOL_SOCKET, S.SO_SNDBUFFORCE, ROOM);
  return raw;
}

interface Packet {
  readonly bytes: Uint8Array;
  /** sockaddr */
  readonly to: Uint8Array;
  /** Bytes of data that have to arrive. */
  readonly length: number;
}

function packetOf(datagram: Datagram, socket: inet_sk_entry, beside: BesideSocket, family: number): Packet {
  const { id, proto } = socket;
  const from = unmapped(A.readSockaddr(Buffer.from(datagram.from, 'hex')));
  const data = Buffer.from(datagram.data, 'base64');
  const to = targetOf(datagram, from, socket, beside, family);
  if (to === undefined)
    throw new Error(
      `socket ${id} has unread datagrams, and none of its addresses (${A.printAddress(localOf(socket))}) is one of this host`,
    );
  const { ttl = TTL, tos = 0 } = datagram;
  if (ttl > 255 || tos > 255) throw new ImageError(BESIDE_FILE, `socket ${id}: a header with ${ttl}, ${tos}`);
  const bytes = encodeUdp({ protocol: proto, from, to, data, ttl: Math.max(ttl, 1), tos });
  // The port of a raw socket's destination would be its protocol.
  return { bytes, to: A.sockaddrBytes({ ...to, port: 0 }), length: data.length };
}

/** Sockets that were opened already, by port. */
const opened = perRestore(() => new Map<string, inet_sk_entry[]>());

/** To be called for every socket that has a port, when it is bound and filled. */
export function noteOpened(holder: Holder, socket: inet_sk_entry): void {
  const key = `${socket.proto}:${socket.srcPort}`;
  opened(holder).set(key, [...(opened(holder).get(key) ?? []), socket]);
}

/**
 * Of several sockets with one port the kernel prefers one that is tied to the CPU the packet is handled on
 * (net/ipv4/udp.c compute_score), unless they are a group that shares out (SO_REUSEPORT). So the holder stays on one
 * CPU, and there is no such group, for the time of it. Answers what puts it back.
 */
function preferred(holder: Holder, fd: Result, socket: inet_sk_entry): () => void {
  const { tape } = holder;
  const others = (opened(holder).get(`${socket.proto}:${socket.srcPort}`) ?? []).filter(
    ({ opts }) => opts?.soReuseport === true,
  );
  const share = (value: number): void => {
    if (socket.opts?.soReuseport) setNumber(tape, fd, S.SOL_SOCKET, S.SO_REUSEPORT, value);
    for (const { id } of others)
      setNumber(tape, holder.slot(`file:${id}`), S.SOL_SOCKET, S.SO_REUSEPORT, value);
  };
  const cpus = ownCpus();
  const cpu = lowestBit(cpus);
  setAffinity(tape, 1n << BigInt(cpu));
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_INCOMING_CPU, cpu);
  share(0);
  return () => {
    share(1);
    setNumber(tape, fd, S.SOL_SOCKET, S.SO_INCOMING_CPU, -1);
    setAffinity(tape, cpus);
  };
}

/** Where we may run, and the holder with us: bit n for CPU n. */
function ownCpus(): bigint {
  const length = syscall('sched_getaffinity', [0, CPU_BYTES, scratch.address]);
  let mask = 0n;
  for (let at = length - 8; at >= 0; at -= 8) mask = (mask << 64n) | scratch.view.getBigUint64(at, true);
  return mask;
}

function lowestBit(mask: bigint): number {
  let bit = 0;
  while (((mask >> BigInt(bit)) & 1n) === 0n && bit < 8192) bit++;
  return bit;
}

function setAffinity(tape: Tape, mask: bigint): void {
  const bytes = new Uint8Array(CPU_BYTES);
  const view = new DataView(bytes.buffer);
  for (let word = 0; word < CPU_BYTES / 8; word++)
    view.setBigUint64(word * 8, BigInt.asUintN(64, mask >> BigInt(word * 64)), true);
  tape.call('sched_setaffinity', [0, bytes.length, tape.space(bytes)]);
}
