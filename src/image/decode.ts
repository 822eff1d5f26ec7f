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
}

interface Table {
  /** By number. */
  readonly fields: readonly (Field | undefined)[];
  readonly typeName: string;
  /** Where protobuf-es keeps what unset fields read as. */
  readonly prototype: object | null;
  readonly lists: readonly string[];
  readonly required: readonly string[];
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
  const required: string[] = [];
  for (const field of schema.fields) {
    fields[field.number] = fieldOf(field);
    if (field.fieldKind === 'list') lists.push(field.localName);
    if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) required.push(field.localName);
  }
  const prototype = Object.getPrototypeOf(create(schema)) as object | null;
  const table = { fields, typeName: schema.typeName, prototype, lists, required };
  tables.set(schema, table);
  return table;
}

/** Undefined for what no image has: maps, enumerations, groups, members of a oneof. */
function fieldOf(field: DescField): Field | undefined {
  const { localName: name, message: schema } = field;
  const isList = field.fieldKind === 'list';
  if (field.oneof !== undefined) return undefined;
  if (field.fieldKind === 'message' || (isList && field.listKind === 'message'))
    return field.delimitedEncoding ? undefined : { name, type: MESSAGE, wire: WIRE.bytes, isList, schema };
  if (field.scalar === undefined || field.fieldKind === 'map') return undefined;
  const wire = SCALAR_WIRES.get(field.scalar);
  return wire === undefined ? undefined : { name, type: field.scalar, wire, isList, schema: undefined };
}

/** Thrown and caught here: the message is one for the general codec. */
const UNUSUAL = new Error('an unusual message');

/** A message, equal to what protobuf-es makes of it; undefined where that has to have a look. */
export function decodeMessage<S extends DescMessage>(
  schema: S,
  bytes: Uint8Array,
): MessageShape<S> | undefined {
  try {
    return new Decoder(bytes).message(schema, bytes.length, 0) as unknown as MessageShape<S>;
  } catch (error) {
    if (error === UNUSUAL) return undefined;
    throw error;
  }
}

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #text: Buffer;
  #at = 0;
  /** The two halves of the varint read last. */
  #low = 0;
  #high = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  message(schema: DescMessage, end: number, depth: number): Message {
    if (end > this.#bytes.length || depth > DEPTH_MAX) throw UNUSUAL;
    const { fields, typeName, prototype, lists, required } = tableOf(schema);
    const message = Object.create(prototype) as Message;
    message.$typeName = typeName;
    for (const list of lists) message[list] = [];
    while (this.#at < end) {
      this.#varint();
      const field = fields[this.#low >>> 3];
      if (field === undefined || this.#high !== 0) throw UNUSUAL;
      const wire = this.#low & 7;
      if (field.isList) this.#list(field, wire, message[field.name] as unknown[], depth);
      else {
        // One that comes twice is merged.
        if (wire !== field.wire || (field.type === MESSAGE && Object.hasOwn(message, field.name)))
          throw UNUSUAL;
        message[field.name] = this.#value(field, depth);
      }
    }
    if (this.#at !== end) throw UNUSUAL;
    for (const name of required) if (!Object.hasOwn(message, name)) throw UNUSUAL;
    return message;
  }

  #list(field: Field, wire: number, items: unknown[], depth: number): void {
    if (wire === field.wire) {
      items.push(this.#value(field, depth));
      return;
    }
    if (wire !== WIRE.bytes) throw UNUSUAL;
    const end = this.#length();
    while (this.#at < end) items.push(this.#value(field, depth));
    if (this.#at !== end) throw UNUSUAL;
  }

  /** Where the bytes end whose length is read here. */
  #length(): number {
    this.#varint();
    const end = this.#at + (this.#low >>> 0);
    if (this.#high !== 0 || end > this.#bytes.length) throw UNUSUAL;
    return end;
  }

  #value({ type, schema }: Field, depth: number): unknown {
    if (schema !== undefined) return this.message(schema, this.#length(), depth + 1);
    switch (type) {
      case ScalarType.STRING:
        return this.#string(this.#length());
      case ScalarType.BYTES: {
        const end = this.#length();
        const from = this.#at;
        this.#at = end;
        return this.#bytes.subarray(from, end);
      }
      case ScalarType.FIXED64:
        return this.#fixed64();
    }
    this.#varint();
    switch (type) {
      case ScalarType.UINT32:
        return this.#low >>> 0;
      case ScalarType.INT32:
        return this.#low | 0;
      case ScalarType.SINT32:
        return (this.#low >>> 1) ^ -(this.#low & 1);
      case ScalarType.BOOL:
        return this.#low !== 0 || this.#high !== 0;
      case ScalarType.UINT64:
        return this.#wide();
      case ScalarType.INT64:
        return BigInt.asIntN(64, this.#wide());
      case ScalarType.SINT64: {
        const wide = this.#wide();
        return (wide >> 1n) ^ -(wide & 1n);
      }
      default:
        throw UNUSUAL;
    }
  }

  /** Names are nearly always plain ASCII, which takes no decoder. */
  #string(end: number): string {
    const from = this.#at;
    this.#at = end;
    for (let at = from; at < end; at++)
      if ((this.#bytes[at] ?? 0) >= 0x80) return decodeName(this.#bytes.subarray(from, end));
    return this.#text.toString('latin1', from, end);
  }

  #fixed64(): bigint {
    const at = this.#at;
    if (at + 8 > this.#bytes.length) throw UNUSUAL;
    this.#at += 8;
    return this.#text.readBigUInt64LE(at);
  }

  #wide(): bigint {
    const high = this.#high >>> 0;
    const low = this.#low >>> 0;
    // User addresses are exact in a number, from which a bigint is made faster than from two halves.
    if (high < 0x20_0000) return BigInt(high * 0x1_0000_0000 + low);
    return (BigInt(high) << 32n) | BigInt(low);
  }

  #varint(): void {
    const first = this.#bytes[this.#at++];
    if (first === undefined) throw UNUSUAL;
    this.#low = first & 0x7f;
    this.#high = 0;
    if (first < 0x80) return;
    for (let shift = 7; shift < 70; shift += 7) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw UNUSUAL;
      const bits = byte & 0x7f;
      if (shift < 32) this.#low |= bits << shift;
      if (shift === 28) this.#high = bits >>> 4;
      else if (shift > 28) this.#high |= bits << (shift - 32);
      if (byte < 0x80) return;
    }
    throw UNUSUAL;
  }
}
