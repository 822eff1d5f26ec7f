import { readJson } from '../../image/json.js';
import type { ImageReader } from '../../image/reader.js';
import type { DumpContext } from '../contract.js';
import { perDump } from '../description/state.js';
import { type BesideSocket, decodeBeside, type MutableBeside } from './beside-codec.js';

/**
 * stasis-sockets.json: what CRIU's images have no field for, by the socket's id in files.img. CRIU ignores the file; an
 * image without it (CRIU's own) has sockets with what they are made with.
 */
export const BESIDE_FILE = 'stasis-sockets.json';

interface Gathered {
  readonly sockets: Map<number, MutableBeside>;
  isWritten: boolean;
}

const gathered = perDump<Gathered>(() => ({ sockets: new Map(), isWritten: false }));

/** What a dump gathers about a socket; any kind of socket fills it in. */
export function besideOf(context: DumpContext, id: number): MutableBeside {
  const { sockets } = gathered(context);
  const known = sockets.get(id) ?? {};
  sockets.set(id, known);
  return known;
}

/** To be called when every descriptor was dumped, by as many kinds as like. */
export function writeBeside(context: DumpContext): void {
  const all = gathered(context);
  const entries = [...all.sockets].filter(([, beside]) => Object.keys(beside).length > 0);
  if (all.isWritten || entries.length === 0) return;
  all.isWritten = true;
  const text = `${JSON.stringify({ version: 1, sockets: Object.fromEntries(entries) }, undefined, 1)}\n`;
  context.writer.writeBytes(BESIDE_FILE, [Buffer.from(text)]);
}

/** What an image says of a socket besides its entry. Throws ImageError. */
export function besideFor(reader: ImageReader, id: number): BesideSocket {
  return readJson(reader, BESIDE_FILE, decodeBeside)?.get(id) ?? {};
}
