import { readFileSync } from 'node:fs';
import { KernelMemoryError } from './error.js';

/**
 * Where members lie in the running kernel's structures, as its own description of its types says: the BPF Type Format,
 * Documentation/bpf/btf.rst, in /sys/kernel/btf/vmlinux.
 */
const KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  DECL_TAG: 17,
  ENUM64: 19,
} as const;
/** No PTR: what it points to lies elsewhere. TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG. */
const TRANSPARENT: readonly number[] = [8, 9, 10, 11, 18];
const HEADER_MAGIC = 0xeb9f;

/** Bytes behind the three words of a type, for each of its elements and by itself. */
const TAILS: Readonly<Record<number, { readonly each: number; readonly once: number }>> = {
  [KIND.INT]: { each: 0, once: 4 },
  [KIND.ARRAY]: { each: 0, once: 12 },
  [KIND.STRUCT]: { each: 12, once: 0 },
  [KIND.UNION]: { each: 12, once: 0 },
  [KIND.ENUM]: { each: 8, once: 0 },
  [KIND.FUNC_PROTO]: { each: 8, once: 0 },
  [KIND.VAR]: { each: 0, once: 4 },
  [KIND.DATASEC]: { each: 12, once: 0 },
  [KIND.DECL_TAG]: { each: 0, once: 4 },
  [KIND.ENUM64]: { each: 12, once: 0 },
};

/** A member, in bits from the start of the structure. */
interface Place {
  readonly type: number;
  readonly bit: number;
  /** 0 where it is no bit field. */
  readonly bits: number;
}

export class KernelTypes {
  readonly #view: DataView;
  readonly #strings: Buffer;
  /** Offset of each type's words, by its id. */
  readonly #types: Uint32Array;
  /** What was asked for before; there are some hundred thousand types. */
  readonly #places = new Map<string, Place>();
  readonly #sizes = new Map<string, number>();
  readonly #values = new Map<string, number>();

  constructor(bytes: Buffer) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < 24 || view.getUint16(0, true) !== HEADER_MAGIC)
      throw new KernelMemoryError('is no BTF');
    const header = view.getUint32(4, true);
    const start = header + view.getUint32(8, true);
    const end = start + view.getUint32(12, true);
    const strings = header + view.getUint32(16, true);
    this.#view = view;
    this.#strings = bytes.subarray(strings, strings + view.getUint32(20, true));
    const types = [0];
    for (let at = start; at < end; ) {
      types.push(at);
      const tail = TAILS[this.#kind(at)];
      at += 12 + (tail === undefined ? 0 : tail.once + tail.each * this.#count(at));
    }
    this.#types = Uint32Array.from(types);
  }

  static #ofKernel: KernelTypes | undefined;

  /** Some megabytes, which are gone through once in the life of this process. */
  static ofKernel(): KernelTypes {
    KernelTypes.#ofKernel ??= new KernelTypes(readTypes());
    return KernelTypes.#ofKernel;
  }

  #kind(at: number): number {
    return (this.#view.getUint32(at + 4, true) >>> 24) & 0x1f;
  }

  #count(at: number): number {
    return this.#view.getUint32(at + 4, true) & 0xffff;
  }

  #name(at: number): string {
    return this.#string(this.#view.getUint32(at, true));
  }

  #string(start: number): string {
    return this.#strings.toString('latin1', start, this.#strings.indexOf(0, start));
  }

  /** Where a name is; 0 where nothing is called so. */
  #text(name: string): number {
    return this.#strings.indexOf(`\0${name}\0`, 0, 'latin1') + 1;
  }

  /** The id of a structure, an enumeration or a function; throws where the kernel has none of that name. */
  id(kind: 'STRUCT' | 'ENUM' | 'FUNC', name: string): number {
    const text = this.#text(name);
    const found = this.#types.findIndex(
      (at, id) => id > 0 && this.#view.getUint32(at, true) === text && this.#kind(at) === KIND[kind],
    );
    if (text === 0 || found < 0)
      throw new KernelMemoryError(`the kernel describes no ${kind.toLowerCase()} ${name}`);
    return found;
  }

  /** The place of `path` (`submit_state.free_list`) in a structure; throws where the kernel has no such member. */
  #place(name: string, path: string): Place {
    const key = `${name}.${path}`;
    const place = this.#places.get(key) ?? this.#find(name, path);
    this.#places.set(key, place);
    return place;
  }

  #find(name: string, path: string): Place {
    let place: Place = { type: this.id('STRUCT', name), bit: 0, bits: 0 };
    for (const member of path.split('.')) {
      const inside = this.#member(place.type, member);
      if (inside === undefined) throw new KernelMemoryError(`the kernel's struct ${name} has no ${path}`);
      place = { ...inside, bit: place.bit + inside.bit };
    }
    return place;
  }

  #member(type: number, name: string): Place | undefined {
    const at = this.#types[this.#resolve(type)] ?? 0;
    const kind = this.#kind(at);
    if (kind !== KIND.STRUCT && kind !== KIND.UNION) return undefined;
    const hasBitFields = this.#view.getUint32(at + 4, true) >>> 31 === 1;
    for (let index = 0; index < this.#count(at); index++) {
      const member = at + 12 + index * 12;
      const inner = this.#view.getUint32(member + 4, true);
      const word = this.#view.getUint32(member + 8, true);
      const place = hasBitFields
        ? { type: inner, bit: word & 0xff_ffff, bits: word >>> 24 }
        : { type: inner, bit: word, bits: 0 };
      const own = this.#name(member);
      if (own === name) return place;
      const found = own === '' ? this.#member(inner, name) : undefined;
      if (found !== undefined) return { ...found, bit: place.bit + found.bit };
    }
    return undefined;
  }

  #resolve(type: number): number {
    for (let id = type; ; ) {
      const at = this.#types[id] ?? 0;
      if (id === 0 || !TRANSPARENT.includes(this.#kind(at))) return id;
      id = this.#view.getUint32(at + 8, true);
    }
  }

  /** Bytes from the start of a structure to a member. */
  offset(name: string, path: string): number {
    return this.#place(name, path).bit >>> 3;
  }

  /** Bytes of a member that is a number or an address; throws for one that is neither, and for bit fields. */
  width(name: string, path: string): number {
    const { type, bits } = this.#place(name, path);
    const at = this.#types[this.#resolve(type)] ?? 0;
    const kind = this.#kind(at);
    if (kind === KIND.PTR) return 8;
    if (bits === 0 && (kind === KIND.INT || kind === KIND.ENUM)) return this.#view.getUint32(at + 8, true);
    throw new KernelMemoryError(`the kernel's struct ${name} has no number ${path}`);
  }

  /** Whether a member is an address, and not what lies there. */
  isPointer(name: string, path: string): boolean {
    const type = this.#resolve(this.#place(name, path).type);
    return this.#kind(this.#types[type] ?? 0) === KIND.PTR;
  }

  /** Where a bit field of one bit is: its byte, and its bit there. */
  flag(name: string, path: string): { byte: number; bit: number } {
    const { bit } = this.#place(name, path);
    return { byte: bit >>> 3, bit: bit & 7 };
  }

  /** The value of an enumerator, of whatever enumeration; throws where the kernel has none of that name. */
  value(enumerator: string): number {
    const known = this.#values.get(enumerator);
    if (known !== undefined) return known;
    const text = this.#text(enumerator);
    for (let id = 1; text > 0 && id < this.#types.length; id++) {
      const at = this.#types[id] ?? 0;
      const place = this.#kind(at) === KIND.ENUM ? this.#enumerators(at).get(text) : undefined;
      if (place === undefined) continue;
      this.#values.set(enumerator, place);
      return place;
    }
    throw new KernelMemoryError(`the kernel describes no ${enumerator}`);
  }

  /** What an enumeration calls a value; undefined where it has no such. */
  nameOfValue(enumeration: string, value: number): string | undefined {
    const at = this.#types[this.id('ENUM', enumeration)] ?? 0;
    for (const [text, own] of this.#enumerators(at)) if (own === value) return this.#string(text);
    return undefined;
  }

  /** Values by where their names are. */
  #enumerators(at: number): Map<number, number> {
    const word = (index: number, offset: number) => at + 12 + index * 8 + offset;
    return new Map(
      Array.from({ length: this.#count(at) }, (_, index) => [
        this.#view.getUint32(word(index, 0), true),
        this.#view.getInt32(word(index, 4), true),
      ]),
    );
  }

  size(name: string): number {
    const known =
      this.#sizes.get(name) ?? this.#view.getUint32((this.#types[this.id('STRUCT', name)] ?? 0) + 8, true);
    this.#sizes.set(name, known);
    return known;
  }
}

function readTypes(): Buffer {
  try {
    return readFileSync('/sys/kernel/btf/vmlinux');
  } catch (cause) {
    throw new KernelMemoryError('the kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)', { cause });
  }
}
