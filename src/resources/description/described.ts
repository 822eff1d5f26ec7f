import type { Descriptor, DumpContext, Refusal } from '../contract.js';
import { nameOf } from '../contract.js';

/** "descriptor 7 (/tmp/log)"; links without a descriptor number (cwd, exe) have −1. */
export function objectOf({ fd, info, isInFlight }: Descriptor): string {
  if (isInFlight === true) return `descriptor in flight (${info.link})`;
  return fd < 0 ? info.link : `descriptor ${fd} (${info.link})`;
}

export function refusalOf(descriptor: Descriptor, reason: string, help?: string): Refusal {
  const refusal = { task: nameOf(descriptor.process), object: objectOf(descriptor), reason };
  return help === undefined ? refusal : { ...refusal, help };
}

/** What a check before the freeze accepted looks otherwise now; `refuse` ends the dump by an exception. */
export function refuseNow(
  context: DumpContext,
  descriptor: Descriptor,
  reason: string,
  help?: string,
): never {
  context.refuse(refusalOf(descriptor, reason, help));
  throw new Error(`${objectOf(descriptor)}: ${reason}`);
}
