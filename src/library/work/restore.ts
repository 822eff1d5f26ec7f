import { existsSync, lstatSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { Incoming } from '../../engine/incoming.js';
import { restore } from '../../engine/restore.js';
import { CHECKSUMS_FILE, ImageError, ImageReader } from '../../image/index.js';
import type { ParsedOptions } from '../requests.js';
import type { RestoreResult } from '../results.js';
import { Verification } from '../verification.js';
import type { Surroundings } from './handlers.js';
import { problemsOf } from './inspect.js';
import { Taken } from './taken.js';

/** A restore; `onPhase` may throw to call it off as long as the tree stands still. */
export function restoreTree(options: ParsedOptions<'restore'>, surroundings: Surroundings): RestoreResult {
  if (options.stream !== undefined) return restoreStream(options, options.stream, surroundings);
  const { directory, trust, verify } = options;
  const { onPhase } = surroundings;
  if (verify) {
    onPhase('verify');
    verifyAll(directory, trust);
  }
  const isUnverified = !verify && hasChecksums(directory);
  const isSmall = isUnverified && sizeOf(directory) <= SMALL_BYTES;
  using verification = isUnverified && !isSmall ? new Verification(directory, trust) : undefined;
  return perform(options, surroundings, {
    whileLoading: () => {
      if (isSmall) verifyAll(directory, trust);
    },
    beforeResume: () => verification?.join(),
  });
}

interface Particulars {
  readonly reader?: ImageReader;
  readonly whileLoading?: () => void;
  readonly beforeResume: () => void;
}

function perform(
  options: ParsedOptions<'restore'>,
  { onPhase }: Surroundings,
  { reader, whileLoading, beforeResume }: Particulars,
): RestoreResult {
  const { directory, trust, verify } = options;
  const report = restore({
    directory,
    reader,
    trust,
    verify,
    sibling: false,
    leaveStopped: options.leave_stopped,
    shellJob: options.shell_job,
    external: options.external,
    joins: options.join_ns,
    extUnixSk: options.ext_unix_sk,
    tcpClose: options.tcp_close,
    networkLock: options.network_lock,
    inheritFds: new Map(Object.entries(options.inherit_fds)),
    hooks: { phase: onPhase, beforeResume, ...(whileLoading === undefined ? {} : { whileLoading }) },
  });
  return {
    directory,
    pid: report.pid,
    detached: options.detach,
    processes: report.processes,
    threads: report.threads,
    pages: report.pages,
    total_ms: report.total_ms,
    phases: report.phases,
  };
}

/** Checksums are compared as the bytes come. */
function restoreStream(
  options: ParsedOptions<'restore'>,
  stream: NonNullable<ParsedOptions<'restore'>['stream']>,
  surroundings: Surroundings,
): RestoreResult {
  using taken = new Taken(stream.inherited);
  const { answers, spool = process.env.TMPDIR ?? '/var/tmp' } = stream;
  using incoming = new Incoming(
    {
      ...stream,
      spool,
      fd: taken.take(stream.fd, 'the stream of the image'),
      answers: answers === undefined ? undefined : taken.take(answers, 'where the source is answered'),
      interrupt: surroundings.interrupt,
    },
    options.directory,
  );
  try {
    surroundings.onPhase('receive');
    const reader = ImageReader.of(incoming.receive());
    const result = perform(options, surroundings, { reader, beforeResume: () => incoming.stand() });
    incoming.running(result.pid);
    return result;
  } catch (error) {
    incoming.failed(error);
    throw error;
  }
}

/** Up to here it takes less time to compare checksums than to start a thread for it. */
const SMALL_BYTES = 8 * 1024 * 1024;

function sizeOf(directory: string): number {
  if (isFile(directory)) return lstatSync(directory).size;
  return readdirSync(directory).reduce((sum, name) => sum + lstatSync(path.join(directory, name)).size, 0);
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function hasChecksums(directory: string): boolean {
  // Every frame of an archive has its own.
  if (isFile(directory)) return true;
  return existsSync(path.join(directory, CHECKSUMS_FILE));
}

/** @throws ImageError with the first problem, before any process exists */
function verifyAll(directory: string, trust: boolean): void {
  using reader = ImageReader.open(directory, { trust });
  if (!reader.hasOwnChecksums && !reader.list().includes(CHECKSUMS_FILE))
    throw new ImageError(
      reader.directory,
      'has no checksums to verify (it was made with --no-checksums, or by CRIU)',
    );
  const [problem, ...others] = problemsOf(reader);
  if (problem === undefined) return;
  const more = others.length === 0 ? '' : ` (and ${others.length} more; see inspect --verify)`;
  throw new ImageError(
    problem.file,
    `${problem.message}${more}`,
    problem.offset_bytes === null ? {} : { offset: problem.offset_bytes },
  );
}
