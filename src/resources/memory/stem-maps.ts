import { MREMAP_FIXED, MREMAP_MAYMOVE } from '../../abi/mman.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import { type Deferred, deferred, type Tape } from '../../tape/tape.js';
import { type AddressRange, type StemMaps, VDSO_ROOM } from '../contract.js';

/**
 * The running kernel's vDSO and the data it reads ([vvar], and from Linux 6.13 [vvar_vclock]). They are the only
 * mappings that cannot be made by a call: every process has them from its execve(2) on, and can move them, each by an
 * mremap(2) of its own, keeping their distances. arch/x86/entry/vdso/vma.c.
 */
export interface KernelPart {
  readonly name: string;
  /** From the first part's start, in bytes. */
  readonly offset: bigint;
  readonly size: bigint;
}

const NAMES = ['[vvar]', '[vvar_vclock]', '[vdso]'];

let parts: readonly KernelPart[] | undefined;

/** The same in every 64-bit process of one kernel; read off this one. Empty where it runs without a vDSO. */
export function kernelParts(): readonly KernelPart[] {
  if (parts === undefined) {
    const found = readMaps(process.pid).filter(({ path }) => NAMES.includes(path));
    const first = found[0]?.start ?? 0n;
    parts = found.map(({ path, start, end }) => ({ name: path, offset: start - first, size: end - start }));
    const last = parts.at(-1);
    if (last !== undefined && last.offset + last.size > BigInt(VDSO_ROOM))
      throw new Error(`the vDSO and its data take more than ${VDSO_ROOM} bytes on this kernel`);
  }
  return parts;
}

/** Where they ride in a workspace until a process is finished. */
export function luggageAddress({ address, size }: AddressRange): bigint {
  return address + size - BigInt(VDSO_ROOM);
}

export class KernelMaps implements StemMaps {
  readonly addresses: ReadonlyMap<string, Deferred> = new Map(
    kernelParts().map(({ name }) => [name, deferred(`stem's ${name}`)]),
  );

  learn(pid: number): void {
    const maps = readMaps(pid);
    for (const { name, size } of kernelParts()) {
      const found = maps.find(({ path }) => path === name);
      const address = this.addresses.get(name);
      if (found === undefined || found.end - found.start !== size || address === undefined)
        throw new Error(`stem ${pid} has no ${name} of ${size} bytes, unlike this process`);
      address.value = found.start;
    }
  }

  /** Take them along into the end of the workspace, wherever they were. */
  pack(tape: Tape, workspace: AddressRange): void {
    tape.about('vDSO out of the way');
    for (const { name, offset, size } of kernelParts()) {
      const address = this.addresses.get(name);
      if (address !== undefined) movePart(tape, address, size, luggageAddress(workspace) + offset);
    }
  }
}

export function movePart(tape: Tape, from: bigint | Deferred, size: bigint, to: bigint): void {
  tape.call('mremap', [from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to], to);
}

export function newStemMaps(): KernelMaps {
  return new KernelMaps();
}
