import { spawnSync } from 'node:child_process';
import * as N from '../../abi/netfilter.js';
import { fromCString } from '../../kernel/c-string.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { PASSING_NOTE } from '../../kernel/netlink/nftables.js';
import { NETLINK_NETFILTER } from '../../kernel/netlink/socket.js';
import { imageFile } from './image-file.js';
import { ask, familyHeader } from './messages.js';
import { linesOfNet } from './net-files.js';
import type { Part } from './part.js';

/**
 * Packet filters: tables of nftables, and of the older iptables. Images have them as text, in the languages of nft(8) and
 * iptables-save(8), which only those programs speak; they are started where there is a table, or text of one.
 */
function textFile(prefix: string, check: (text: string) => string) {
  return imageFile<string>(
    prefix,
    (text) => Buffer.from(text),
    (bytes) => check(Buffer.from(bytes).toString()),
  );
}

const FAMILIES: Readonly<Record<number, string>> = {
  1: 'inet',
  2: 'ip',
  3: 'arp',
  5: 'netdev',
  7: 'bridge',
  10: 'ip6',
};
/** Others cannot be said in the language of nft(8). */
const SAYABLE = /^\w+ [\w./-]+$/;

export const nftables: Part<string> = {
  name: 'tables of nftables',
  isLate: true,
  read() {
    const tables = ask(
      NETLINK_NETFILTER,
      (N.NFNL_SUBSYS_NFTABLES << 8) | N.NFT_MSG_GETTABLE,
      familyHeader(N.NFGENMSG_SIZE),
    )
      .filter(({ body }) => !isPassing(body))
      .map(({ body }) => `${FAMILIES[body[0] ?? 0] ?? ''} ${nameOf(body)}`);
    for (const table of tables)
      if (!SAYABLE.test(table))
        throw new Error(`nft has no words for a table called ${JSON.stringify(table)}`);
    if (tables.length === 0) return '';
    return run(['nft'], [tables.map((table) => `list table ${table}`).join('; ')]);
  },
  lines: (text) => linesOf(text, / packets \d+ bytes \d+| used \d+ \w+| expires \w+/g),
  build(text) {
    if (text !== '') run(['nft'], ['-f', '-'], checkedNft(text));
  },
  ...textFile('nftables', checkedNft),
};

/** Tables of ours, which go when we do (socket/lock.ts). */
function isPassing(body: Uint8Array): boolean {
  const note = decodeAttributes(body.subarray(N.NFGENMSG_SIZE)).get(N.NFTA_TABLE_USERDATA);
  return (
    note !== undefined &&
    PASSING_NOTE.length === note.length &&
    PASSING_NOTE.every((byte, at) => byte === note[at])
  );
}

/**
 * It would have any file read. nft(8) never writes it; what a program has put into a comment may look like it, and is
 * taken for it rather than that the grammar of nft is told apart here.
 */
function checkedNft(text: string): string {
  if (/(^|[;{}])\s*include\b/m.test(text)) throw new Error('a line of it is an "include"');
  return text;
}

function nameOf(body: Uint8Array): string {
  return fromCString(decodeAttributes(body.subarray(N.NFGENMSG_SIZE)).get(N.NFTA_TABLE_NAME));
}

/** Those that are no front for nftables come first. */
function iptablesOf(prefix: 'iptables' | 'ip6tables', list: string): Part<string> {
  const programs = (verb: string): string[] => [`${prefix}-legacy-${verb}`, `${prefix}-${verb}`];
  return {
    name: `tables of ${prefix}`,
    isLate: true,
    read() {
      const tables = linesOfNet(list);
      if (tables.length === 0) return '';
      const text = run(programs('save'), ['-c']);
      const lost = tables.find((table) => !text.split('\n').includes(`*${table}`));
      // A front for nftables shows none of them.
      if (lost !== undefined) throw new Error(`the table ${lost} is shown only by ${programs('save')[0]}`);
      return text;
    },
    lines: (text) => linesOf(text, /^#.*|^\[\d+:\d+\] |\[\d+:\d+\]/gm),
    build(text) {
      if (text !== '') run(programs('restore'), ['-c'], checkedIptables(text));
    },
    ...textFile(prefix, checkedIptables),
  };
}

export const iptables = iptablesOf('iptables', 'ip_tables_names');
export const ip6tables = iptablesOf('ip6tables', 'ip6_tables_names');

/**
 * -M, --modprobe is a program to be run (iptables(8)). Options can be quoted, cut short, and joined; iptables-save(8) does
 * nothing of that, so whatever could be it is taken for it.
 */
function checkedIptables(text: string): string {
  for (const word of text.replace(/["'\\]/g, '').split(/\s+/)) {
    const [, long] = /^--([^=]+)/.exec(word) ?? [];
    if (/^-[^-]*M/.test(word) || (long !== undefined && 'modprobe'.startsWith(long)))
      throw new Error(`a rule of it has ${word}, a program to be run`);
  }
  return text;
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
      timeout: LIMIT_ms,
      killSignal: 'SIGKILL',
    });
    if (error !== undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') continue;
    if (error !== undefined || status !== 0)
      throw new Error(`${program} ${words.join(' ')} failed: ${error?.message ?? stderr.trim()}`);
    return stdout;
  }
  throw new Error(`packet filters need ${programs[0]}, which is not installed here`);
}

const ROOM = 64 << 20;
/** A tree may be frozen meanwhile. */
const LIMIT_ms = 30_000;
