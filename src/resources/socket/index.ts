import type { FileKind } from '../contract.js';
import { tcp } from './tcp.js';
import { unixPair } from './unix.js';

/** Every kind of socket, the more particular ones first. */
export const socketKinds: readonly FileKind[] = [unixPair, tcp];
