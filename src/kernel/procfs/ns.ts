/** /proc/PID/ns: namespaces(7). Links of the form `type:[inode]`. */
import { readdirSync } from 'node:fs';
import { unlessVanished } from './error.js';
import { fail, toBigInt } from './field.js';
import { attempt, readLink, taskPath, type Where } from './read.js';

export interface NamespaceLink {
  /** File name: net, pid, pid_for_children, time_for_children … */
  readonly name: string;
  /** cgroup, ipc, mnt, net, pid, time, user, uts. */
  readonly type: string;
  readonly inode: bigint;
}

export function parseNamespaceLink(name: string, link: string, path = `/proc/PID/ns/${name}`): NamespaceLink {
  const place = { path, line: link };
  const match = /^([a-z]+):\[(\d+)\]$/.exec(link) ?? fail(place, 'not type:[inode]');
  return { name, type: match[1] ?? '', inode: toBigInt(match[2], place) };
}

export function readNamespace(pid: number, name: string, where: Where = {}): NamespaceLink {
  const path = taskPath(pid, `ns/${name}`, where);
  return parseNamespaceLink(name, readLink(path), path);
}

/**
 * All links by name. pid_for_children has no target between unshare(CLONE_NEWPID) and the first child, and
 * the links of a zombie are gone: such are left out.
 */
export function readNamespaces(pid: number, where: Where = {}): Map<string, NamespaceLink> {
  const directory = taskPath(pid, 'ns', where);
  const found = new Map<string, NamespaceLink>();
  for (const name of attempt(directory, 'cannot list', () => readdirSync(directory))) {
    const link = linkOrNone(`${directory}/${name}`);
    if (link !== undefined) found.set(name, parseNamespaceLink(name, link, `${directory}/${name}`));
  }
  return found;
}

function linkOrNone(path: string): string | undefined {
  return unlessVanished(() => readLink(path));
}
