import { readSync } from 'node:fs';
import { create, toBinary } from '@bufbuild/protobuf';
import { ERRNO } from '../../abi/errno.js';
import {
  F_GETFL,
  O_ACCMODE,
  O_DIRECT,
  O_WRONLY,
  S_IFBLK,
  S_IFCHR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../abi/fcntl.js';
import {
  createMessage,
  decodeName,
  encodeImage,
  fileOf,
  ghost_chunk_entrySchema,
  type ImageFile,
  type ImageWriter,
} from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { scratch } from '../../kernel/memory.js';
import type { FileStat } from '../../kernel/stat.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { fcntl, isPathOnly, kernelDevice, reopenForReading } from '../description/calls.js';

/**
 * A file without a name, whole: ghost-file-N.img. Contents are written with their holes, as chunks, where it has any
 * (st_blocks tells), else in one run to the file's end.
 */
const BUFFER = 1 << 20;

/** Bytes that copying it takes: what its blocks hold, not the length of a sparse file. */
export function ghostBytes(stat: FileStat): bigint {
  if ((Number(stat.mode) & S_IFMT) !== S_IFREG) return 0n;
  const allocated = stat.blocks * 512n;
  return allocated < stat.size ? allocated : stat.size;
}

/** `opened` is a descriptor of this process that is open on the file in any way. */
export function writeGhost(writer: ImageWriter, id: number, stat: FileStat, opened: number): void {
  const type = Number(stat.mode) & S_IFMT;
  const sparse = type === S_IFREG && stat.blocks * 512n < stat.size;
  const message = createMessage('ghost-file', {
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mode: Number(stat.mode),
    dev: kernelDevice(stat.dev),
    ino: stat.ino,
    atim: timeOf(stat.atimeNs),
    mtim: timeOf(stat.mtimeNs),
    ...(type === S_IFCHR || type === S_IFBLK ? { rdev: Number(stat.rdev & 0xffff_ffffn) } : {}),
    ...(sparse ? { chunks: true, size: stat.size } : {}),
    ...(type === S_IFLNK ? { symlnkTarget: linkTarget(opened) } : {}),
  });
  const image = writer.openRaw(fileOf('ghost-file', id));
  image.write(encodeImage('ghost-file', [{ message }]));
  if (type === S_IFREG) writeContents(opened, image, Number(stat.size), sparse);
  image.close();
}

function writeContents(opened: number, image: ImageFile, size: number, sparse: boolean): void {
  if (!sparse && isReadable(opened)) {
    copyRange(opened, image, 0, size);
    return;
  }
  using file = reopenForReading(opened);
  if (!sparse) copyRange(file.fd, image, 0, size);
  else for (const [from, to] of dataRanges(file.fd, size)) writeChunk(file.fd, image, from, to);
}

/** pread(2) leaves the offset alone. Opening the file anew would break a lease that its owner has. */
function isReadable(opened: number): boolean {
  const flags = fcntl(opened, F_GETFL);
  return !isPathOnly(flags) && (flags & O_DIRECT) === 0 && (flags & O_ACCMODE) !== O_WRONLY;
}

function timeOf(ns: bigint): { tvSec: bigint; tvUsec: bigint } {
  const second = 1_000_000_000n;
  const rest = ((ns % second) + second) % second;
  return { tvSec: BigInt.asUintN(64, (ns - rest) / second), tvUsec: rest / 1000n };
}

/** The target of a symbolic link that is open with O_PATH: readlinkat(2) of the empty path, from Linux 2.6.39. */
function linkTarget(opened: number): string {
  const room = 4096;
  const empty = scratch.address + BigInt(room);
  scratch.bytes[room] = 0;
  const length = syscall('readlinkat', [opened, empty, scratch.address, room], 'a removed symbolic link');
  return decodeName(Uint8Array.from(scratch.bytes.subarray(0, length)));
}

/** Runs that hold data (lseek(2) SEEK_DATA), in order. */
function dataRanges(fd: number, size: number): [number, number][] {
  const ranges: [number, number][] = [];
  for (let at = 0; at < size; ) {
    const from = attempt('lseek', [fd, at, SEEK_DATA]);
    if (from === -ERRNO.ENXIO) break;
    if (from < 0) throw new SyscallError('lseek', -from, 'SEEK_DATA');
    const to = attempt('lseek', [fd, from, SEEK_HOLE]);
    if (to < 0) throw new SyscallError('lseek', -to, 'SEEK_HOLE');
    ranges.push([from, Math.min(to, size)]);
    at = to;
  }
  return ranges;
}

function writeChunk(file: number, image: ImageFile, from: number, to: number): void {
  const chunk = toBinary(
    ghost_chunk_entrySchema,
    create(ghost_chunk_entrySchema, { len: BigInt(to - from), off: BigInt(from) }),
  );
  const length = Buffer.alloc(4);
  length.writeUInt32LE(chunk.length);
  image.write(Buffer.concat([length, chunk]));
  copyRange(file, image, from, to);
}

function copyRange(file: number, image: ImageFile, from: number, to: number): void {
  const buffer = Buffer.allocUnsafe(Math.min(BUFFER, Math.max(to - from, 1)));
  for (let at = from; at < to; ) {
    const count = readSync(file, buffer, 0, Math.min(buffer.length, to - at), at);
    if (count === 0) throw new Error(`a deleted file ends at byte ${at} instead of ${to}`);
    image.write(buffer.subarray(0, count));
    at += count;
  }
}
