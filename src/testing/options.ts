import type { CheckpointOptions, RestoreRequest } from '../engine/options.js';

/** Options of live tests, to be completed with `pid` and `directory`: nothing waits for a disk, nothing is rehearsed. */
export const CHECKPOINT: Omit<CheckpointOptions, 'pid' | 'directory'> = {
  afterwards: 'kill',
  timeout_ms: 20_000,
  checksums: false,
  durable: false,
  overwrite: false,
  rehearsed: false,
  shellJob: false,
  linkRemap: false,
  ghostLimit: 1 << 20,
  external: [],
  outsidePipes: false,
  leaveRunning: false,
  fileLocks: true,
  tcpEstablished: false,
  hooks: {},
};

export const RESTORE: Omit<RestoreRequest, 'directory'> = {
  trust: false,
  sibling: false,
  leaveStopped: false,
  verify: false,
  shellJob: false,
  external: [],
  inheritFds: new Map(),
  hooks: {},
};
