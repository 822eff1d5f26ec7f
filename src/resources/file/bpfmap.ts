import * as B from '../../abi/bpf.js';
import { ERRNO } from '../../abi/errno.js';
import { O_ACCMODE, O_CLOEXEC, O_RDWR } from '../../abi/fcntl.js';
import { type bpfmap_file_entry, createMessage, ImageError, type MessageOf } from '../../image/index.js';
import { fromCString } from '../../kernel/c-string.js';
import { SyscallError } from '../../kernel/errors.js';
import { NativeMemory, scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { Descriptor, FileKind, Holder } from '../contract.js';
import { objectOf, refusalOf } from '../description/described.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { FD_TYPE } from '../description/types.js';

/**
 * BPF maps, bpf(2): what they are is in fdinfo and struct bpf_map_info, their contents are read and written whole
 * (BPF_MAP_LOOKUP_BATCH, Linux 5.6), once a map however many descriptions it has. Programs cannot be saved, so a restored
 * map is one that no program knows, and its types (BTF) are gone; CRIU does the same.
 */
const TYPES: ReadonlyMap<number, string> = new Map([
  [B.BPF_MAP_TYPE_HASH, 'hash'],
  [B.BPF_MAP_TYPE_ARRAY, 'array'],
]);

/** It is read into memory, and restored from a tape. */
const BYTES_MAX = 64 << 20;

interface Contents {
  readonly entry: MessageOf<'bpfmap-data'>;
  readonly raw: readonly Uint8Array[];
}

/** By the map's id. */
const contents = perDump(() => new Map<number, Contents>());

export const bpfmap: FileKind = {
  name: 'BPF map',
  support:
    'hash and array maps with their contents, frozen or not; not the programs that use them, and no types (BTF)',
  member: 'bpf',

  recognise: ({ info }) => info.link === 'anon_inode:bpf-map',

  check(descriptor, refuse) {
    const { type, keySize, valueSize, entries } = shapeOf(descriptor);
    const bytes = (keySize + valueSize) * entries;
    const help = 'let the program close it';
    if (!TYPES.has(type))
      refuse(
        refusalOf(descriptor, `it is a BPF map of type ${type}; only hashes and arrays can be saved`, help),
      );
    else if (bytes > BYTES_MAX)
      refuse(refusalOf(descriptor, `it may hold ${bytes} bytes, more than ${BYTES_MAX}`, help));
    if ((descriptor.info.info.flags & O_ACCMODE) !== O_RDWR)
      refuse(
        refusalOf(descriptor, 'it is a BPF map that this descriptor can only read, or only write', help),
      );
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor.info;
    const { type, keySize, valueSize, entries, mapId } = shapeOf(descriptor);
    const { name, ifindex } = readInfo(taken, descriptor);
    if (!contents(context).has(mapId)) contents(context).set(mapId, readContents(taken, descriptor));
    const bpf = {
      id,
      flags: info.flags & ~O_CLOEXEC,
      pos: info.pos,
      fown: dumpOwner(descriptor, taken, context),
      mapType: type,
      keySize,
      valueSize,
      mapId,
      maxEntries: entries,
      mapFlags: numberOf(descriptor, 'map_flags'),
      memlock: BigInt(numberOf(descriptor, 'memlock')),
      frozen: numberOf(descriptor, 'frozen') !== 0,
      mapName: name,
      ifindex,
      mapExtra: BigInt(descriptor.info.info.fields.get('map_extra') ?? '0'),
    };
    return createMessage('files', { type: FD_TYPE.bpf, id, bpf });
  },

  write(context) {
    const all = [...contents(context).values()];
    if (all.length === 0) return;
    context.writer.writeRecords(
      'bpfmap-data',
      null,
      all.map(({ entry, raw }) => ({ message: entry, raw })),
    );
  },

  open({ id, bpf }, holder) {
    if (bpf === undefined) throw new ImageError('files.img', `file ${id} is no BPF map`);
    const key = `bpf map:${bpf.mapId}`;
    if (!made(holder).has(bpf.mapId)) {
      made(holder).add(bpf.mapId);
      makeMap(key, bpf, holder);
    }
    restoreOwner(`file:${id}`, bpf.fown, holder);
    return holder.tape.call('dup', [holder.slot(key)]);
  },
};

const made = perRestore(() => new Set<number>());

function numberOf({ info }: Descriptor, field: string): number {
  const text = info.info.fields.get(field);
  const value = Number(text ?? Number.NaN);
  if (!Number.isSafeInteger(value)) throw new Error(`${info.link}: fdinfo says ${field} is ${text}`);
  return value;
}

function shapeOf(descriptor: Descriptor) {
  return {
    type: numberOf(descriptor, 'map_type'),
    keySize: numberOf(descriptor, 'key_size'),
    valueSize: numberOf(descriptor, 'value_size'),
    entries: numberOf(descriptor, 'max_entries'),
    mapId: numberOf(descriptor, 'map_id'),
  };
}

/** What fdinfo does not say. struct bpf_map_info: name at 24, interface at 40. */
function readInfo(taken: number, descriptor: Descriptor): { name: string; ifindex: number } {
  const { bytes, view, address } = scratch;
  const info = 64;
  bytes.fill(0, 0, info + B.BPF_MAP_INFO_SIZE);
  view.setInt32(0, taken, true);
  view.setUint32(4, B.BPF_MAP_INFO_SIZE, true);
  view.setBigUint64(8, address + BigInt(info), true);
  syscall('bpf', [B.BPF_OBJ_GET_INFO_BY_FD, address, B.BPF_INFO_SIZE], objectOf(descriptor));
  const name = fromCString(bytes.subarray(info + 24, info + 40));
  return { name, ifindex: view.getUint32(info + 40, true) };
}

/** Offsets in union bpf_attr of the commands on many elements. */
const BATCH = { inBatch: 0, outBatch: 8, keys: 16, values: 24, count: 32, fd: 36 };

function readContents(taken: number, descriptor: Descriptor): Contents {
  const { keySize, valueSize, entries, mapId } = shapeOf(descriptor);
  using keys = new NativeMemory(keySize * entries + 1);
  using values = new NativeMemory(valueSize * entries + 1);
  using batch = new NativeMemory(keySize + 8);
  let count = 0;
  for (let isLast = false; !isLast && count < entries; ) {
    const { bytes, view, address } = scratch;
    bytes.fill(0, 0, B.BPF_BATCH_SIZE);
    view.setBigUint64(BATCH.inBatch, count === 0 ? 0n : batch.address, true);
    view.setBigUint64(BATCH.outBatch, batch.address, true);
    view.setBigUint64(BATCH.keys, keys.address + BigInt(count * keySize), true);
    view.setBigUint64(BATCH.values, values.address + BigInt(count * valueSize), true);
    view.setUint32(BATCH.count, entries - count, true);
    view.setInt32(BATCH.fd, taken, true);
    const result = attempt('bpf', [B.BPF_MAP_LOOKUP_BATCH, address, B.BPF_BATCH_SIZE]);
    isLast = result === -ERRNO.ENOENT;
    if (result < 0 && !isLast)
      throw new SyscallError('bpf(BPF_MAP_LOOKUP_BATCH)', -result, objectOf(descriptor));
    count += view.getUint32(BATCH.count, true);
  }
  const raw = [keys.bytes.slice(0, count * keySize), values.bytes.slice(0, count * valueSize)];
  const entry = createMessage('bpfmap-data', {
    mapId,
    keysBytes: count * keySize,
    valuesBytes: count * valueSize,
    count,
  });
  return { entry, raw };
}

const saved = perRestore(
  ({ reader }) =>
    new Map((reader.recordsOptional('bpfmap-data') ?? []).map((record) => [record.message.mapId, record])),
);

/** Entries for one map with its contents. union bpf_attr: name at 28, interface at 44, extra at 64. */
function makeMap(key: string, bpf: bpfmap_file_entry, holder: Holder): void {
  const { tape } = holder;
  const attributes = new Uint8Array(B.BPF_MAP_CREATE_SIZE);
  const view = new DataView(attributes.buffer);
  const words = [bpf.mapType, bpf.keySize, bpf.valueSize, bpf.maxEntries, bpf.mapFlags];
  for (const [at, word] of words.entries()) view.setUint32(at * 4, word, true);
  attributes.set(Buffer.from(bpf.mapName, 'latin1').subarray(0, 15), 28);
  view.setUint32(44, bpf.ifindex, true);
  view.setBigUint64(64, bpf.mapExtra, true);
  const fd = tape.call('bpf', [B.BPF_MAP_CREATE, tape.space(attributes), B.BPF_MAP_CREATE_SIZE]);
  const record = saved(holder).get(bpf.mapId);
  const [keys, values] = record?.raw ?? [];
  if (record !== undefined && record.message.count > 0 && keys !== undefined && values !== undefined) {
    const batch = new Uint8Array(B.BPF_BATCH_SIZE);
    new DataView(batch.buffer).setUint32(BATCH.count, record.message.count, true);
    const space = tape.space(batch);
    tape.pointer(space, BATCH.keys, tape.space(keys));
    tape.pointer(space, BATCH.values, tape.space(values));
    tape.copy(fd, space, BATCH.fd);
    tape.call('bpf', [B.BPF_MAP_UPDATE_BATCH, space, B.BPF_BATCH_SIZE]);
  }
  if (bpf.frozen) {
    const space = tape.space(B.BPF_MAP_CREATE_SIZE);
    tape.copy(fd, space, 0);
    tape.call('bpf', [B.BPF_MAP_FREEZE, space, 4]);
  }
  holder.hold(key, fd);
}
