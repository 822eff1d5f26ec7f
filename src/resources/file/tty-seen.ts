import { statSync } from 'node:fs';
import { F_DUPFD_CLOEXEC, O_CLOEXEC, O_NOCTTY, O_RDWR } from '../../abi/fcntl.js';
import { TIOCGDEV, TIOCGPTLCK, TIOCGPTPEER, TIOCSPTLCK } from '../../abi/ioctl.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, Process } from '../contract.js';
import { perDump } from '../description/state.js';
import { controllingDevice, isMaster, pairOf, sessionIsInside, type Type } from './tty-device.js';
import { flagOf } from './tty-settings.js';

/** The terminals of a tree, as its descriptions show them. */
export interface Seen {
  readonly descriptor: Descriptor;
  readonly id: number;
  readonly infoId: number;
  readonly type: Type;
  readonly isMaster: boolean;
  readonly pair: number | undefined;
  /** A duplicate, until the terminals were gathered. */
  readonly fd: OwnedFd;
  /** The device behind it, of a master the slave's (TIOCGDEV); undefined where it was hung up. */
  readonly device: bigint | undefined;
}

export const seenOf = perDump((): Seen[] => []);

export interface Session {
  /** Ids as in the image. */
  readonly sid: number;
  readonly pgrp: number;
  /** The foreground group, where nobody is in it any more; `pgrp` is the leader's then, for CRIU takes no other. */
  readonly emptyGroup: number | undefined;
  readonly isInside: boolean;
}

export interface Terminal {
  readonly device: bigint;
  readonly master: Seen | undefined;
  /** All others that are not hung up, /dev/tty too. */
  readonly slaves: readonly Seen[];
  readonly session: Session | undefined;
}

export function see(
  fact: Omit<Seen, 'fd' | 'device' | 'pair' | 'isMaster'>,
  taken: number,
  context: DumpContext,
): Seen {
  const fd = new OwnedFd(syscall('fcntl', [taken, F_DUPFD_CLOEXEC, 3]));
  const { rdev } = fact.descriptor.info.stat;
  const seen = {
    ...fact,
    fd,
    device: deviceBehind(taken),
    pair: pairOf(fact.descriptor),
    isMaster: isMaster(rdev),
  };
  const all = seenOf(context);
  // Where the dump fails before they were gathered.
  if (all.length === 0)
    context.keep({
      release() {
        for (const each of all) each.fd[Symbol.dispose]();
      },
    });
  all.push(seen);
  return seen;
}

export function deviceBehind(fd: number): bigint | undefined {
  if (attempt('ioctl', [fd, TIOCGDEV, scratch.address]) < 0) return undefined;
  return BigInt(scratch.view.getUint32(0, true));
}

/** Terminals that are open in the tree, or control one of its sessions. */
export function terminalsOf(context: DumpContext): Terminal[] {
  const all = seenOf(context);
  const living = context.processes.filter(({ state }) => state !== 'zombie');
  const devices = new Set<bigint>();
  for (const { device } of all) if (device !== undefined) devices.add(device);
  for (const process of living) {
    const device = controllingDevice(process);
    if (device !== undefined && sessionIsInside(process)) devices.add(device);
  }
  return [...devices].map((device) => {
    const open = all.filter((seen) => seen.device === device);
    return {
      device,
      master: open.find((seen) => seen.isMaster),
      slaves: open.filter((seen) => !seen.isMaster),
      session: sessionOf(device, living),
    };
  });
}

function sessionOf(device: bigint, living: readonly Process[]): Session | undefined {
  const member = living.find((process) => controllingDevice(process) === device);
  if (member === undefined) return undefined;
  const { tpgid } = member.stat;
  const inGroup = living.find(({ stat }) => stat.pgrp === tpgid);
  const sid = member.leader.status.nsSid.at(-1) ?? 0;
  const isInside = sessionIsInside(member);
  const isEmpty = inGroup === undefined && tpgid > 0 && isInside;
  return {
    sid,
    pgrp: inGroup?.leader.status.nsPgid.at(-1) ?? (isEmpty ? sid : Math.max(tpgid, 0)),
    // In a pid namespace of its own its number would have been another.
    emptyGroup: isEmpty && member.pid === member.insidePid ? tpgid : undefined,
    isInside,
  };
}

/** A slave of our own, while `use` runs; a locked pair is unlocked for it, and the guardian knows that. */
export function withSlave<T>({ fd, descriptor }: Seen, context: DumpContext, use: (slave: number) => T): T {
  const master = fd.fd;
  const locked = flagOf(master, TIOCGPTLCK);
  using _undo = locked
    ? context.undo?.((tape, take) => {
        tape.call('ioctl', [take(descriptor), TIOCSPTLCK, tape.space(Uint8Array.of(1, 0, 0, 0))], 'any');
      })
    : undefined;
  if (locked) lock(master, false);
  try {
    using slave = new OwnedFd(
      syscall('ioctl', [master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC], 'a slave'),
    );
    return use(slave.fd);
  } finally {
    if (locked) lock(master, true);
  }
}

function lock(master: number, locked: boolean): void {
  scratch.view.setInt32(0, locked ? 1 : 0, true);
  syscall('ioctl', [master, TIOCSPTLCK, scratch.address], 'a master');
}

/** The devpts of this process's mount namespace. */
export function devptsDevice(): bigint | undefined {
  return statSync('/dev/pts', { bigint: true, throwIfNoEntry: false })?.dev;
}
