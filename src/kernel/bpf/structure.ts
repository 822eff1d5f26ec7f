import type { KernelMemory } from './kernel-memory.js';

/** A structure of the kernel's, read at once; its members go by their names. */
export class Structure {
  readonly address: bigint;
  readonly memory: KernelMemory;
  readonly #name: string;
  readonly #bytes: Buffer;

  /** `bytes` are those of the structure, where they were read already. */
  constructor(memory: KernelMemory, name: string, address: bigint, bytes?: Buffer) {
    this.memory = memory;
    this.#name = name;
    this.address = address;
    this.#bytes = bytes ?? memory.read(address, memory.types.size(name));
  }

  /** Bytes from its start to a member. */
  at(path: string): number {
    return this.memory.types.offset(this.#name, path);
  }

  /** The address of a member. */
  addressOf(path: string): bigint {
    return this.address + BigInt(this.at(path));
  }

  byte(path: string): number {
    return this.#bytes.readUInt8(this.at(path));
  }

  /** Of two bytes. */
  half(path: string): number {
    return this.#bytes.readUInt16LE(this.at(path));
  }

  word(path: string): number {
    return this.#bytes.readUInt32LE(this.at(path));
  }

  /** Two words in a row. */
  pair(path: string): readonly [number, number] {
    const at = this.at(path);
    return [this.#bytes.readUInt32LE(at), this.#bytes.readUInt32LE(at + 4)];
  }

  pointer(path: string): bigint {
    return this.#bytes.readBigUInt64LE(this.at(path));
  }

  /** A bit field of one bit. */
  flag(path: string): boolean {
    const { byte, bit } = this.memory.types.flag(this.#name, path);
    return ((this.#bytes[byte] ?? 0) & (1 << bit)) !== 0;
  }

  /** Of a struct list_head, whose elements begin and end at itself. */
  isEmpty(path: string): boolean {
    return this.pointer(path) === this.addressOf(path);
  }

  /** What lies in it from a member on, as another structure (a union that the kernel has no name for). */
  inside(path: string, name: string): Structure {
    const start = this.at(path);
    return new Structure(this.memory, name, this.addressOf(path), this.#bytes.subarray(start));
  }
}
