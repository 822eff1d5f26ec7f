import { closeSync, readSync } from 'node:fs';
import { MFD_CLOEXEC } from '../../abi/mman.js';
import type { vma_entry } from '../../image/schema/index.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import { readRemote } from '../../kernel/remote.js';
import type { Tape } from '../../tape/tape.js';
import type { AddressRange, ProcessImage } from '../contract.js';
import { functionsOf } from './elf.js';
import { freeRangeOf } from './gap.js';
import { mmOf } from './image-memory.js';
import { runsWithin } from './runs.js';
import { kernelParts, luggageAddress, movePart } from './stem-maps.js';
import { VMA } from './vma.js';

/**
 * The vDSO: code of the kernel's whose addresses C libraries remember. Where the running kernel's has the functions of
 * the image's at the same places, it simply is moved there. Else the image's is restored as plain memory, each of
 * its functions replaced by a jump into the running kernel's, which lies elsewhere.
 */

function vdsoOf(image: ProcessImage): vma_entry | undefined {
  return mmOf(image).vmas.find(({ status }) => (status & VMA.VDSO) !== 0);
}

function vvarOf(image: ProcessImage): vma_entry | undefined {
  return mmOf(image).vmas.find(({ status }) => (status & VMA.VVAR) !== 0);
}

const decided = new WeakMap<ProcessImage, boolean>();

/** Has the image a vDSO that the running kernel's cannot simply take the place of? */
export function needsProxy(image: ProcessImage): boolean {
  const known = decided.get(image);
  if (known !== undefined) return known;
  const vdso = vdsoOf(image);
  const needs = vdso !== undefined && !(fits(image, vdso) && sameFunctions(image, vdso));
  decided.set(image, needs);
  return needs;
}

/** Same sizes, and the data as far from the code: it is addressed relative to that. */
function fits(image: ProcessImage, vdso: vma_entry): boolean {
  const vvar = vvarOf(image);
  const own = kernelParts().find(({ name }) => name === '[vdso]');
  if (own === undefined)
    throw new Error(`${image.name} has a vDSO, this kernel has none (booted with vdso=0)`);
  const dataSize = own.offset;
  return (
    vdso.end - vdso.start === own.size &&
    vvar !== undefined &&
    vvar.end - vvar.start === dataSize &&
    vdso.start - vvar.start === own.offset
  );
}

function sameFunctions(image: ProcessImage, vdso: vma_entry): boolean {
  const theirs = imageBytes(image, vdso);
  const ours = kernelBytes();
  if (Buffer.compare(theirs, ours) === 0) return true;
  const functions = functionsOf(ours);
  return [...functionsOf(theirs)].every(([name, at]) => functions.get(name) === at);
}

function imageBytes(image: ProcessImage, vdso: vma_entry): Buffer {
  const start = Number(vdso.start);
  const bytes = Buffer.alloc(Number(vdso.end) - start);
  for (const run of runsWithin(image, vdso)) {
    const fd = run.reader.openPages(run.pagesId);
    try {
      readSync(fd, bytes, run.start - start, run.end - run.start, run.offset);
    } finally {
      closeSync(fd);
    }
  }
  return bytes;
}

let ownBytes: Uint8Array | undefined;

/** The running kernel's vDSO. */
function kernelBytes(): Uint8Array {
  ownBytes ??= readOwn();
  return ownBytes;
}

function readOwn(): Uint8Array {
  const own = readMaps(process.pid).find(({ path }) => path === '[vdso]');
  if (own === undefined) throw new Error('this process has no vDSO');
  return readRemote(process.pid, own.start, Number(own.end - own.start));
}

/** Where the running kernel's lies once it was placed, with its data. */
export function placeOfVdso(image: ProcessImage, workspace: AddressRange): { start: bigint; end: bigint } {
  const vdso = vdsoOf(image);
  const own = kernelParts().find(({ name }) => name === '[vdso]');
  const size = own === undefined ? 0n : own.offset + own.size;
  const start =
    vdso === undefined || own === undefined
      ? luggageAddress(workspace)
      : needsProxy(image)
        ? freeRangeOf(mmOf(image).vmas, workspace, size, image.name)
        : vdso.start - own.offset;
  return { start, end: start + size };
}

/** Entries that bring the vDSO out of the workspace to where the image has it; without one it goes with that. */
export function placeVdso(image: ProcessImage, tape: Tape, workspace: AddressRange): void {
  const vdso = vdsoOf(image);
  if (vdso === undefined) return;
  tape.about('vDSO');
  const own = kernelParts().find(({ name }) => name === '[vdso]');
  if (own === undefined) return;
  const { start } = placeOfVdso(image, workspace);
  for (const { offset, size } of kernelParts())
    movePart(tape, luggageAddress(workspace) + offset, size, start + offset);
  if (needsProxy(image)) patch(image, vdso, tape, start + own.offset);
}

/** `mov $target, %rax; jmp *%rax` */
function jumpTo(target: bigint): Buffer {
  const code = Buffer.from([0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0]);
  code.writeBigUInt64LE(target, 2);
  return code;
}

/**
 * SAFETY: the image's vDSO is private writable memory here, and no thread of the process runs before it is final; a
 * thread that was stopped inside of it is not, for the dump would have to have been taken on another kernel in it.
 */
function patch(image: ProcessImage, vdso: vma_entry, tape: Tape, target: bigint): void {
  const ours = functionsOf(kernelBytes());
  const jumps = new Map<number, Buffer>();
  for (const [name, at] of functionsOf(imageBytes(image, vdso))) {
    const to = ours.get(name);
    if (to === undefined) throw new Error(`${image.name}: the vDSO of this kernel has no ${name}`);
    jumps.set(at, jumpTo(target + BigInt(to)));
  }
  // A tape cannot store bytes, but read them from a file.
  const code = Buffer.concat([...jumps.values()]);
  const fd = tape.call('memfd_create', [tape.string('stasis-vdso'), MFD_CLOEXEC]);
  tape.call('write', [fd, tape.space(code), code.length]);
  let from = 0;
  for (const [at, jump] of jumps) {
    tape.call('pread64', [fd, vdso.start + BigInt(at), jump.length, from], jump.length);
    from += jump.length;
  }
  tape.call('close', [fd]);
}
