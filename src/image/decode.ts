import { create, type DescField, type DescMessage, type MessageShape, ScalarType } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { decodeName } from './text.js';

/*
 * What nearly every message of an image is: fields that the schema knows, in their usual encoding, with nothing
 * required left out. A restore decodes thousands of them with code that V8 has not compiled yet; protobuf-es makes
 * several closures a field and walks the message once more for what is required. Here a message is one loop over a
 * table. Whatever it does not expect is left to the general codec, which also finds the words for what is wrong.
 */

interface Field {
  readonly name: string;
  /** As ScalarType, or MESSAGE. */
  readonly type: number;
  readonly wire: number;
  readonly isList: boolean;
  readonly schema: DescMessage | undefined;
  /** The bit of a required field, 0 for others. */
  readonly bit: number;
}

interface Table {
  /** By number. */
  readonly fields: readonly (Field | undefined)[];
  /** Makes an empty message; V8 learns from it how large they become. */
  readonly Message: new () => Message;
  readonly lists: readonly string[];
  /** The bits of all required fields. */
  readonly required: number;
}

type Message = Record<string, unknown>;

const MESSAGE = 0;
const WIRE = { varint: 0, bit64: 1, bytes: 2 } as const;
/** protobuf-es follows a hundred. */
const DEPTH_MAX = 50;

const SCALAR_WIRES: ReadonlyMap<number, number> = new Map([
  [ScalarType.BOOL, WIRE.varint],
  [ScalarType.INT32, WIRE.varint],
  [ScalarType.UINT32, WIRE.varint],
  [ScalarType.SINT32, WIRE.varint],
  [ScalarType.INT64, WIRE.varint],
  [ScalarType.UINT64, WIRE.varint],
  [ScalarType.SINT64, WIRE.varint],
  [ScalarType.FIXED64, WIRE.bit64],
  [ScalarType.STRING, WIRE.bytes],
  [ScalarType.BYTES, WIRE.bytes],
]);

const tables = new WeakMap<DescMessage, Table>();

function tableOf(schema: DescMessage): Table {
  const known = tables.get(schema);
  if (known !== undefined) return known;
  const fields: (Field | undefined)[] = [];
  const lists: string[] = [];
  let required = 0;
  let next = 1;
  for (const field of schema.fields) {
    const isRequired = field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED;
    fields[field.number] = fieldOf(field, isRequired ? next : 0);
    if (field.fieldKind === 'list') lists.push(field.localName);
    if (!isRequired) continue;
    required |= next;
    next <<= 1;
    if (next === 0)
      throw new RangeError(`${schema.typeName} has more required fields than an integer has bits`);
  }
  const table = { fields, Message: constructorOf(schema), lists, required };
  tables.set(schema, table);
  return table;
}

function constructorOf(schema: DescMessage): new () => Message {
  const { typeName } = schema;
  function Message(this: Message): void {
    this.$typeName = typeName;
  }
  // Where protobuf-es keeps what unset fields read as.
  Message.prototype = Object.getPrototypeOf(create(schema));
  return Message as unknown as new () => Message;
}

/** Undefined for what no image has: maps, enumerations, groups, members of a oneof. */
function fieldOf(field: DescField, bit: number): Field | undefined {
  const { localName: name, message: schema } = field;
  const isList = field.fieldKind === 'list';
  if (field.oneof !== undefined) return undefined;
  if (field.fieldKind === 'message' || (isList && field.listKind === 'message'))
    return field.delimitedEncoding
      ? undefined
      : { name, type: MESSAGE, wire: WIRE.bytes, isList, schema, bit };
  if (field.scalar === undefined || field.fieldKind === 'map') return undefined;
  const wire = SCALAR_WIRES.get(field.scalar);
  return wire === undefined ? undefined : { name, type: field.scalar, wire, isList, schema: undefined, bit };
}

/** Thrown and caught here: the message is one for the general codec. */
const UNUSUAL = new Error('an unusual message');

/** What is decoded, and how far: decoding is one synchronous act, and code that nobody has compiled is fastest so. */
const NOTHING = Buffer.alloc(0);
let bytes: Uint8Array = NOTHING;
let text: Buffer = NOTHING;
let at = 0;
/** The two halves of the varint read last. */
let low = 0;
let high = 0;

/** A message, equal to what protobuf-es makes of it; undefined where that has to have a look. */
export function decodeMessage<S extends DescMessage>(
  schema: S,
  encoded: Uint8Array,
): MessageShape<S> | undefined {
  bytes = encoded;
  text = Buffer.from(encoded.buffer, encoded.byteOffset, encoded.byteLength);
  at = 0;
  try {
    return message(schema, encoded.length, 0) as unknown as MessageShape<S>;
  } catch (error) {
    if (error === UNUSUAL) return undefined;
    throw error;
  } finally {
    bytes = NOTHING;
    text = NOTHING;
  }
}

function message(schema: DescMessage, end: number, depth: number): Message {
  if (depth > DEPTH_MAX) throw UNUSUAL;
  const { fields, Message, lists, required } = tableOf(schema);
  const decoded = new Message();
  for (const list of lists) decoded[list] = [];
  let missing = required;
  while (at < end) {
    readVarint();
    const field = fields[low >>> 3];
    if (field === undefined || high !== 0) throw UNUSUAL;
    if (field.isList) readList(field, low, decoded[field.name] as unknown[], end, depth);
    else {
      if ((low & 7) !== field.wire) throw UNUSUAL;
      // One that comes twice is merged.
      if (field.schema !== undefined && Object.hasOwn(decoded, field.name)) throw UNUSUAL;
      missing &= ~field.bit;
      decoded[field.name] = readValue(field, depth);
    }
  }
  if (at !== end || missing !== 0) throw UNUSUAL;
  return decoded;
}

function readList(field: Field, tag: number, items: unknown[], until: number, depth: number): void {
  const wire = tag & 7;
  if (wire === field.wire) {
    if (field.type === ScalarType.UINT32) readWords(tag, items, until);
    else items.push(readValue(field, depth));
    return;
  }
  if (wire !== WIRE.bytes) throw UNUSUAL;
  const end = readLength();
  while (at < end) items.push(readValue(field, depth));
  if (at !== end) throw UNUSUAL;
}

/** Items follow each other, each with its tag: the vector registers of a thread are some 200 small numbers. */
function readWords(tag: number, items: unknown[], until: number): void {
  for (;;) {
    const byte = bytes[at] ?? 0x80;
    if (byte < 0x80) {
      items.push(byte);
      at++;
    } else {
      readVarint();
      items.push(low >>> 0);
    }
    // One tag byte is all that is looked for; a field of a higher number comes here once an item.
    if (at >= until || tag >= 0x80 || bytes[at] !== tag) return;
    at++;
  }
}

/** Where the bytes end whose length is read here. */
function readLength(): number {
  readVarint();
  const end = at + (low >>> 0);
  if (high !== 0 || end > bytes.length) throw UNUSUAL;
  return end;
}

function readValue({ type, schema }: Field, depth: number): unknown {
  if (schema !== undefined) return message(schema, readLength(), depth + 1);
  switch (type) {
    case ScalarType.STRING:
      return readString(readLength());
    case ScalarType.BYTES: {
      const end = readLength();
      const from = at;
      at = end;
      return bytes.subarray(from, end);
    }
    case ScalarType.FIXED64:
      if (at + 8 > bytes.length) throw UNUSUAL;
      at += 8;
      return text.readBigUInt64LE(at - 8);
    default:
      readVarint();
      return numberOf(type);
  }
}

/** The varint read last, as what it means. */
function numberOf(type: number): unknown {
  switch (type) {
    case ScalarType.UINT32:
      return low >>> 0;
    case ScalarType.INT32:
      return low | 0;
    case ScalarType.SINT32:
      return (low >>> 1) ^ -(low & 1);
    case ScalarType.BOOL:
      return low !== 0 || high !== 0;
    case ScalarType.UINT64:
      return wide();
    case ScalarType.INT64:
      return BigInt.asIntN(64, wide());
    case ScalarType.SINT64:
      return (wide() >> 1n) ^ -(wide() & 1n);
    default:
      throw UNUSUAL;
  }
}

/** Names are nearly always plain ASCII, which takes no decoder. */
function readString(end: number): string {
  const from = at;
  at = end;
  for (let index = from; index < end; index++)
    if ((bytes[index] ?? 0) >= 0x80) return decodeName(bytes.subarray(from, end));
  return text.toString('latin1', from, end);
}

function wide(): bigint {
  // User addresses are exact in a number, from which a bigint is made faster than from two halves.
  const upper = high >>> 0;
  if (upper < 0x20_0000) return BigInt(upper * 0x1_0000_0000 + (low >>> 0));
  return (BigInt(upper) << 32n) | BigInt(low >>> 0);
}

function readVarint(): void {
  const first = bytes[at++];
  if (first === undefined) throw UNUSUAL;
  low = first & 0x7f;
  high = 0;
  if (first < 0x80) return;
  for (let shift = 7; shift < 70; shift += 7) {
    const byte = bytes[at++];
    if (byte === undefined) throw UNUSUAL;
    const bits = byte & 0x7f;
    if (shift < 32) low |= bits << shift;
    if (shift === 28) high = bits >>> 4;
    else if (shift > 28) high |= bits << (shift - 32);
    if (byte < 0x80) return;
  }
  throw UNUSUAL;
}
