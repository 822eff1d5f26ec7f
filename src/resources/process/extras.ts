import { readJson } from '../../image/json.js';
import type { ImageReader } from '../../image/reader.js';
import type { DumpContext } from '../contract.js';
import { decodeExtras, type MutableExtras, type TaskExtras } from './extras-codec.js';

/**
 * stasis-tasks.json: what CRIU's core image has no field for, by thread. CRIU ignores the file; an image without it
 * (CRIU's own) is restored with what restored tasks inherit.
 */
export const EXTRAS_FILE = 'stasis-tasks.json';

const beingDumped = new WeakMap<DumpContext, Map<number, MutableExtras>>();

/** What a dump gathers about a thread, by its id in the image; states fill it in. */
export function extrasOf(context: DumpContext, insideTid: number): MutableExtras {
  const all = beingDumped.get(context) ?? new Map<number, MutableExtras>();
  beingDumped.set(context, all);
  const extras = all.get(insideTid) ?? {};
  all.set(insideTid, extras);
  return extras;
}

export function writeExtras(context: DumpContext): void {
  const tasks: Record<string, unknown> = {};
  for (const [tid, extras] of beingDumped.get(context) ?? []) tasks[tid] = encode(extras);
  const text = `${JSON.stringify({ version: 1, tasks }, undefined, 1)}\n`;
  context.writer.writeBytes(EXTRAS_FILE, [Buffer.from(text)]);
}

function encode(extras: TaskExtras): unknown {
  if (extras.xstate === undefined) return extras;
  const xstate: Record<string, string> = {};
  for (const [feature, bytes] of extras.xstate) xstate[feature] = Buffer.from(bytes).toString('base64');
  return { ...extras, xstate };
}

/** What an image says of a thread besides its core; undefined where it says nothing. Throws ImageError. */
export function extrasFor(reader: ImageReader, tid: number): TaskExtras | undefined {
  return readJson(reader, EXTRAS_FILE, decodeExtras)?.get(tid);
}
