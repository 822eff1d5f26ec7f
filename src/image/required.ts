import type { DescField, DescMessage, MessageShape } from '@bufbuild/protobuf';
import { isFieldSet } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';

/*
 * protobuf-es checks required fields when it writes, not when it reads. CRIU checks both, and what comes after
 * must be able to rely on them: so a decoded message is walked once more. What to look at is worked out once per
 * schema; most of a message's fields are scalars that this never touches.
 */

interface Plan {
  readonly required: readonly DescField[];
  readonly inner: readonly {
    readonly field: DescField;
    readonly schema: DescMessage;
    readonly list: boolean;
  }[];
}

const plans = new WeakMap<DescMessage, Plan>();

function planOf(schema: DescMessage): Plan {
  const known = plans.get(schema);
  if (known !== undefined) return known;
  const plan: Plan = {
    required: schema.fields.filter((field) => field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED),
    inner: schema.fields.flatMap((field) => {
      if (field.message === undefined || field.fieldKind === 'map') return [];
      return [{ field, schema: field.message, list: field.fieldKind === 'list' }];
    }),
  };
  plans.set(schema, plan);
  return plan;
}

/** The path of the first required field that a message lacks, as in `fown.uid`; undefined when it is complete. */
export function missingField<S extends DescMessage>(schema: S, message: MessageShape<S>): string | undefined {
  const plan = planOf(schema);
  for (const field of plan.required) {
    if (!isFieldSet(message, field)) return field.name;
  }
  const values = message as unknown as Record<string, unknown>;
  for (const { field, schema: inner, list } of plan.inner) {
    const value = values[field.localName];
    if (value === undefined) continue;
    const items = (list ? value : [value]) as MessageShape<DescMessage>[];
    for (const [index, item] of items.entries()) {
      const missing = missingField(inner, item);
      if (missing !== undefined) return `${field.name}${list ? `[${index}]` : ''}.${missing}`;
    }
  }
  return undefined;
}
