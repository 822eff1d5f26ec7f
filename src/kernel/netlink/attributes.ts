/**
 * Netlink attributes (include/uapi/linux/netlink.h struct nlattr): u16 length with the header, u16 type, the value,
 * padded to four bytes. The two highest bits of the type are flags.
 */
const HEADER_SIZE = 4;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

/** One attribute by its type: bytes, or nested attributes. */
export type Attribute = readonly [type: number, value: Uint8Array | readonly Attribute[]];

export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  const parts = attributes.map(([type, value]) =>
    value instanceof Uint8Array
      ? encodeOne(type, value)
      : encodeOne(type | NLA_F_NESTED, encodeAttributes(value)),
  );
  return concatenate(parts);
}

function encodeOne(type: number, value: Uint8Array): Uint8Array {
  const length = HEADER_SIZE + value.length;
  const bytes = new Uint8Array(align(length));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, length, true);
  view.setUint16(2, type, true);
  bytes.set(value, HEADER_SIZE);
  return bytes;
}

/** Attributes by type; of several with one type (lists) use `listAttributes`. */
export function decodeAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  return new Map(listAttributes(bytes));
}

/** All attributes in their order; what does not fit in its surroundings ends the list. */
export function listAttributes(bytes: Uint8Array): [type: number, value: Uint8Array][] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: [number, Uint8Array][] = [];
  for (let at = 0; at + HEADER_SIZE <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < HEADER_SIZE || at + length > bytes.length) break;
    found.push([view.getUint16(at + 2, true) & NLA_TYPE_MASK, bytes.subarray(at + HEADER_SIZE, at + length)]);
    at += align(length);
  }
  return found;
}

export function align(length: number): number {
  return (length + 3) & ~3;
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A number of four bytes in the network's order, as packet filters want it. */
export function be32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, false);
  return bytes;
}
