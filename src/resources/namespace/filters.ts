import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import * as N from '../../abi/netfilter.js';
import { AF_UNSPEC } from '../../abi/socket.js';
import type { ImageReader, ImageWriter } from '../../image/index.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_NETFILTER } from '../../kernel/netlink/socket.js';
import { ask } from './messages.js';
import type { Part } from './part.js';

/**
 * Packet filters: tables of nftables, and of the older iptables. Images have them as text, in the languages of nft(8) and
 * iptables-save(8), which only those programs speak; they are started where there is a table, or text of one.
 */
function file(prefix: string) {
  return {
    isLate: true,
    write: (text: string, writer: ImageWriter, id: number): void =>
      writer.writeBytes(`${prefix}-${id}.img`, [Buffer.from(text)]),
    load: (reader: ImageReader, id: number): string =>
      Buffer.from(reader.bytes(`${prefix}-${id}.img`) ?? new Uint8Array()).toString(),
  };
}

const FAMILIES: Readonly<Record<number, string>> = {
  1: 'inet',
  2: 'ip',
  3: 'arp',
  5: 'netdev',
  7: 'bridge',
  10: 'ip6',
};
/** Tables of ours, which go when we do (socket/lock.ts). */
const OURS = /^stasis-\d+-\d+$/;

export const nftables: Part<string> = {
  name: 'tables of nftables',
  read() {
    const tables = ask(NETLINK_NETFILTER, (N.NFNL_SUBSYS_NFTABLES << 8) | N.NFT_MSG_GETTABLE, nfgenmsg())
      .map(({ body }) => ({ family: FAMILIES[body[0] ?? 0] ?? '', name: nameOf(body) }))
      .filter(({ name }) => !OURS.test(name));
    if (tables.length === 0) return '';
    return run(['nft'], [tables.map(({ family, name }) => `list table ${family} ${name}`).join('; ')]);
  },
  lines: (text) => linesOf(text, / packets \d+ bytes \d+| used \d+ \w+| expires \w+/g),
  build(text) {
    if (text !== '') run(['nft'], ['-f', '-'], text);
  },
  ...file('nftables'),
};

function nfgenmsg(): Uint8Array {
  return Uint8Array.of(AF_UNSPEC, 0, 0, 0);
}

function nameOf(body: Uint8Array): string {
  const name = decodeAttributes(body.subarray(4)).get(N.NFTA_TABLE_NAME) ?? new Uint8Array();
  return Buffer.from(name).toString().replace(/\0.*$/s, '');
}

/** Those that are no front for nftables come first. */
function iptablesOf(prefix: 'iptables' | 'ip6tables', list: string): Part<string> {
  const programs = (verb: string): string[] => [`${prefix}-legacy-${verb}`, `${prefix}-${verb}`];
  return {
    name: `tables of ${prefix}`,
    read: () => (textOf(`/proc/thread-self/net/${list}`) === '' ? '' : run(programs('save'), ['-c'])),
    lines: (text) => linesOf(text, /^#.*|^\[\d+:\d+\] |\[\d+:\d+\]/gm),
    build(text) {
      if (text !== '') run(programs('restore'), ['-c'], text);
    },
    ...file(prefix),
  };
}

export const iptables = iptablesOf('iptables', 'ip_tables_names');
export const ip6tables = iptablesOf('ip6tables', 'ip6_tables_names');

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function linesOf(text: string, volatile: RegExp): string[] {
  return text
    .replace(volatile, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** The first of the programs that is there. */
function run(programs: readonly string[], words: readonly string[], input = ''): string {
  for (const program of programs) {
    const { error, status, stdout, stderr } = spawnSync(program, words, {
      input,
      encoding: 'utf8',
      maxBuffer: ROOM,
    });
    if (error !== undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') continue;
    if (error !== undefined || status !== 0)
      throw new Error(`${program} ${words.join(' ')} failed: ${error?.message ?? stderr.trim()}`);
    return stdout;
  }
  throw new Error(`packet filters need ${programs[0]}, which is not installed here`);
}

const ROOM = 64 << 20;
