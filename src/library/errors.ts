import { z } from 'zod';
import { MoveError, RestoreError, UnsupportedError } from '../engine/errors.js';
import { ImageError } from '../image/errors.js';
import { SyscallError } from '../kernel/errors.js';

/** What was asked for was called off before it was done; nothing of it is left. */
export class CancelledError extends Error {
  readonly code = 'ECANCELLED';

  constructor(message = 'cancelled', options?: ErrorOptions) {
    super(message, options);
    this.name = 'CancelledError';
  }
}

/** The engine's process ended, or could not be started, while something was asked of it. */
export class EngineLostError extends Error {
  readonly code = 'EENGINELOST';

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'EngineLostError';
  }
}

/*
 * Errors between processes: the class by name, with what its constructor takes, so that `instanceof` and all fields
 * hold on the other side. Errors of other classes keep their name, code, message and stack.
 */

const refusal = z.object({
  task: z.string(),
  object: z.string(),
  reason: z.string(),
  help: z.string().optional(),
});

const fields = { message: z.string(), stack: z.string().optional() };

interface Common {
  readonly message: string;
  readonly stack?: string | undefined;
  readonly cause?: EncodedError | undefined;
}
export type EncodedError = Common &
  (
    | {
        readonly kind: 'syscall';
        readonly call: string;
        readonly errno: number;
        readonly object?: string | undefined;
      }
    | { readonly kind: 'unsupported'; readonly items: readonly z.infer<typeof refusal>[] }
    | { readonly kind: 'image'; readonly file: string; readonly offset?: number | undefined }
    | { readonly kind: 'restore'; readonly code: string }
    | { readonly kind: 'move'; readonly source_state: 'running' | 'stopped' }
    | { readonly kind: 'cancelled' }
    | { readonly kind: 'other'; readonly name: string; readonly code?: string | undefined }
  );

export const encodedError: z.ZodType<EncodedError> = z.lazy(() => {
  const common = { ...fields, cause: encodedError.optional() };
  return z.discriminatedUnion('kind', [
    z.object({
      kind: z.literal('syscall'),
      ...common,
      call: z.string(),
      errno: z.number(),
      object: z.string().optional(),
    }),
    z.object({ kind: z.literal('unsupported'), ...common, items: z.array(refusal) }),
    z.object({ kind: z.literal('image'), ...common, file: z.string(), offset: z.number().optional() }),
    z.object({ kind: z.literal('restore'), ...common, code: z.string() }),
    z.object({ kind: z.literal('move'), ...common, source_state: z.enum(['running', 'stopped']) }),
    z.object({ kind: z.literal('cancelled'), ...common }),
    z.object({ kind: z.literal('other'), ...common, name: z.string(), code: z.string().optional() }),
  ]);
});

/** Causes of causes end here, so that a cycle does. */
const CAUSES_MAX = 8;

export function encodeError(error: unknown, depth = 0): EncodedError {
  if (!(error instanceof Error)) return { kind: 'other', name: 'Error', message: String(error) };
  const { message, stack } = error;
  const cause =
    error.cause === undefined || depth >= CAUSES_MAX ? undefined : encodeError(error.cause, depth + 1);
  const common = { message, stack, cause };
  if (error instanceof SyscallError)
    return { kind: 'syscall', ...common, call: error.call, errno: error.errno, object: error.object };
  if (error instanceof UnsupportedError) return { kind: 'unsupported', ...common, items: [...error.items] };
  if (error instanceof ImageError)
    return { kind: 'image', ...common, file: error.file, offset: error.offset };
  if (error instanceof RestoreError) return { kind: 'restore', ...common, code: error.code };
  if (error instanceof MoveError) return { kind: 'move', ...common, source_state: error.sourceState };
  if (error instanceof CancelledError) return { kind: 'cancelled', ...common };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  return { kind: 'other', ...common, name: error.name, code };
}

export function decodeError(encoded: EncodedError): Error {
  const error = construct(encoded);
  // Constructors make a message of their own; the one that was thrown counts.
  error.message = encoded.message;
  if (encoded.stack !== undefined) error.stack = encoded.stack;
  if (encoded.cause !== undefined) error.cause = decodeError(encoded.cause);
  return error;
}

function construct(encoded: EncodedError): Error {
  switch (encoded.kind) {
    case 'syscall':
      return new SyscallError(encoded.call, encoded.errno, encoded.object);
    case 'unsupported':
      return new UnsupportedError(
        encoded.items.map(({ help, ...rest }) => (help === undefined ? rest : { ...rest, help })),
      );
    case 'image':
      return new ImageError(
        encoded.file,
        encoded.message,
        encoded.offset === undefined ? {} : { offset: encoded.offset },
      );
    case 'restore':
      return new RestoreError(encoded.message, encoded.code);
    case 'move':
      return new MoveError(encoded.message, encoded.source_state);
    case 'cancelled':
      return new CancelledError(encoded.message);
    case 'other':
      return Object.assign(new Error(encoded.message), {
        name: encoded.name,
        ...(encoded.code === undefined ? {} : { code: encoded.code }),
      });
    default:
      return encoded satisfies never;
  }
}
