import * as B from '../../abi/bpf.js';

/** Programs for the kernel's virtual machine, put together from instructions (Documentation/bpf/standardization). */
export class Program {
  readonly #bytes: number[] = [];
  /** Jumps to a place that is not known yet, by the place. */
  readonly #open = new Map<string, number[]>();

  get length(): number {
    return this.#bytes.length / 8;
  }

  get bytes(): Uint8Array {
    if (this.#open.size > 0) throw new Error(`places ${[...this.#open.keys()]} were never reached`);
    return Uint8Array.from(this.#bytes);
  }

  #add(code: number, target: number, source: number, offset: number, value: number): void {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    bytes[0] = code;
    bytes[1] = target | (source << 4);
    view.setInt16(2, offset, true);
    view.setInt32(4, value, true);
    this.#bytes.push(...bytes);
  }

  move(target: number, source: number): void {
    this.#add(B.BPF_MOV64_REG, target, source, 0, 0);
  }

  set(target: number, value: number): void {
    this.#add(B.BPF_MOV64_IMM, target, 0, 0, value);
  }

  add(target: number, value: number): void {
    this.#add(B.BPF_ADD64_IMM, target, 0, 0, value);
  }

  load(target: number, base: number, offset: number): void {
    this.#add(B.BPF_LDX_DW, target, base, offset, 0);
  }

  store(base: number, offset: number, source: number): void {
    this.#add(B.BPF_STX_DW, base, source, offset, 0);
  }

  /** The address of the value of a map with one. */
  mapValue(target: number, map: number): void {
    this.#add(B.BPF_LD_IMM64, target, B.BPF_PSEUDO_MAP_VALUE, 0, map);
    this.#add(0, 0, 0, 0, 0);
  }

  call(func: number): void {
    this.#add(B.BPF_CALL, 0, 0, 0, func);
  }

  exit(): void {
    this.#add(B.BPF_EXIT, 0, 0, 0, 0);
  }

  /** Jump forward to a place: if a register is `value`, if it is not, or when a loop has gone on for too long. */
  jump(when: 'equal' | 'differs' | 'tired', place: string, register = 0, value = 0): void {
    const code = { equal: B.BPF_JEQ_IMM, differs: B.BPF_JNE_IMM, tired: B.BPF_MAY_GOTO };
    const jumps = this.#open.get(place) ?? [];
    this.#open.set(place, jumps);
    jumps.push(this.length);
    this.#add(code[when], register, 0, 0, value);
  }

  /** Jump to an instruction before this one. */
  back(to: number): void {
    this.#add(B.BPF_JA, 0, 0, to - this.length - 1, 0);
  }

  /** The next instruction is the one that jumps to `name` lead to. */
  place(name: string): void {
    for (const jump of this.#open.get(name) ?? []) {
      const distance = this.length - jump - 1;
      this.#bytes[jump * 8 + 2] = distance & 0xff;
      this.#bytes[jump * 8 + 3] = distance >> 8;
    }
    this.#open.delete(name);
  }
}
