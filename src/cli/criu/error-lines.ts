import { describeRefusal, RestoreError, UnsupportedError } from '../../engine/errors.js';
import { ImageError } from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';

/** What the log says of an error: one line for each reason of a refusal, and the cause where it says more. */
export function linesOf(error: unknown): { area: string; text: string } {
  if (error instanceof UnsupportedError)
    return {
      area: 'dump',
      text: error.items.map((item) => `Cannot dump ${describeRefusal(item)}`).join('\n'),
    };
  return { area: areaOf(error), text: withCause(error) };
}

function areaOf(error: unknown): string {
  if (error instanceof ImageError) return 'image';
  if (error instanceof RestoreError) return 'restore';
  if (error instanceof SyscallError) return error.call;
  return 'criu';
}

function withCause(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  return cause instanceof Error && !error.message.includes(cause.message)
    ? `${error.message} (${cause.message})`
    : error.message;
}
