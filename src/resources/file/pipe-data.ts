import { readSync } from 'node:fs';
import {
  F_GETPIPE_SZ,
  F_SETPIPE_SZ,
  O_CLOEXEC,
  O_DIRECT,
  O_NONBLOCK,
  SPLICE_F_NONBLOCK,
} from '../../abi/fcntl.js';
import { FIONREAD } from '../../abi/ioctl.js';
import { createMessage, type MessageOf } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';
import type { Holder, Result } from '../contract.js';
import { fcntl, reopenForReading } from '../description/calls.js';

/**
 * What waits in a pipe or FIFO. It is copied by tee(2) into a pipe of our own and read there: nothing is taken out of
 * the program's. Packets (pipe2(2) O_DIRECT) keep their bounds through tee, and end a read each.
 */
export interface PipeContents {
  readonly entry: MessageOf<'pipes-data'>;
  readonly bytes: Uint8Array;
  /** Lengths of packets; undefined where no description is in packet mode. */
  readonly packets: readonly number[] | undefined;
}

/** `taken` is any end of it. With `packets`, bounds of packets are told apart. */
export function dumpContents(pipeId: number, taken: number, packets: boolean): PipeContents {
  const size = fcntl(taken, F_GETPIPE_SZ);
  using source = reopenForReading(taken);
  syscall('ioctl', [source.fd, FIONREAD, scratch.address], 'a pipe');
  const length = scratch.view.getInt32(0, true);
  if (length === 0) return noContents(pipeId, size);
  const [read, write] = ownPipe(size, packets);
  using reader = read;
  {
    using writer = write;
    const copied = syscall('tee', [source.fd, writer.fd, length, SPLICE_F_NONBLOCK], 'a pipe');
    if (copied !== length) throw new Error(`a pipe's contents: tee gave ${copied} of ${length} bytes`);
  }
  const { bytes, packets: lengths } = drain(reader.fd, length);
  return { entry: entryOf(pipeId, length, size), bytes, packets: packets ? lengths : undefined };
}

/** Of an empty pipe that has room for `size` bytes. */
export function noContents(pipeId: number, size: number): PipeContents {
  return { entry: entryOf(pipeId, 0, size), bytes: new Uint8Array(), packets: undefined };
}

function entryOf(pipeId: number, bytes: number, size: number): MessageOf<'pipes-data'> {
  return createMessage('pipes-data', { pipeId, bytes, size });
}

function ownPipe(size: number, packets: boolean): [OwnedFd, OwnedFd] {
  syscall('pipe2', [scratch.address, O_CLOEXEC | O_NONBLOCK | (packets ? O_DIRECT : 0)]);
  const read = new OwnedFd(scratch.view.getInt32(0, true));
  const write = new OwnedFd(scratch.view.getInt32(4, true));
  fcntl(write.fd, F_SETPIPE_SZ, size);
  return [read, write];
}

/** All of a pipe whose writers are gone; a read ends at a packet's end. */
function drain(fd: number, length: number): { bytes: Uint8Array; packets: number[] } {
  const bytes = Buffer.alloc(length);
  const packets: number[] = [];
  for (let at = 0; at < length; ) {
    const count = readSync(fd, bytes, at, length - at, null);
    if (count === 0) throw new Error(`a pipe's contents end after ${at} of ${length} bytes`);
    packets.push(count);
    at += count;
  }
  return { bytes, packets };
}

/** On the holder's tape: size and contents through `end`, a write end. Everything fits, so no write waits. */
export function fill(
  end: Result | number,
  contents: { entry: MessageOf<'pipes-data'>; bytes: Uint8Array; packets: readonly number[] | undefined },
  holder: Holder,
): void {
  const { tape } = holder;
  const { entry, bytes, packets } = contents;
  if (Object.hasOwn(entry, 'size')) tape.call('fcntl', [end, F_SETPIPE_SZ, entry.size]);
  let at = 0;
  for (const length of packets ?? (bytes.length === 0 ? [] : [bytes.length])) {
    tape.call('write', [end, tape.space(bytes.subarray(at, at + length)), length], length);
    at += length;
  }
}
