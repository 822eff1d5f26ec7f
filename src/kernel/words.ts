/** Numbers of four bytes, modulo 2³², in the host's order, one after the other. */
export function words(numbers: readonly number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(numbers).buffer);
}
