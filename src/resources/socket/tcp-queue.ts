import * as S from '../../abi/socket.js';
import { fileOf, ImageError, type inet_sk_entry, type MessageOf } from '../../image/index.js';
import type { Holder, Result, Space, Tape } from '../contract.js';

/**
 * Bytes of a queue on their way from the image into a socket: few travel with the tape, many are read by the holder
 * from the image's file, so that neither a plan nor this process holds them all.
 */
export interface QueueBytes {
  readonly length: number;
  /** Of the bytes from `start` on, a descriptor's send(2). */
  send(tape: Tape, fd: Result | number, start: number, length: number, expected: 'all' | 'any'): void;
}

/** The kernel makes one buffer of each send into the receive queue, which has to be small enough to be had. */
const CHUNK = 64 * 1024;
const FLAGS = S.MSG_DONTWAIT | S.MSG_NOSIGNAL;
/** Up to here queues travel with the tape. */
const SMALL = 64 * 1024;

/** A connection's file: its message, and where its two queues begin. */
export interface StreamFile {
  readonly message: MessageOf<'tcp-stream'>;
  readonly offset: number;
}

/** Undefined where a socket has none. */
export function streamFile(ino: number, { reader }: Holder): StreamFile | undefined {
  const head = reader.head('tcp-stream', ino);
  if (head === undefined) return undefined;
  const { message, offset, size } = head;
  if (size !== offset + message.inqLen + message.outqLen)
    throw new ImageError(
      fileOf('tcp-stream', ino),
      `is ${size} bytes long, not ${offset} and queues of ${message.inqLen} and ${message.outqLen}`,
    );
  return { message, offset };
}

export function queuesOf(
  { ino }: inet_sk_entry,
  { message, offset }: StreamFile,
  holder: Holder,
): { incoming: QueueBytes; outgoing: QueueBytes } {
  const { inqLen, outqLen } = message;
  if (inqLen + outqLen <= SMALL) {
    const raw =
      inqLen + outqLen === 0 ? [] : (holder.reader.recordsOptional('tcp-stream', ino)?.[0]?.raw ?? []);
    const [incoming = new Uint8Array(), outgoing = new Uint8Array()] = raw;
    return { incoming: inMemory(incoming), outgoing: inMemory(outgoing) };
  }
  const name = fileOf('tcp-stream', ino);
  const fd = holder.reader.open(name);
  if (fd === undefined) throw new ImageError(name, 'is missing');
  const key = `image:${name}`;
  holder.hold(key, holder.bring(fd));
  const slot = holder.slot(key);
  return { incoming: inFile(slot, offset, inqLen), outgoing: inFile(slot, offset + inqLen, outqLen) };
}

function chunks(start: number, length: number): [at: number, size: number][] {
  const found: [number, number][] = [];
  for (let at = start; at < start + length; at += CHUNK)
    found.push([at, Math.min(CHUNK, start + length - at)]);
  return found;
}

function inMemory(bytes: Uint8Array): QueueBytes {
  return {
    length: bytes.length,
    send(tape, fd, start, length, expected) {
      for (const [at, size] of chunks(start, length)) {
        const part = tape.space(bytes.subarray(at, at + size));
        tape.call('sendto', [fd, part, size, FLAGS, 0, 0], expected === 'all' ? size : 'any');
      }
    },
  };
}

function inFile(slot: number, offset: number, total: number): QueueBytes {
  return {
    length: total,
    send(tape, fd, start, length, expected) {
      for (const [at, size] of chunks(start, length)) {
        const buffer = bufferOf(tape);
        tape.call('pread64', [slot, buffer, size, offset + at], size);
        tape.call('sendto', [fd, buffer, size, FLAGS, 0, 0], expected === 'all' ? size : 'any');
      }
    },
  };
}

/** One for all chunks of a tape. */
function bufferOf(tape: Tape): Space {
  const known = buffers.get(tape) ?? tape.space(CHUNK);
  buffers.set(tape, known);
  return known;
}

const buffers = new WeakMap<Tape, Space>();
