import type { FileKind } from '../contract.js';
import { datagramSocket } from './datagram.js';
import { lockNetwork } from './lock.js';
import { unlockNetwork } from './lock-restore.js';
import { netlinkSocket } from './netlink.js';
import { otherSocket } from './other.js';
import { packetSocket } from './packet.js';
import { tcp } from './tcp.js';
import { unix } from './unix.js';

/** Every kind of socket, the more particular ones first; what is in flight in Unix sockets is dumped by those after them. */
export const socketKinds: readonly FileKind[] = [
  unix,
  tcp,
  datagramSocket,
  netlinkSocket,
  packetSocket,
  otherSocket,
];

/** What a network namespace of the tree's own is silent by, while it is saved and until it is restored. */
export const networkLock = { hold: lockNetwork, release: unlockNetwork } as const;
