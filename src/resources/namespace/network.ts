import { createMessage, type ImageReader } from '../../image/index.js';
import { networks } from '../../kernel/namespace.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { readNamespace } from '../../kernel/procfs/ns.js';
import {
  type DumpContext,
  type DumpOptions,
  nameOf,
  type Process,
  type Refusal,
  type Refuse,
  type Thread,
} from '../contract.js';
import {
  type Contents,
  differences,
  loadContents,
  problems,
  readContents,
  UnreadableError,
  writeContents,
} from './contents.js';

/**
 * network_namespaces(7). A tree lives in one, and that need not be the one of whoever saves it; all that is said of its
 * sockets is asked there (kernel/namespace.ts). Its id among those of tasks (ids-PID.img) differs from that of the dumping
 * process then (inventory.img). It may be one that stays when the tree is gone, and which a restore joins; where it was
 * said to be external its key is in netns-ID.img. Or it ends with the tree, and is in the image itself (contents.ts).
 */

/** What a dump knows of the network namespaces it is about. */
export interface NetworkPlan {
  /** That of the root of the tree, which this thread is in, by inode. */
  readonly tree: bigint;
  /** That of the dumping process. */
  readonly home: bigint;
  /** What is in the tree's, if that can be made again; it is saved then, as it is while the tree is frozen. */
  readonly contents: Contents | undefined;
  /** Why it cannot be. */
  readonly problems: readonly string[];
}

/** Before the freeze; in the namespace of the tree. */
export function planNetwork(tree: bigint, home: bigint, options: DumpOptions): NetworkPlan {
  if (tree === home || externalKey(tree, options) !== undefined)
    return { tree, home, contents: undefined, problems: [] };
  try {
    const contents = readContents();
    const found = problems(contents);
    return { tree, home, contents: found.length === 0 ? contents : undefined, problems: found };
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    return { tree, home, contents: undefined, problems: [error.message] };
  }
}

/** Before the freeze. */
export function checkNetwork(
  processes: readonly Process[],
  { tree, home, contents, problems }: NetworkPlan,
  options: DumpOptions,
  refuse: Refuse,
): void {
  checkUnity(processes, tree, refuse);
  const [root] = processes;
  if (root === undefined || tree === home || externalKey(tree, options) !== undefined) return;
  const kept = isKept(processes, tree);
  // Whoever restores it has to say which is to be joined, if it is not one of its own.
  if (options.joinable === true ? kept || contents !== undefined : !kept && contents !== undefined) return;
  const join = `leave it out by --external net[${tree}]:NAME; the restore joins it by --join-ns net:PATH or --inherit-fd fd[N]:NAME`;
  const [task, object] = [nameOf(root), `network namespace net:[${tree}]`];
  if (kept)
    refuse({
      task,
      object,
      reason: 'it is not that of the dumping process, and others use it too',
      help: join,
    });
  else
    for (const problem of problems)
      refuse({
        task,
        object,
        reason: `it would end with the tree, and cannot be saved: ${problem}`,
        help: `keep it (ip netns attach NAME ${root.pid}) and ${join}`,
      });
}

/** Threads as well, each of which can be in one of its own (setns(2)). */
function checkUnity(processes: readonly Process[], tree: bigint, refuse: Refuse): void {
  for (const { state, threads } of processes) {
    if (state === 'zombie') continue;
    for (const thread of threads) {
      const { tid, process } = thread;
      const link = unlessVanished(() => readNamespace(process.pid, 'net', { tid }));
      if (link !== undefined && link.inode !== tree) refuse(strayed(thread, tree));
    }
  }
}

function strayed(task: Thread | Process, tree: bigint): Refusal {
  return {
    task: nameOf(task),
    object: 'network namespace',
    reason: `it is not that of the root of the tree (net:[${tree}]), and only one can be kept`,
  };
}

/**
 * As `checkNetwork`, while the tree is frozen; `idOf` is what the image will say a process is in. Answers what is in the
 * namespace by then, if that is saved.
 */
export function freezeNetwork(
  { processes, namespaceId, refuse, retry }: DumpContext,
  { tree, contents }: NetworkPlan,
  idOf: (process: Process) => number,
): Contents | undefined {
  const id = namespaceId?.('net', tree);
  for (const process of processes)
    if (process.state !== 'zombie' && idOf(process) !== id) refuse(strayed(process, tree));
  if (contents === undefined) return undefined;
  const now = readContents();
  const [root] = processes;
  for (const difference of differences(now, contents))
    if (root !== undefined)
      retry({
        task: nameOf(root),
        object: `network namespace net:[${tree}]`,
        reason: `it has changed: ${difference}`,
      });
  return now;
}

/** By somebody who is not of the tree; this process, which is visiting, does not count. */
function isKept(processes: readonly Process[], inode: bigint): boolean {
  return networks(new Set([process.pid, ...processes.map(({ pid }) => pid)])).has(inode);
}

/** `net[INODE]:KEY` */
function externalKey(inode: bigint, { external }: DumpOptions): string | undefined {
  return external.flatMap((each) => {
    const [, number, key] = /^net\[(\d+)\]:(.+)$/s.exec(each) ?? [];
    return number !== undefined && key !== undefined && BigInt(number) === inode ? [key] : [];
  })[0];
}

/** Of a tree in a namespace of its own. */
export function writeNetwork(
  { writer, options, namespaceId }: DumpContext,
  { tree }: NetworkPlan,
  contents: Contents | undefined,
): void {
  const [key, id] = [externalKey(tree, options), namespaceId?.('net', tree)];
  if (id === undefined) return;
  if (key !== undefined) writer.write('netns', id, [createMessage('netns', { extKey: key })]);
  else if (contents !== undefined) writeContents(contents, writer, id);
}

/** Was the tree of an image in a network namespace that was not the dumping process's? */
export function hasOwnNetwork(reader: ImageReader): boolean {
  return idOf(reader) !== undefined;
}

/** Its id; undefined where it is as the dumping process's. */
function idOf(reader: ImageReader): number | undefined {
  const home = reader.readOptional('inventory')?.[0]?.rootIds?.netNsId ?? 0;
  const root = reader.readOptional('pstree')?.[0]?.pid ?? 0;
  const id = reader.readOptional('ids', root)?.[0]?.netNsId ?? 0;
  return home === 0 || id === 0 || id === home ? undefined : id;
}

export interface JoinOptions {
  /** `--join-ns`: `net:PATH`, or `net:PID`. */
  readonly joins?: readonly string[];
  readonly inheritFds: ReadonlyMap<string, number>;
}

/** Where a tree is restored. */
export type Place =
  | { readonly kind: 'home' }
  /** `path` leads to it. */
  | { readonly kind: 'join'; readonly path: string }
  | { readonly kind: 'new'; readonly contents: Contents };

/** Throws where the image's namespace is not to be had. */
export function placeOf(reader: ImageReader, { joins = [], inheritFds }: JoinOptions): Place {
  const join = joins.map(parseJoin).at(-1);
  if (join !== undefined) return { kind: 'join', path: join };
  const id = idOf(reader);
  if (id === undefined) return { kind: 'home' };
  const key = reader.readOptional('netns', id)?.[0]?.extKey ?? '';
  if (key !== '') {
    const fd = inheritFds.get(key);
    if (fd !== undefined) return { kind: 'join', path: `/proc/self/fd/${fd}` };
    throw new Error(
      `the network namespace of the tree was external as ${key}: give it by --inherit-fd fd[N]:${key}, or join one by --join-ns net:PATH`,
    );
  }
  if (reader.readOptional('netdev', id) !== undefined)
    return { kind: 'new', contents: loadContents(reader, id) };
  throw new Error('the network namespace of the tree is not in the image: join one by --join-ns net:PATH');
}

function parseJoin(text: string): string {
  const [, what = ''] = /^net:(.+)$/s.exec(text) ?? [];
  if (what === '')
    throw new Error(`only network namespaces can be joined (net:PATH or net:PID), not ${text}`);
  return /^\d+$/.test(what) ? `/proc/${what}/ns/net` : what;
}
