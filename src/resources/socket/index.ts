import type { FileKind } from '../contract.js';
import { datagramSocket } from './datagram.js';
import { netlinkSocket } from './netlink.js';
import { packetSocket } from './packet.js';
import { unixPair } from './unix.js';

/** Every kind of socket, the more particular ones first. */
export const socketKinds: readonly FileKind[] = [unixPair, datagramSocket, netlinkSocket, packetSocket];
