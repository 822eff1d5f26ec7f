import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import {
  create,
  type DescField,
  type DescMessage,
  fromBinary,
  ScalarType,
  toBinary,
} from '@bufbuild/protobuf';
import fc from 'fast-check';
import { ImageCursor, readMagic } from './codec.js';
import { decodeMessage } from './decode.js';
import { KINDS, type KindName, kindOf, kindOfFile } from './kinds.js';
import { missingField } from './required.js';
import { CRIU_IMAGES, criuImage } from './testing.js';
import { withNames } from './text.js';

function general(schema: DescMessage, bytes: Uint8Array): unknown {
  return withNames(() => fromBinary(schema, bytes));
}

/** Any message of a schema, with everything that is required. */
function anyOf(schema: DescMessage, depth = 0): fc.Arbitrary<Record<string, unknown>> {
  const fields: Record<string, fc.Arbitrary<unknown>> = {};
  const requiredKeys: string[] = [];
  for (const field of schema.fields) {
    const isRequired = field.presence === 3;
    if (!isRequired && depth > 2) continue;
    const one = anyValueOf(field, depth);
    fields[field.localName] = field.fieldKind === 'list' ? fc.array(one, { maxLength: 3 }) : one;
    if (isRequired) requiredKeys.push(field.localName);
  }
  return fc.record(fields, { requiredKeys });
}

function anyValueOf(field: DescField, depth: number): fc.Arbitrary<unknown> {
  const { message, scalar } = field;
  if (message !== undefined) return anyOf(message, depth + 1);
  switch (scalar) {
    case ScalarType.STRING:
      return fc.string({ unit: 'binary', maxLength: 6 });
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 6 });
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.UINT32:
      return fc.nat(0xffff_ffff);
    case ScalarType.INT32:
    case ScalarType.SINT32:
      return fc.integer();
    case ScalarType.INT64:
    case ScalarType.SINT64:
      return fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n });
    default:
      return fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
  }
}

describe('the decoder for usual messages', () => {
  for (const kind of Object.keys(KINDS) as KindName[])
    it(`makes of any ${kind} what the general codec does`, () => {
      const { schema } = kindOf(kind);
      fc.assert(
        fc.property(anyOf(schema), (init) => {
          const bytes = withNames(() => toBinary(schema, create(schema, init)));
          assert.deepEqual(decodeMessage(schema, bytes), general(schema, bytes));
        }),
        { numRuns: 30 },
      );
    });

  it('is the one for every message that CRIU wrote', () => {
    for (const image of CRIU_IMAGES)
      for (const name of readdirSync(criuImage(image))) {
        const known = kindOfFile(name);
        const kind = known === undefined ? undefined : kindOf(known.kind);
        if (kind === undefined || kind.raw !== undefined) continue;
        const cursor = new ImageCursor(name, readFileSync(path.join(criuImage(image), name)));
        readMagic(cursor, kind);
        while (cursor.left > 0) {
          const bytes = cursor.take(cursor.u32('length'), 'a message');
          assert.deepEqual(decodeMessage(kind.schema, bytes), general(kind.schema, bytes), name);
        }
      }
  });

  it('leaves what is damaged to the general codec, and accepts nothing that lacks a field', () => {
    const { schema } = kindOf('core');
    const sample = readFileSync(path.join(criuImage('tiny'), 'core-23.img')).subarray(12);
    fc.assert(
      fc.property(fc.nat(sample.length - 1), fc.nat(255), fc.boolean(), (at, byte, cut) => {
        const bytes = Uint8Array.from(cut ? sample.subarray(0, at) : sample);
        if (!cut) bytes[at] = byte;
        const message = decodeMessage(schema, bytes);
        if (message === undefined) return;
        assert.deepEqual(message, general(schema, bytes));
        assert.equal(missingField(schema, message), undefined);
      }),
      { numRuns: 2000 },
    );
  });
});
