import { allDescriptors, statAt } from '../../kernel/procfs/descriptors.js';
import { unlessHidden } from '../../kernel/procfs/error.js';
import { readLink, taskPath } from '../../kernel/procfs/read.js';
import type { Descriptor, DumpOptions, Process, Refuse } from '../contract.js';
import { takeIfOpen } from '../description/calls.js';
import { objectOf, refusalOf } from '../description/described.js';
import { descriptorsOf } from '../description/open.js';
import {
  controllingDevice,
  deviceName,
  isMaster,
  keyOfDescriptor,
  pairOf,
  sessionIsInside,
  slaveDevice,
  slaveIndex,
  TYPE,
  typeOf,
} from './tty-device.js';
import { isOfOurDevpts, MASTER_OUTSIDE } from './tty-gather.js';
import { deviceBehind } from './tty-seen.js';
import { isHungUp } from './tty-unread.js';

/** Terminals that cannot be saved, told before anything is frozen. */
export function checkTerminal(descriptor: Descriptor, refuse: Refuse, options: DumpOptions): void {
  const type = typeOf(descriptor.info.stat.rdev);
  if (isExternal(descriptor, options) || type === TYPE.ctty) return;
  if (isMaster(descriptor.info.stat.rdev)) {
    if (pairOf(descriptor) === undefined) refuse(refusalOf(descriptor, 'the kernel does not tell its index'));
    else if (!isOfOurDevpts({ descriptor }))
      refuse(refusalOf(descriptor, 'terminals of a second devpts cannot be saved yet'));
  } else if (type !== TYPE.pty && isOutsideControlling(descriptor) && !options.shellJob)
    refuse(outside(descriptor));
}

/** What takes all descriptions of terminals. */
export function checkPairs(descriptors: readonly Descriptor[], refuse: Refuse, options: DumpOptions): void {
  const masters = new Set(descriptors.filter(({ info }) => isMaster(info.stat.rdev)).map(pairOf));
  const slaves = new Set<number | undefined>();
  for (const descriptor of descriptors) {
    const { rdev } = descriptor.info.stat;
    const type = typeOf(rdev);
    if (isMaster(rdev) || isExternal(descriptor, options) || (type !== TYPE.pty && type !== TYPE.ctty))
      continue;
    slaves.add(checkSlave(descriptor, masters, refuse, options));
  }
  for (const descriptor of descriptors)
    if (isMaster(descriptor.info.stat.rdev) && !slaves.has(pairOf(descriptor)))
      checkLoneMaster(descriptor, refuse);
}

/** A session may have a terminal that nobody of it has open. */
export function checkSessions(processes: readonly Process[], refuse: Refuse, options: DumpOptions): void {
  for (const process of processes) {
    const device = controllingDevice(process);
    if (process.pid !== process.stat.session || device === undefined || options.outsidePipes === true)
      continue;
    if (typeOf(device) !== TYPE.pty || isMasterInside(device, processes)) continue;
    refuse({
      task: `pid ${process.insidePid} (${process.stat.comm})`,
      object: `controlling terminal ${deviceName(device)}`,
      reason: MASTER_OUTSIDE,
      help: 'include the program that has the master in the tree',
    });
  }
}

export function isExternal(descriptor: Descriptor, { external }: DumpOptions): boolean {
  return external.includes(keyOfDescriptor(descriptor));
}

/** A terminal that is no pair, and controls the session of its holder, which is outside. */
function isOutsideControlling({ process, info }: Descriptor): boolean {
  return controllingDevice(process) === info.stat.rdev && !sessionIsInside(process);
}

const outside = (descriptor: Descriptor) =>
  refusalOf(
    descriptor,
    'it is a terminal of a session outside of the tree',
    `use --shell-job if it is to have the terminal of whoever restores it, --external ${keyOfDescriptor(descriptor)} and --inherit-fd at restore to give it another, or redirect it`,
  );

/** Answers the index of its pair, if it is one. */
function checkSlave(
  descriptor: Descriptor,
  masters: ReadonlySet<number | undefined>,
  refuse: Refuse,
  options: DumpOptions,
): number | undefined {
  const { process, info } = descriptor;
  using taken = takeIfOpen(process.pid, descriptor.fd, objectOf(descriptor));
  if (taken === undefined) return undefined;
  const device = deviceBehind(taken.fd);
  // Hung up: it needs no master.
  if (device === undefined) return undefined;
  const index = typeOf(device) === TYPE.pty ? slaveIndex(device) : undefined;
  if (index !== undefined && masters.has(index)) {
    if (typeOf(info.stat.rdev) === TYPE.pty && !isOfOurDevpts({ descriptor }))
      refuse(refusalOf(descriptor, 'terminals of a second devpts cannot be saved yet'));
    return index;
  }
  const isControlling = controllingDevice(process) === device;
  if (isControlling && sessionIsInside(process)) {
    if (index !== undefined)
      refuse(refusalOf(descriptor, MASTER_OUTSIDE, 'include the program that has the master in the tree'));
  } else if (!options.shellJob) refuse(outside(descriptor));
  return index;
}

/** The slave of a master may be open elsewhere, where it would be lost. */
function checkLoneMaster(descriptor: Descriptor, refuse: Refuse): void {
  const index = pairOf(descriptor);
  if (index === undefined) return;
  using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
  if (taken === undefined || isHungUp(taken.fd)) return;
  const holder = whoHas(slaveDevice(index));
  if (holder !== undefined)
    refuse(refusalOf(descriptor, `its slave is open in pid ${holder}, which is not in the tree`));
}

function whoHas(device: bigint): number | undefined {
  const name = deviceName(device);
  const isIt = (path: string) => unlessHidden(() => readLink(path) === name && statAt(path).rdev === device);
  for (const [pid, fds] of allDescriptors())
    if (fds.some((fd) => isIt(taskPath(pid, `fd/${fd}`)))) return pid;
  return undefined;
}

function isMasterInside(device: bigint, processes: readonly Process[]): boolean {
  const index = slaveIndex(device);
  return processes.some((process) =>
    descriptorsOf(process).some(
      (descriptor) => isMaster(descriptor.info.stat.rdev) && pairOf(descriptor) === index,
    ),
  );
}
