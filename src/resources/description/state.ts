import type { DumpContext, Holder } from '../contract.js';

/** State of one dump: made when first asked for, gone with the dump. */
export function perDump<T>(initial: () => T): (context: DumpContext) => T {
  const states = new WeakMap<object, T>();
  return (context) => {
    const known = states.get(context.files);
    if (known !== undefined) return known;
    const made = initial();
    states.set(context.files, made);
    return made;
  };
}

/** State of one restore. */
export function perRestore<T>(initial: (holder: Holder) => T): (holder: Holder) => T {
  const owner = {};
  return (holder) => holder.state(owner, () => initial(holder));
}
