import { SO_DOMAIN, SO_PROTOCOL, SO_TYPE, SOL_SOCKET } from '../../abi/socket.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DescriptorInfo } from '../contract.js';
import { throughDuplicate } from './duplicate.js';

/** What a socket was made with: socket(2)'s three arguments, and the inode of sockfs that /proc shows. */
export interface SocketIdentity {
  /** AF_INET, AF_UNIX, … */
  readonly family: number;
  /** SOCK_STREAM, … without flags. */
  readonly type: number;
  readonly protocol: number;
  readonly inode: number;
}

const LINK = /^socket:\[(\d+)\]$/;
const known = new WeakMap<DescriptorInfo, SocketIdentity | undefined>();

/**
 * By inode, so that a frozen socket need not be asked again. Numbers are given out in turn, all 2^32 of them
 * (fs/inode.c get_next_ino), so within seconds one means the same socket.
 */
const recent = new Map<number, { readonly identity: SocketIdentity; readonly at_ms: number }>();
const RECENT_MS = 10_000;
const RECENT_MAX = 100_000;

/** Undefined for what is no socket, or was closed meanwhile. Asks a duplicate once per look at the descriptor. */
export function identify(descriptor: Descriptor): SocketIdentity | undefined {
  const { info } = descriptor;
  const match = LINK.exec(info.link);
  if (match === null) return undefined;
  if (!known.has(info)) known.set(info, identityOf(descriptor, Number(match[1])));
  return known.get(info);
}

function identityOf(descriptor: Descriptor, inode: number): SocketIdentity | undefined {
  const now_ms = performance.now();
  const seen = recent.get(inode);
  if (seen !== undefined && now_ms - seen.at_ms < RECENT_MS) return seen.identity;
  const identity = ask(descriptor, inode);
  if (recent.size > RECENT_MAX) recent.clear();
  if (identity !== undefined) recent.set(inode, { identity, at_ms: now_ms });
  return identity;
}

function ask(descriptor: Descriptor, inode: number): SocketIdentity | undefined {
  return throughDuplicate(descriptor, (taken) => {
    const [family, type, protocol] = [SO_DOMAIN, SO_TYPE, SO_PROTOCOL].map((option) => number(taken, option));
    if (family === undefined || type === undefined || protocol === undefined) return undefined;
    return { family, type, protocol, inode };
  });
}

function number(fd: number, option: number): number | undefined {
  scratch.view.setUint32(8, 4, true);
  const result = attempt('getsockopt', [fd, SOL_SOCKET, option, scratch.address, scratch.address + 8n]);
  return result < 0 ? undefined : scratch.view.getInt32(0, true);
}
