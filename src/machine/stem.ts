import { LOOP, LOOP_IDLE, RESTORER, STEM } from './x86_64.js';

/**
 * The stem: the smallest program there is, a static ELF of one page that maps a workspace at a chosen address,
 * puts the loop there and waits. Everything a restored process becomes, it becomes by tapes.
 * Layout: ELF(5), System V ABI, AMD64 supplement.
 */
const EHDR_SIZE = 64;
const PHDR_SIZE = 56;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474e551;
const PF_X = 1;
const PF_W = 2;
const PF_R = 4;
const ET_EXEC = 2;
const EM_X86_64 = 62;

/** Offsets in STEM of the values to patch. */
const BASE_AT = 2;
const SIZE_AT = 12;
const COPY_LENGTH_AT = 0xa4 - 0x66;
const IDLE_AT = 0xae - 0x66;

export const STEM_PAGES_SIZE = 4096;

function programHeader(
  view: DataView,
  at: number,
  type: number,
  flags: number,
  address: bigint,
  size: number,
) {
  view.setUint32(at, type, true);
  view.setUint32(at + 4, flags, true);
  view.setBigUint64(at + 16, address, true);
  view.setBigUint64(at + 24, address, true);
  view.setBigUint64(at + 32, BigInt(size), true);
  view.setBigUint64(at + 40, BigInt(size), true);
  view.setBigUint64(at + 48, 4096n, true);
}

/**
 * The ELF file of a stem that is loaded at `elf` and maps `size` bytes of workspace at `workspace`
 * (all multiples of the page size; the file takes STEM_PAGES_SIZE bytes of memory).
 */
export function stemElf(elf: bigint, workspace: bigint, size: bigint): Uint8Array {
  const start = EHDR_SIZE + 2 * PHDR_SIZE;
  const length = start + STEM.length + LOOP.length + RESTORER.length;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, ET_EXEC, true);
  view.setUint16(18, EM_X86_64, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, elf + BigInt(start), true);
  view.setBigUint64(32, BigInt(EHDR_SIZE), true);
  view.setUint16(52, EHDR_SIZE, true);
  view.setUint16(54, PHDR_SIZE, true);
  view.setUint16(56, 2, true);
  programHeader(view, EHDR_SIZE, PT_LOAD, PF_R | PF_X, elf, length);
  programHeader(view, EHDR_SIZE + PHDR_SIZE, PT_GNU_STACK, PF_R | PF_W, 0n, 0);
  bytes.set(STEM, start);
  view.setBigUint64(start + BASE_AT, workspace, true);
  view.setBigUint64(start + SIZE_AT, size, true);
  view.setUint32(start + COPY_LENGTH_AT, LOOP.length, true);
  view.setUint32(start + IDLE_AT, LOOP_IDLE, true);
  bytes.set(LOOP, start + STEM.length);
  bytes.set(RESTORER, start + STEM.length + LOOP.length);
  return bytes;
}
