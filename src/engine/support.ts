import { fileKinds, memory, taskStates } from './registry.js';

/**
 * docs/support.md, as the registry says it: what a kind's own module claims to keep is all there is to know of it.
 * `node scripts/support.mjs` writes the file, and a test compares the two.
 */
export function supportPage(): string {
  const threads = taskStates.filter(({ scope }) => scope === 'thread');
  const processes = taskStates.filter(({ scope }) => scope === 'process');
  return [
    '# What is kept',
    '',
    '<!-- Made by scripts/support.mjs from the registry (src/engine/registry.ts); do not edit. -->',
    '',
    'Whatever a process has that is not listed here is refused before anything is frozen, with the process and the object',
    'named. `stasis check --pid PID` tells beforehand.',
    '',
    ...section('Open files', fileKinds),
    ...section('Memory', memory.kinds),
    ...section('State of processes', processes),
    ...section('State of threads', threads),
    ...section('The tree', TREE),
    ...section('Refused so far', REFUSED, 'which'),
  ].join('\n');
}

interface Row {
  readonly name: string;
  readonly support: string;
}

/** What no resource but the engine itself sees to. */
const TREE: readonly Row[] = [
  {
    name: 'processes',
    support:
      'pids, parents, sessions, groups, also of leaders that have ended; zombies with their status; stopped ones',
  },
  { name: 'threads', support: 'their ids, and system calls that were interrupted' },
  { name: 'sharing', support: 'descriptor tables, file system contexts and open file descriptions' },
  { name: 'directories', support: 'working directory, root and umask' },
  {
    name: 'network namespace',
    support:
      'that of whoever saves the tree; or one that stays when the tree is gone (--external net[INODE]:NAME) and is joined by the restore (--join-ns, --inherit-fd); or one that ends with the tree, if it has no device but lo: its state, MTU and addresses, routes, rules of IPv4, sysctls, tables of nftables and iptables, tracked connections. One that ends with the tree is silent as a whole while it stands still; in one that stays the tree’s connections are',
  },
];

const REFUSED: readonly Row[] = [
  {
    name: 'namespaces',
    support: 'trees with namespaces of their own, but time and external network namespaces',
  },
  {
    name: 'userfaultfd, perf events, BPF programs, KVM, FUSE, tun, devices',
    support: 'descriptors of these kinds, each with what would help',
  },
];

function section(title: string, rows: readonly Row[], column = 'kept'): string[] {
  return [
    `## ${title}`,
    '',
    `| what | ${column} |`,
    '|---|---|',
    ...rows.map(({ name, support }) => `| ${cell(name)} | ${cell(support)} |`),
    '',
  ];
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}
