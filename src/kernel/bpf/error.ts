/** The kernel does not show its memory, or has nothing there, or has no such type. */
export class KernelMemoryError extends Error {
  override readonly name = 'KernelMemoryError';
}
