import { z } from 'zod';
import { encodedError } from './errors.js';
import type { Results } from './results.js';

/**
 * Between a caller's process and its engine: JSON, a message a line, on a Unix stream socket that the engine finds
 * as descriptor 3. The caller sends `call` and `cancel`; the engine answers every call with any number of `phase`
 * and one `result` or `error`, in the order of the calls, and tells of the end of roots it restored with `exit`. The
 * end of the stream ends the engine; what it was doing is undone first.
 */

export const ENGINE_FD = 3;
const LINE_BYTES_MAX = 256 * 1024 * 1024;

const id = z.number().int().nonnegative();

export const toEngine = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('call'),
    id,
    method: z.enum(['checkpoint', 'restore', 'inspect', 'plan', 'check', 'pack', 'unpack', 'unlock']),
    options: z.unknown(),
  }),
  z.object({ type: z.literal('cancel'), id }),
]);
export type ToEngine = z.infer<typeof toEngine>;

const exitStatus = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('exited'), status: z.number() }),
  z.object({ kind: z.literal('killed'), signal: z.number(), core_dumped: z.boolean() }),
]);

export const fromEngine = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ready'), pid: z.number().int() }),
  z.object({ type: z.literal('phase'), id, name: z.string(), elapsed_ms: z.number() }),
  // The engine is ours: its results are as typed.
  z.object({
    type: z.literal('result'),
    id,
    value: z.custom<Results[keyof Results]>((value) => typeof value === 'object'),
  }),
  z.object({ type: z.literal('error'), id, error: encodedError }),
  z.object({ type: z.literal('exit'), pid: z.number().int(), status: exitStatus }),
]);
export type FromEngine = z.infer<typeof fromEngine>;

/** Cuts a stream of bytes into lines. */
export class Lines {
  #rest: Buffer[] = [];
  #length = 0;

  /** The lines that `chunk` completes. @throws RangeError when a line becomes longer than any message is */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      this.#rest.push(chunk.subarray(start, end));
      lines.push(Buffer.concat(this.#rest).toString());
      this.#rest = [];
      this.#length = 0;
      start = end + 1;
    }
    if (start < chunk.length) {
      // The chunk's memory may be the reader's buffer, which is used again.
      this.#rest.push(Buffer.from(chunk.subarray(start)));
      this.#length += chunk.length - start;
      if (this.#length > LINE_BYTES_MAX) throw new RangeError('message longer than 256 MiB');
    }
    return lines;
  }
}
