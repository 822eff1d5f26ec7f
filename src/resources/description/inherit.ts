import type { Holder, Result } from '../contract.js';
import { duplicate } from './holder.js';

/** A descriptor of the caller's that stands in for a file of the image (--inherit-fd), or undefined. */
export function inherited(holder: Holder, keys: readonly string[]): Result | undefined {
  for (const key of keys) {
    const fd = holder.options.inheritFds.get(key);
    if (fd !== undefined) return holder.bring(duplicate(fd));
  }
  return undefined;
}
