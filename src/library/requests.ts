import { z } from 'zod';

/** What can be asked of an engine. These schemas are the only definition of the library's options. */

const pid = z.number().int().positive();
const directory = z.string().min(1);
const GHOST_LIMIT_BYTES = 2 ** 20;
const TIMEOUT_MS = 10_000;
const STALL_MS = 60_000;
const READY_MS = 120_000;

/** A pipe or socket of the caller, by its number there; the engine takes a duplicate. */
const descriptor = z.number().int().nonnegative();
const patience = {
  /** The numbers are the engine's own. */
  inherited: z.boolean().default(false),
  /** How long nothing may move on a stream, and how long the other end may take for an answer. */
  stall_ms: z.number().positive().default(STALL_MS),
  ready_ms: z.number().positive().default(READY_MS),
};

const networkLock = z.enum(['nftables', 'skip']).default('nftables');

/** Of TCP connections. */
const connections = {
  /** Save them. They are silent while the tree stands still, and after a kill until they are restored. */
  tcp_established: z.boolean().default(false),
  /** Save them as closed sockets. */
  tcp_close: z.boolean().default(false),
  /** Leave out those that nobody has accepted yet; their clients get a reset. */
  skip_in_flight: z.boolean().default(false),
  /** `skip`: the caller makes them silent. */
  network_lock: networkLock,
};

const checkpointOptions = z.strictObject({
  /** Root of the tree, as the caller sees it. */
  pid,
  /** Where the image goes; made (0700) when missing. The file, for an archive; what it is called, for a stream. */
  directory,
  /** One file, made 0600; or a stream, whose image is never on this host's disk. */
  to: z
    .discriminatedUnion('kind', [
      z.strictObject({ kind: z.literal('archive') }),
      z.strictObject({
        kind: z.literal('stream'),
        fd: descriptor,
        /** Where the other end reports: the tree is killed only when it has been brought up there. */
        answers: descriptor.optional(),
        ...patience,
      }),
    ])
    .optional(),
  /** What becomes of the tree once its image is complete. */
  afterwards: z.enum(['kill', 'run', 'stop']).default('kill'),
  /** Accept a root whose session and terminal are those of whoever restores it. */
  shell_job: z.boolean().default(false),
  /** How long a task may take to stop. */
  timeout_ms: z.number().positive().default(TIMEOUT_MS),
  /** Write SHA-256 sums of all files beside the image; costs about half a second per GiB, after the tree is let go. */
  checksums: z.boolean().default(true),
  /** Wait for the disk before the commit. */
  durable: z.boolean().default(true),
  /** Replace an image that is in the directory. */
  overwrite: z.boolean().default(false),
  /** Write into a directory that another user owns or could change. */
  trust: z.boolean().default(false),
  /** Give deleted files that have other names a name, until they are restored. */
  link_remap: z.boolean().default(false),
  /** Largest deleted file that is copied into the image. */
  ghost_limit_bytes: z.number().int().nonnegative().default(GHOST_LIMIT_BYTES),
  /** What is outside of the tree and stays there: `file[mnt_id:inode]`, `tty[rdev:dev]`, `net[inode]:KEY`. */
  external: z.array(z.string()).default([]),
  /** Accept pipes whose other end is outside of the tree. */
  outside_pipes: z.boolean().default(false),
  /** Directories to look for watched files in (inotify, fanotify), where their file system has no handles. */
  irmap_scan_paths: z.array(z.string()).default([]),
  /** Save locks and leases of files; without it a tree that holds some is refused. */
  file_locks: z.boolean().default(true),
  /** Accept datagram sockets connected to named ones outside of the tree; restore connects them again. */
  ext_unix_sk: z.boolean().default(false),
  ...connections,
});

/** `net:PATH`, or `net:PID` for the network namespace of a process. */
const joinNs = z
  .array(z.string().regex(/^net:./s, 'only network namespaces can be joined: net:PATH or net:PID'))
  .default([]);

const restoreOptions = z.strictObject({
  /** An image directory, or an archive; what it is called, for a stream. */
  directory,
  stream: z
    .strictObject({
      fd: descriptor,
      /** Where a source that asks for it is answered. */
      answers: descriptor.optional(),
      /** Directory in whose file system the image lies meanwhile, without a name. */
      spool: z.string().min(1).optional(),
      ...patience,
    })
    .optional(),
  /** Let the tree outlive the engine. Without it `Restored.exit` tells how the root ends, and the engine is kept for that. */
  detach: z.boolean().default(false),
  /** Accept an image that another user owns or could change. */
  trust: z.boolean().default(false),
  /** Compare all files with their checksums before any process exists; without it, while they are loaded. */
  verify: z.boolean().default(false),
  shell_job: z.boolean().default(false),
  /** Leave the tree stopped by SIGSTOP. */
  leave_stopped: z.boolean().default(false),
  /** Descriptors of the caller that stand in for outside files, by key: `pipe:[4711]`, `tty[8801:5]`. */
  inherit_fds: z.record(z.string(), z.number().int().nonnegative()).default({}),
  external: z.array(z.string()).default([]),
  /** Namespaces to restore the tree in. One that was external at the checkpoint can come by `inherit_fds` as well. */
  join_ns: joinNs,
  /** Connect datagram sockets to named ones outside of the tree again. */
  ext_unix_sk: z.boolean().default(false),
  /** Restore TCP connections as closed sockets. */
  tcp_close: z.boolean().default(false),
  network_lock: networkLock,
});

const inspectOptions = z.strictObject({
  directory,
  trust: z.boolean().default(true),
  /** Check all that can be checked, checksums included. */
  verify: z.boolean().default(false),
});

const planOptions = z.strictObject({
  directory,
  trust: z.boolean().default(true),
  shell_job: z.boolean().default(false),
  external: z.array(z.string()).default([]),
  /** As of a restore, which looks at what there is in them. */
  join_ns: joinNs,
  ext_unix_sk: z.boolean().default(false),
});

const checkOptions = z.strictObject({
  /** Root of a tree; without it only the host is looked at. */
  pid: pid.optional(),
  shell_job: z.boolean().default(false),
  link_remap: z.boolean().default(false),
  ghost_limit_bytes: z.number().int().nonnegative().default(GHOST_LIMIT_BYTES),
  external: z.array(z.string()).default([]),
  outside_pipes: z.boolean().default(false),
  /** Directories to look for watched files in (inotify, fanotify), where their file system has no handles. */
  irmap_scan_paths: z.array(z.string()).default([]),
  file_locks: z.boolean().default(true),
  /** Accept datagram sockets connected to named ones outside of the tree; restore connects them again. */
  ext_unix_sk: z.boolean().default(false),
  ...connections,
});

const packing = {
  directory,
  /** The archive. */
  file: z.string().min(1),
  /** Accept files that another user owns or could change. */
  trust: z.boolean().default(false),
  overwrite: z.boolean().default(false),
  /** Wait for the disk. */
  durable: z.boolean().default(true),
};
const packOptions = z.strictObject(packing);
const unpackOptions = z.strictObject(packing);

const unlockOptions = z.strictObject({
  /** The image that the connections are silent for; it need not be there any more. */
  directory: directory.optional(),
  /** Instead of an image: the root of a tree that went out on a stream. */
  pid: pid.optional(),
  /**
   * About a tree that was left stopped, because the other end did not say whether it runs there: `kill` if it does, in
   * silence; else `resume`, with its connections.
   */
  decision: z.enum(['resume', 'kill']).optional(),
  trust: z.boolean().default(true),
});

export const METHODS = {
  checkpoint: checkpointOptions,
  restore: restoreOptions,
  inspect: inspectOptions,
  plan: planOptions,
  check: checkOptions,
  pack: packOptions,
  unpack: unpackOptions,
  unlock: unlockOptions,
} as const;

export type Method = keyof typeof METHODS;
/** As a caller gives them: what has a default may be left out. */
export type OptionsOf<M extends Method> = z.input<(typeof METHODS)[M]>;
/** As the engine gets them. */
export type ParsedOptions<M extends Method> = z.output<(typeof METHODS)[M]>;
