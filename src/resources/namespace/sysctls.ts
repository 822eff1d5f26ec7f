import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { createMessage, type ImageReader } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { Network } from '../../kernel/namespace.js';
import { unlessHidden } from '../../kernel/procfs/error.js';
import { readText } from '../../kernel/procfs/read.js';
import { criuConf, fromCriuConf } from './criu-conf.js';
import { loadDevices } from './devices.js';
import type { Part } from './part.js';

/**
 * Settings below /proc/sys/net that are of one network namespace. All are kept, and those set again that a namespace just
 * born does not have anyway. CRIU's fields for some of them (netns-ID.img) say those that were changed; an image of its own
 * has nothing else.
 */
export interface Sysctls {
  readonly values: ReadonlyMap<string, string>;
  /** Nobody had changed these, so a kernel that has none of the name will do. */
  readonly optional: ReadonlySet<string>;
}

const ROOT = '/proc/sys/net';
const FILE = 'stasis-network.json';
const WRITABLE = 0o200;

function readValues(): Map<string, string> {
  const found = new Map<string, string>();
  for (const entry of readdirSync(ROOT, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = `${entry.parentPath}/${entry.name}`.slice(ROOT.length + 1);
    if (OF_DEVICE.test(path) || !isWritable(path)) continue;
    const value = read(path);
    if (value !== undefined) found.set(path, value);
  }
  return found;
}

/** Those of devices that a namespace is not born with go with the devices. */
const OF_DEVICE = /^ipv[46]\/(conf|neigh)\/(?!(all|default|lo)\/)/;

/** The same in every namespace, and asked while a tree is frozen. */
const writable = new Map<string, boolean>();

function isWritable(path: string): boolean {
  const known = writable.get(path) ?? (statSync(`${ROOT}/${path}`).mode & WRITABLE) !== 0;
  writable.set(path, known);
  return known;
}

/** Undefined of what shows nothing: a secret that nobody has set, a button. */
function read(path: string): string | undefined {
  return unlessHidden(() => readText(`${ROOT}/${path}`).replace(/\n$/, ''));
}

const changes = new WeakMap<Sysctls, ReadonlyMap<string, string>>();

/** What is not as at the birth of a namespace on this host. */
export function changedSysctls(sysctls: Sysctls): ReadonlyMap<string, string> {
  const known = changes.get(sysctls);
  if (known !== undefined) return known;
  using _ = Network.fresh();
  const fresh = readValues();
  const changed = new Map([...sysctls.values].filter(([path, value]) => fresh.get(path) !== value));
  changes.set(sysctls, changed);
  return changed;
}

export const sysctls: Part<Sysctls> = {
  name: 'sysctls',
  read: () => ({ values: readValues(), optional: new Set() }),
  lines: ({ values }) => [...values].map(([path, value]) => `net/${path} = ${value}`),

  /** Some set others with them (forwarding), so all are looked at again. */
  build({ values, optional }) {
    // Those of all devices come before those of one.
    const paths = [...values.keys()].sort((a, b) => rankOf(a) - rankOf(b) || (a < b ? -1 : 1));
    for (let round = 0; round < ROUNDS; round++)
      for (const path of paths) {
        const [there, wanted] = [read(path), values.get(path) ?? ''];
        if (there !== wanted && (there !== undefined || !optional.has(path))) set(path, wanted);
      }
  },

  write(content, writer, id) {
    const changed = changedSysctls(content);
    const { values } = content;
    const unchanged = [...values.keys()].filter((path) => !changed.has(path));
    const text = JSON.stringify({ version: 1, sysctls: Object.fromEntries(values), unchanged }, undefined, 1);
    writer.writeBytes(FILE, [Buffer.from(`${text}\n`)]);
    writer.write('netns', id, [
      createMessage('netns', {
        defConf4: criuConf(changed, 'ipv4', 'default'),
        allConf4: criuConf(changed, 'ipv4', 'all'),
        defConf6: criuConf(changed, 'ipv6', 'default'),
        allConf6: criuConf(changed, 'ipv6', 'all'),
      }),
    ]);
  },

  load: (reader, id) => readJson(reader, FILE, decode) ?? criuSysctls(reader, id),
};

function criuSysctls(reader: ImageReader, id: number): Sysctls {
  const values = fromCriuConf(reader.readOptional('netns', id)?.[0], loadDevices(reader, id));
  [...values.keys()].forEach(insistOnPath);
  return { values, optional: new Set(values.keys()) };
}

const ROUNDS = 2;

function rankOf(path: string): number {
  return path.includes('/conf/all/') ? 0 : path.includes('/conf/default/') ? 1 : 2;
}

function set(path: string, value: string): void {
  try {
    writeFileSync(`${ROOT}/${path}`, value);
  } catch (error) {
    const { message } = error as Error;
    throw new Error(
      `the sysctl net/${path} of the tree's network namespace cannot be set to "${value}": ${message}`,
    );
  }
}

/** Below /proc/sys/net, whatever an image says. */
const PATH = /^[\w-]+(\/[\w.:-]*[\w:-])+$/;

function insistOnPath(path: string): void {
  if (!PATH.test(path)) throw new Error(`${JSON.stringify(path)} is no sysctl`);
}

function decode(content: unknown): Sysctls {
  if (!isRecord(content) || content.version !== 1) throw new Error('is of another version');
  const { sysctls, unchanged } = content;
  if (!isRecord(sysctls)) throw new Error('has no sysctls');
  if (!Array.isArray(unchanged)) throw new Error('does not say which of them are unchanged');
  const values = new Map(
    Object.entries(sysctls).map(([path, value]) => {
      insistOnPath(path);
      if (typeof value !== 'string') throw new Error(`the value of ${path} is no text`);
      return [path, value];
    }),
  );
  return { values, optional: new Set(unchanged.map(String)) };
}
