import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { F_GETOWN, F_GETPIPE_SZ } from '../abi/fcntl.js';
import { SIGALRM } from '../abi/signal.js';
import {
  IPPROTO_TCP,
  SO_PEEK_OFF,
  SO_PROTOCOL,
  SO_REUSEADDR,
  SOL_SOCKET,
  SOL_TCP,
  TCP_REPAIR,
} from '../abi/socket.js';
import { SyscallError } from '../kernel/errors.js';
import { scratch } from '../kernel/memory.js';
import { listTables, openNftables } from '../kernel/netlink/nftables.js';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt, syscall } from '../kernel/syscall.js';

/**
 * All of a tree, and of the host around it, that is visible from outside: what a failed dump must leave as it was.
 *
 * Left out, because they change by themselves or say nothing that a program could notice:
 * - times, counts of faults and context switches, resident sizes and their peaks (a workspace that came and went is in
 *   VmPeak and VmHWM; the counters are the kernel's statistics, as are those of I/O);
 * - whether a task runs or sleeps (R, S and D are one), and on which processor; but stopped, traced and dead are told apart;
 * - how many signals are queued for a user (SigQ), whichever process has them; and whether the program's own SIGALRM is
 *   pending just then;
 * - contents of unused stack, below the red zone;
 * - the number in /proc/PID/syscall: a wait that was continued is a restart_syscall(2) from then on.
 */
export type Snapshot = ReadonlyMap<string, string>;

const STATUS_LEFT_OUT =
  /^(VmPeak|VmHWM|VmRSS|RssAnon|RssFile|RssShmem|VmPTE|VmSwap|HugetlbPages|SigQ|voluntary_ctxt_switches|nonvoluntary_ctxt_switches|Cpus_allowed_list|Mems_allowed_list|SpeculationIndirectBranch):/;

/** Fields of /proc/PID/stat that stay, by their number in proc_pid_stat(5). */
const STAT_KEPT = [4, 5, 6, 7, 8, 18, 19, 20, 25, 26, 27, 28, 38, 40, 41, 45, 46, 47, 48, 49, 50, 51];

/** Files of a process that are compared as they are. */
const PROCESS_FILES = [
  'maps',
  'limits',
  'timers',
  'cgroup',
  'oom_score_adj',
  'coredump_filter',
  'personality',
  'cmdline',
  'loginuid',
  'mountinfo',
];
const THREAD_FILES = ['comm', 'children', 'timerslack_ns'];
const PROCESS_LINKS = ['cwd', 'root', 'exe'];

const HOST_FILES = [
  '/proc/self/mountinfo',
  '/proc/net/dev_mcast',
  '/proc/net/route',
  '/proc/net/if_inet6',
  '/proc/net/unix',
  '/proc/sysvipc/shm',
  '/proc/sysvipc/sem',
  '/proc/sysvipc/msg',
  '/sys/fs/cgroup/cgroup.events',
];

/** Of the tree below `root`; empty when it is gone. */
export function snapshotTree(root: number): Snapshot {
  const found = new Map<string, string>();
  let tree: ReturnType<typeof readTree>;
  try {
    tree = readTree(root);
  } catch {
    return found;
  }
  for (const { pid, tids, children } of tree) {
    found.set(`${pid} children`, children.join());
    found.set(`${pid} threads`, tids.join());
    for (const file of PROCESS_FILES) found.set(`${pid} ${file}`, read(`/proc/${pid}/${file}`));
    for (const link of PROCESS_LINKS) found.set(`${pid} ${link}`, linkOf(`/proc/${pid}/${link}`));
    for (const name of list(`/proc/${pid}/ns`))
      found.set(`${pid} ns ${name}`, linkOf(`/proc/${pid}/ns/${name}`));
    found.set(`${pid} freezer`, freezerOf(found.get(`${pid} cgroup`) ?? ''));
    snapshotDescriptors(pid, found);
    for (const tid of tids) snapshotThread(pid, tid, found);
  }
  return found;
}

function snapshotThread(pid: number, tid: number, found: Map<string, string>): void {
  const directory = `/proc/${pid}/task/${tid}`;
  for (const file of THREAD_FILES) found.set(`${tid} ${file}`, read(`${directory}/${file}`));
  const status = read(`${directory}/status`)
    .split('\n')
    .filter((line) => !STATUS_LEFT_OUT.test(line))
    .map((line) => line.replace(/^State:\s+[RSD].*/, 'State: running or sleeping'));
  for (const line of status) {
    const [name = '', value = ''] = line.split(':');
    if (name !== '')
      found.set(`${tid} status ${name}`, /Pnd$/.test(name) ? withoutAlarm(value) : value.trim());
  }
  const stat = read(`${directory}/stat`);
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  found.set(`${tid} stat`, STAT_KEPT.map((number) => fields[number - 3]).join(' '));
}

function withoutAlarm(pending: string): string {
  return (BigInt(`0x${pending.trim()}`) & ~(1n << BigInt(SIGALRM - 1))).toString(16);
}

/** State of the freezers a process is under, of cgroup v1 and v2. */
function freezerOf(cgroups: string): string {
  return cgroups
    .split('\n')
    .map((line) => line.split(':'))
    .map(([id, controllers, path]) => {
      if (controllers === 'freezer') return read(`/sys/fs/cgroup/freezer${path}/freezer.state`);
      if (id !== '0') return '';
      return ['', '/unified'].map((top) => read(`/sys/fs/cgroup${top}${path}/cgroup.freeze`)).join('');
    })
    .join('');
}

/** Also what only a duplicate tells: pipe size, owner, peek offset, bytes that wait in a socket. */
function snapshotDescriptors(pid: number, found: Map<string, string>): void {
  const pidfd = attempt('pidfd_open', [pid, 0]);
  for (const fd of list(`/proc/${pid}/fd`)) {
    const link = linkOf(`/proc/${pid}/fd/${fd}`);
    found.set(`${pid} fd ${fd}`, `${link}\n${read(`/proc/${pid}/fdinfo/${fd}`)}`);
    const taken = pidfd < 0 ? -1 : attempt('pidfd_getfd', [pidfd, Number(fd), 0]);
    if (taken < 0) continue;
    const facts = [attempt('fcntl', [taken, F_GETPIPE_SZ]), attempt('fcntl', [taken, F_GETOWN])];
    if (link.startsWith('socket:')) {
      for (const [level, option] of SOCKET_OPTIONS) facts.push(numberOf(taken, level, option));
      // What a peer sends comes when it comes.
      if (numberOf(taken, SOL_SOCKET, SO_PROTOCOL) !== IPPROTO_TCP) facts.push(waiting(taken));
    }
    found.set(`${pid} fd ${fd} facts`, facts.join());
    syscall('close', [taken]);
  }
  if (pidfd >= 0) syscall('close', [pidfd]);
}

const SOCKET_OPTIONS = [
  [SOL_SOCKET, SO_PEEK_OFF],
  [SOL_SOCKET, SO_REUSEADDR],
  [SOL_TCP, TCP_REPAIR],
] as const;

function numberOf(fd: number, level: number, option: number): number {
  scratch.view.setInt32(0, 0, true);
  scratch.view.setUint32(8, 4, true);
  attempt('getsockopt', [fd, level, option, scratch.address, scratch.address + 8n]);
  return scratch.view.getInt32(0, true);
}

function waiting(fd: number): number {
  const FIONREAD = 0x541b;
  scratch.view.setInt32(0, -1, true);
  attempt('ioctl', [fd, FIONREAD, scratch.address]);
  return scratch.view.getInt32(0, true);
}

/** The host's mounts, links, IPC objects, cgroups, and (when asked for, since it takes long) packet filters. */
export function snapshotHost(rules: boolean): Snapshot {
  const found = new Map<string, string>();
  for (const file of HOST_FILES) found.set(file, withoutCounters(file, read(file)));
  found.set('links', list('/sys/class/net').join());
  found.set('tables', tables().join());
  found.set('cgroups', ourNames(directoriesBelow('/sys/fs/cgroup', 3)));
  if (rules)
    for (const [program, ...args] of [['nft', 'list', 'ruleset'], ['iptables-save'], ['ip', 'addr']])
      found.set(program ?? '', output(program ?? '', args));
  return found;
}

/** Names of all tables of nftables. */
function tables(): string[] {
  try {
    using netlink = openNftables();
    return listTables(netlink).map(({ name }) => name);
  } catch (error) {
    if (error instanceof SyscallError) return [];
    throw error;
  }
}

/** Others make cgroups for what they run; one of ours would say so. */
function ourNames(directories: readonly string[]): string {
  return directories.filter((name) => /stasis|criu/i.test(name)).join('\n');
}

/** Other processes come and go on a host; what ours would leave are sockets with names. */
function withoutCounters(file: string, text: string): string {
  if (file === '/proc/net/unix')
    return text
      .split('\n')
      .filter((line) => /stasis/.test(line))
      .join('\n');
  return text;
}

/** Pids of this pid namespace that are none of `known`, with their names: what of ours is left. */
export function strangers(known: ReadonlySet<number>): string[] {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name) && !known.has(Number(name)))
    .map((pid) => ({ pid, stat: read(`/proc/${pid}/stat`) }))
    .filter(({ stat }) => stat !== '' && !/\) [ZX] /.test(stat))
    .map(
      ({ pid, stat }) =>
        `${pid} ${stat.slice(stat.indexOf('('), stat.lastIndexOf(')') + 4)}, child of ${ppidOf(stat)}`,
    );
}

function ppidOf(stat: string): string {
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] ?? '?';
}

/** What is different, in lines; empty when nothing is. */
export function differences(before: Snapshot, after: Snapshot): string[] {
  const found: string[] = [];
  for (const [key, value] of before) {
    const now = after.get(key);
    if (now === undefined) found.push(`${key}: gone`);
    else if (now !== value) found.push(`${key}: ${changeOf(value, now)}`);
  }
  for (const [key, value] of after) if (!before.has(key)) found.push(`${key}: new: ${value.slice(0, 200)}`);
  return found;
}

function changeOf(before: string, after: string): string {
  const was = new Set(before.split('\n'));
  const is = new Set(after.split('\n'));
  const lost = [...was].filter((line) => !is.has(line));
  const won = [...is].filter((line) => !was.has(line));
  return `${lost.slice(0, 3).join(' | ')} became ${won.slice(0, 3).join(' | ')}`;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function directoriesBelow(directory: string, depth: number): string[] {
  if (depth === 0) return [];
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `${directory}/${entry.name}`)
      .flatMap((path) => [path, ...directoriesBelow(path, depth - 1)]);
  } catch {
    return [];
  }
}

function output(program: string, args: readonly string[]): string {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return 'not there';
  }
}
