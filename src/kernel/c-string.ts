/** A string with its zero byte. */
export function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/** What is before the first zero byte: the kernel fills fields for names with them. Nothing of what is not there. */
export function fromCString(bytes: Uint8Array = new Uint8Array()): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString();
}
