import { create } from '@bufbuild/protobuf';
import {
  type user_x86_fpregs_entry,
  user_x86_fpregs_entrySchema,
  type user_x86_xsave_entry,
  user_x86_xsave_entrySchema,
} from '../../image/schema/index.js';
import { cpuid } from '../../kernel/ffi.js';
import { NativeMemory, zeroed } from '../../kernel/memory.js';

/**
 * The extended state of an x86 thread: the xsave area in the standard format, as PTRACE_GETREGSET(NT_X86_XSTATE)
 * gives it. 512 bytes as fxsave(1) lays them out, whose bytes 464…471 the kernel fills with the features it knows
 * (XCR0), a header of 64 bytes that starts with XSTATE_BV, the features that are not in their initial state, and then
 * the components.
 *
 * Where a component lies is the processor's to say (CPUID leaf 13): Intel and AMD differ, and so do their generations.
 */
const XFEATURES = 464;
const XSTATE_BV = 512;
const HEADER_END = 576;

interface Component {
  readonly name: string;
  readonly size: number;
}

/** Bit of the feature: name for messages, and size in bytes (Intel SDM volume 1, chapter 13). */
const COMPONENTS: Readonly<Record<number, Component>> = {
  2: { name: 'AVX', size: 256 },
  3: { name: 'MPX bounds', size: 64 },
  4: { name: 'MPX configuration', size: 64 },
  5: { name: 'AVX-512 opmask', size: 64 },
  6: { name: 'AVX-512 ZMM_Hi256', size: 512 },
  7: { name: 'AVX-512 Hi16_ZMM', size: 1024 },
  9: { name: 'PKRU', size: 8 },
  17: { name: 'AMX tile configuration', size: 64 },
  18: { name: 'AMX tile data', size: 8192 },
  19: { name: 'APX', size: 128 },
};

type Offsets = Readonly<Record<number, number>>;

/** Components that user_x86_xsave_entry has fields for; 0 and 1 are x87 and SSE. */
const IN_CRIU_FORMAT = 0b10_1111_1111n;

export interface Layout {
  /** XCR0: what processor and kernel know. */
  readonly features: bigint;
  readonly size: number;
  readonly offsets: Offsets;
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const bit = (feature: number) => 1n << BigInt(feature);

/** Numbers of the features of a mask, but for x87 and SSE; those of a tree's threads are few different ones. */
function features(mask: bigint): readonly number[] {
  const known = lists.get(mask);
  if (known !== undefined) return known;
  const list: number[] = [];
  for (let feature = 2; feature < 63; feature++) if ((mask & bit(feature)) !== 0n) list.push(feature);
  lists.set(mask, list);
  return list;
}

const lists = new Map<bigint, readonly number[]>();

const nameOf = (feature: number) => COMPONENTS[feature]?.name ?? `xsave component ${feature}`;

/**
 * The layout of an area from this machine. Throws when its size is not what the processor says of its components, for
 * then we would read one register as another.
 */
export function layoutOf(area: Uint8Array): Layout {
  if (area.length < HEADER_END)
    throw new Error(`an extended state of ${area.length} bytes has no xsave header`);
  const mask = viewOf(area).getBigUint64(XFEATURES, true);
  if (known?.features === mask && known.size === area.length) return known;
  known = { features: mask, size: area.length, offsets: offsetsOf(mask, area.length) };
  return known;
}

let known: Layout | undefined;

const CPUID_XSAVE = 13;

function offsetsOf(mask: bigint, size: number): Offsets {
  using memory = new NativeMemory(16);
  const offsets: Record<number, number> = {};
  let end = HEADER_END;
  for (const feature of features(mask)) {
    cpuid(CPUID_XSAVE, feature, memory.address);
    const length = memory.view.getUint32(0, true);
    const offset = memory.view.getUint32(4, true);
    const expected = COMPONENTS[feature]?.size;
    if (expected !== undefined && expected !== length)
      throw new Error(
        `the processor says that ${nameOf(feature)} has ${length} bytes instead of ${expected}`,
      );
    offsets[feature] = offset;
    end = Math.max(end, offset + length);
  }
  if (end > size)
    throw new Error(`the processor's extended state takes ${end} bytes, the kernel gives ${size}`);
  return offsets;
}

function componentOf(area: Uint8Array, layout: Layout, feature: number): Uint8Array | undefined {
  const offset = layout.offsets[feature];
  const size = COMPONENTS[feature]?.size;
  if ((layout.features & bit(feature)) === 0n || offset === undefined || size === undefined) return undefined;
  return area.subarray(offset, offset + size);
}

function words32(bytes: Uint8Array | undefined): number[] {
  if (bytes === undefined) return [];
  const view = viewOf(bytes);
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(i * 4, true));
}

function words64(bytes: Uint8Array | undefined): bigint[] {
  if (bytes === undefined) return [];
  const view = viewOf(bytes);
  return Array.from({ length: bytes.length / 8 }, (_, i) => view.getBigUint64(i * 8, true));
}

/** As CRIU's image holds it: every component the processor has, whether in use or not. */
export function encodeFpregs(area: Uint8Array): user_x86_fpregs_entry {
  const view = viewOf(area);
  const layout = layoutOf(area);
  const of = (feature: number) => componentOf(area, layout, feature);
  return create(user_x86_fpregs_entrySchema, {
    cwd: view.getUint16(0, true),
    swd: view.getUint16(2, true),
    twd: view.getUint16(4, true),
    fop: view.getUint16(6, true),
    rip: view.getBigUint64(8, true),
    rdp: view.getBigUint64(16, true),
    mxcsr: view.getUint32(24, true),
    mxcsrMask: view.getUint32(28, true),
    stSpace: words32(area.subarray(32, 160)),
    xmmSpace: words32(area.subarray(160, 416)),
    xsave: create(user_x86_xsave_entrySchema, {
      xstateBv: view.getBigUint64(XSTATE_BV, true),
      ymmhSpace: words32(of(2)),
      bndregState: words64(of(3)),
      bndcsrState: words64(of(4)),
      opmaskReg: words64(of(5)),
      zmmUpper: words64(of(6)),
      hi16Zmm: words64(of(7)),
      pkru: words32(of(9)),
    }),
  });
}

/** Bytes of the components in use that CRIU's image has no field for (AMX), by feature. */
export function extraComponents(area: Uint8Array): Map<number, Uint8Array> {
  const layout = layoutOf(area);
  const used = viewOf(area).getBigUint64(XSTATE_BV, true) & ~IN_CRIU_FORMAT;
  const extra = new Map<number, Uint8Array>();
  for (const feature of features(used)) {
    const bytes = componentOf(area, layout, feature);
    if (bytes !== undefined) extra.set(feature, bytes.slice());
  }
  return extra;
}

/** Bytes of a component that the image has a field for. There is one of these areas a thread, so it is asked of those in use. */
function fieldOf(xsave: user_x86_xsave_entry, feature: number): Uint8Array | undefined {
  switch (feature) {
    case 2:
      return bytes32(xsave.ymmhSpace);
    case 3:
      return bytes64(xsave.bndregState);
    case 4:
      return bytes64(xsave.bndcsrState);
    case 5:
      return bytes64(xsave.opmaskReg);
    case 6:
      return bytes64(xsave.zmmUpper);
    case 7:
      return bytes64(xsave.hi16Zmm);
    case 9:
      return bytes32(xsave.pkru);
    default:
      return undefined;
  }
}

/** x86 has the low byte first, as V8 has it there. */
const bytes32 = (values: readonly number[]) => new Uint8Array(new Uint32Array(values).buffer);
const bytes64 = (values: readonly bigint[]) => new Uint8Array(new BigUint64Array(values).buffer);

/**
 * The area for PTRACE_SETREGSET on this machine. `host` is any area PTRACE_GETREGSET gave here. Throws when the state
 * needs a feature this processor lacks, naming it and `task`.
 */
export function decodeFpregs(
  image: user_x86_fpregs_entry,
  extra: ReadonlyMap<number, Uint8Array>,
  host: Uint8Array,
  task: string,
): Uint8Array {
  const layout = layoutOf(host);
  const area = zeroed(host.length);
  const view = viewOf(area);
  decodeLegacy(image, area, view);
  // Without a header (a processor that only had fxsave) the x87 and SSE registers are all there is.
  const used = image.xsave?.xstateBv ?? 3n;
  const xsave = image.xsave ?? create(user_x86_xsave_entrySchema);
  for (const feature of features(used)) {
    const target = componentOf(area, layout, feature);
    const bytes = extra.get(feature) ?? fieldOf(xsave, feature);
    if (target === undefined || (layout.features & bit(feature)) === 0n)
      throw new Error(
        `${task} uses ${nameOf(feature)}, which this processor or kernel lacks; restore it on a host that has it`,
      );
    if (bytes === undefined || bytes.length > target.length)
      throw new Error(`${task}: the image says that ${nameOf(feature)} is in use and does not hold it`);
    target.set(bytes);
  }
  view.setBigUint64(XFEATURES, layout.features, true);
  view.setBigUint64(XSTATE_BV, used, true);
  return area;
}

function decodeLegacy(image: user_x86_fpregs_entry, area: Uint8Array, view: DataView): void {
  view.setUint16(0, image.cwd, true);
  view.setUint16(2, image.swd, true);
  view.setUint16(4, image.twd, true);
  view.setUint16(6, image.fop, true);
  view.setBigUint64(8, image.rip, true);
  view.setBigUint64(16, image.rdp, true);
  view.setUint32(24, image.mxcsr, true);
  view.setUint32(28, image.mxcsrMask, true);
  area.set(bytes32(image.stSpace.slice(0, 32)), 32);
  area.set(bytes32(image.xmmSpace.slice(0, 64)), 160);
}
