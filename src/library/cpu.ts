import { cpuid } from '../kernel/ffi.js';
import { NativeMemory } from '../kernel/memory.js';

/**
 * What this CPU can do, as words of feature bits in the order of Linux's cpufeatures.h (of its first 19 words), which
 * is also that of cpuinfo.img. Leaves are those of Intel's manual (volume 2, CPUID) and AMD's (volume 3, appendix E).
 */
export interface CpuDescription {
  readonly vendor: 'intel' | 'amd';
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly modelName: string;
  readonly capabilities: readonly number[];
  /** User states of XSAVE. */
  readonly xfeatures: bigint;
  /** Bytes of an XSAVE area, with the states enabled now and with all there are. */
  readonly xsaveSize: number;
  readonly xsaveSizeMax: number;
}

/** Words of `capabilities`. Word 3 is Linux's own; of it only what a 64-bit CPU always has is set. */
const WORD = {
  LEAF_1_EDX: 0,
  LEAF_80000001_EDX: 1,
  LINUX: 3,
  LEAF_1_ECX: 4,
  LEAF_80000001_ECX: 6,
  LEAF_7_EBX: 9,
  LEAF_D_1_EAX: 10,
  LEAF_7_ECX: 11,
  LEAF_F_1_EDX: 12,
  LEAF_80000008_EBX: 13,
  LEAF_6_EAX: 14,
  LEAF_8000000A_EDX: 15,
  LEAF_F_0_EDX: 16,
  LEAF_80000007_EBX: 17,
  LEAF_7_EDX: 18,
} as const;
const WORDS = 19;

/** rep_good, nopl, cpuid. */
const ALWAYS_ON_64_BIT = (1 << 16) | (1 << 20) | (1 << 25);
/**
 * x87, AVX, BNDCSR, the three of AVX-512, PKRU. SSE (bit 1) is on every 64-bit CPU and BNDREGS (bit 3) goes with
 * BNDCSR; CRIU 4.2 leaves both out and takes them for unknown states in an image.
 */
const USER_STATES = 0x2f5n;

interface Leaf {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}
type Read = (leaf: number, subleaf?: number) => Leaf;

const NOTHING: Leaf = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** Leaves above the highest one answer another leaf's words, so they count as empty here. */
function reader(memory: NativeMemory): Read {
  const raw: Read = (leaf, subleaf = 0) => {
    cpuid(leaf, subleaf, memory.address);
    const word = (index: number): number => memory.view.getUint32(index * 4, true);
    return { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) };
  };
  const highest = raw(0).eax;
  const highestExtended = raw(0x8000_0000).eax;
  return (leaf, subleaf) => {
    const limit = leaf >= 0x8000_0000 ? highestExtended : highest;
    return leaf > limit ? NOTHING : raw(leaf, subleaf);
  };
}

function text(words: readonly number[]): string {
  const bytes = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => {
    bytes.writeUInt32LE(word, index * 4);
  });
  return bytes.toString('latin1').replaceAll('\0', '').trim();
}

/** @throws Error for a CPU of another maker, whose words nobody has compared yet */
export function describeCpu(): CpuDescription {
  using memory = new NativeMemory(16);
  const read = reader(memory);
  const { ebx, ecx, edx } = read(0);
  const vendorName = text([ebx, edx, ecx]);
  const vendor = { GenuineIntel: 'intel', AuthenticAMD: 'amd', HygonGenuine: 'amd' } as const;
  const known = vendor[vendorName as keyof typeof vendor];
  if (known === undefined) throw new Error(`unknown maker of the CPU: ${vendorName}`);

  const signature = read(1).eax;
  const baseFamily = (signature >> 8) & 0xf;
  const extendedModel = baseFamily >= 6 ? ((signature >> 16) & 0xf) << 4 : 0;
  const states = read(0xd);
  const name = [0x8000_0002, 0x8000_0003, 0x8000_0004].map((leaf) => read(leaf));
  return {
    vendor: known,
    family: baseFamily + (baseFamily === 0xf ? (signature >> 20) & 0xff : 0),
    model: ((signature >> 4) & 0xf) + extendedModel,
    stepping: signature & 0xf,
    modelName: text(name.flatMap((leaf) => [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])),
    capabilities: capabilities(read),
    xfeatures: (BigInt(states.eax) | (BigInt(states.edx) << 32n)) & USER_STATES,
    xsaveSize: states.ebx,
    xsaveSizeMax: states.ecx,
  };
}

function capabilities(read: Read): number[] {
  const words = new Array<number>(WORDS).fill(0);
  const one = read(1);
  const seven = read(7);
  const extended = read(0x8000_0001);
  words[WORD.LEAF_1_EDX] = one.edx;
  words[WORD.LEAF_1_ECX] = one.ecx;
  words[WORD.LEAF_80000001_EDX] = extended.edx;
  words[WORD.LEAF_80000001_ECX] = extended.ecx;
  words[WORD.LINUX] = ALWAYS_ON_64_BIT;
  words[WORD.LEAF_7_EBX] = seven.ebx;
  words[WORD.LEAF_7_ECX] = seven.ecx;
  words[WORD.LEAF_7_EDX] = seven.edx;
  words[WORD.LEAF_D_1_EAX] = read(0xd, 1).eax;
  words[WORD.LEAF_F_0_EDX] = read(0xf, 0).edx;
  // Subleaf 1 is only there with cache monitoring, bit 1 of subleaf 0.
  words[WORD.LEAF_F_1_EDX] = ((words[WORD.LEAF_F_0_EDX] ?? 0) & 2) === 0 ? 0 : read(0xf, 1).edx;
  words[WORD.LEAF_6_EAX] = read(6).eax;
  words[WORD.LEAF_8000000A_EDX] = read(0x8000_000a).edx;
  words[WORD.LEAF_80000007_EBX] = read(0x8000_0007).ebx;
  words[WORD.LEAF_80000008_EBX] = read(0x8000_0008).ebx;
  return words;
}

/** What must be there for an image made on a CPU to go on here: states, instructions, or all of it. */
export interface CpuDemands {
  readonly fpu: boolean;
  readonly ins: boolean;
  readonly cpu: boolean;
}

/** Bits of instructions that programs use, word by word; what only the kernel uses may differ. */
const INSTRUCTIONS: Readonly<Record<number, number>> = {
  [WORD.LEAF_1_EDX]: bits(0, 4, 8, 15, 19, 23, 24, 25, 26),
  [WORD.LEAF_80000001_EDX]: bits(11, 22, 25, 27, 30, 31),
  [WORD.LEAF_1_ECX]: bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30),
  [WORD.LEAF_80000001_ECX]: bits(0, 5, 6, 8, 11, 15, 16, 21),
  [WORD.LEAF_7_EBX]: bits(0, 3, 4, 5, 8, 9, 11, 14, 16, 17, 18, 19, 21, 23, 24, 26, 27, 28, 29, 30, 31),
  [WORD.LEAF_D_1_EAX]: bits(0, 1, 2, 3),
  [WORD.LEAF_7_ECX]: bits(1, 4, 6, 8, 9, 10, 11, 12, 14, 22),
  [WORD.LEAF_80000008_EBX]: bits(0),
  [WORD.LEAF_7_EDX]: bits(2, 3, 8, 22, 23, 24, 25),
};

/** x87, FXSR; OSXSAVE; XSAVES. */
const FPU: Readonly<Record<number, number>> = {
  [WORD.LEAF_1_EDX]: bits(0, 24),
  [WORD.LEAF_1_ECX]: bits(27),
  [WORD.LEAF_D_1_EAX]: bits(3),
};

function bits(...numbers: number[]): number {
  return numbers.reduce((mask, number) => mask | (1 << number), 0) >>> 0;
}

function lacking(
  image: CpuDescription,
  host: CpuDescription,
  masks: Readonly<Record<number, number>>,
  what: string,
): string[] {
  return Object.entries(masks).flatMap(([key, mask]) => {
    const word = Number(key);
    const missing = ((image.capabilities[word] ?? 0) & mask & ~(host.capabilities[word] ?? 0)) >>> 0;
    return missing === 0
      ? []
      : [`${what} of the image are missing here: word ${word}, bits 0x${missing.toString(16)}`];
  });
}

/** In words, what keeps an image of one CPU from going on with another; empty when nothing does. */
export function compareCpus(image: CpuDescription, host: CpuDescription, demands: CpuDemands): string[] {
  const problems: string[] = [];
  if (demands.fpu) {
    problems.push(...lacking(image, host, FPU, 'floating-point features'));
    const states = image.xfeatures & ~host.xfeatures;
    if (states !== 0n)
      problems.push(`extended states 0x${states.toString(16)} of the image are missing here`);
    // A C library sizes its XSAVE areas once, by what CPUID said then.
    if (image.xsaveSize !== host.xsaveSize || image.xsaveSizeMax !== host.xsaveSizeMax)
      problems.push(
        `XSAVE areas are ${image.xsaveSize} (at most ${image.xsaveSizeMax}) bytes in the image, ` +
          `${host.xsaveSize} (${host.xsaveSizeMax}) here`,
      );
  }
  if (demands.ins) problems.push(...lacking(image, host, INSTRUCTIONS, 'instructions'));
  if (demands.cpu)
    image.capabilities.forEach((bitsOfImage, word) => {
      if (word !== WORD.LINUX && bitsOfImage >>> 0 !== (host.capabilities[word] ?? 0) >>> 0)
        problems.push(
          `capability word ${word} is 0x${(bitsOfImage >>> 0).toString(16)} in the image, 0x${((host.capabilities[word] ?? 0) >>> 0).toString(16)} here`,
        );
    });
  return problems;
}
