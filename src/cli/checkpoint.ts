import { spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { type Command, Option } from 'commander';
import { checkpoint, createEngine, inspect } from '../library/api.js';
import type { CheckpointResult, InspectResult } from '../library/results.js';
import type { StreamDescriptor } from '../library/streams.js';
import { collect, parseBytes, parsePid, parseSeconds } from './arguments.js';
import { addConnectionFlags, type ConnectionFlags, connectionOptions } from './connection-flags.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print, printError } from './output.js';
import { ProgressLine } from './progress.js';
import { count, formatBytes, formatTime } from './table.js';
import { formatTree } from './tree.js';
import { printJson, runVerb } from './verb.js';

interface Flags extends ConnectionFlags {
  readonly pid: number;
  readonly output?: string;
  readonly through?: string;
  readonly waitReady?: true;
  readonly leaveRunning?: true;
  readonly leaveStopped?: true;
  readonly shellJob?: true;
  readonly timeout: number;
  readonly checksums: boolean;
  readonly sync: boolean;
  readonly overwrite?: true;
  readonly trust?: true;
  readonly linkRemap?: true;
  readonly ghostLimit: number;
  readonly external: string[];
  readonly extUnixSk?: true;
  readonly outsidePipes?: true;
  readonly irmapScanPath: string[];
  readonly fileLocks: boolean;
  readonly json?: true;
}

export function addCheckpoint(program: Command, done: (status: number) => void): void {
  const command = program
    .command('checkpoint')
    .description('save a process tree into an image directory, a file, or a stream')
    .requiredOption('--pid <pid>', 'root of the tree', parsePid)
    .option(
      '-o, --output <place>',
      'image directory, made when missing; FILE.stasis; or - for standard output',
    )
    .addOption(
      new Option(
        '--through <command>',
        'a shell command that takes the stream and answers, as `ssh HOST stasis restore -`',
      ).conflicts(['output', 'leaveRunning', 'leaveStopped']),
    )
    .addOption(
      new Option(
        '--wait-ready',
        'with -o -: kill the tree only when the other end, heard on standard input, runs it',
      ).conflicts(['leaveRunning', 'leaveStopped']),
    )
    .option('--leave-running', 'let the tree go on (it is killed otherwise)')
    .addOption(new Option('--leave-stopped', 'leave the tree stopped').conflicts('leaveRunning'))
    .option('--shell-job', "the root's session and terminal are the caller's")
    .option('--timeout <seconds>', 'how long a task may take to stop', parseSeconds, 10)
    .option('--no-checksums', 'do not write SHA-256 sums beside the image')
    .option('--no-sync', 'do not wait for the disk before the image counts')
    .option('--overwrite', 'replace an image that is in the directory')
    .option('--trust', 'write into a directory that another user owns or could change')
    .option('--link-remap', 'give deleted files that have other names a name until they are restored')
    .option('--ghost-limit <size>', 'largest deleted file that goes into the image', parseBytes, 2 ** 20)
    .option('--external <key>', 'what is outside of the tree and stays there (repeatable)', collect, [])
    .option('--ext-unix-sk', 'accept datagram sockets connected to named ones outside of the tree')
    .option('--outside-pipes', 'accept pipes whose other end is outside of the tree')
    .option(
      '--irmap-scan-path <dir>',
      'look here for watched files whose name is not known (repeatable)',
      collect,
      [],
    )
    .option('--no-file-locks', 'refuse a tree that holds file locks or leases');
  addConnectionFlags(command)
    .option('--json', 'print one JSON object')
    .action(async (flags: Flags, command: Command) => {
      const wrong = complaint(flags);
      if (wrong !== undefined) command.error(`error: ${wrong}`);
      done(await runVerb(flags.json === true, (i) => run(flags, i)));
    });
}

function complaint({ output, through, waitReady }: Flags): string | undefined {
  if (output === undefined && through === undefined) return 'where to? -o or --through says it';
  if (waitReady && output !== STANDARD) return 'only the other end of a stream can be waited for: -o -';
  return undefined;
}

const STANDARD = '-';

async function run(flags: Flags, interrupt: Interrupt): Promise<number> {
  if (flags.through !== undefined) return await runThrough(flags.through, flags, interrupt);
  if (flags.output === STANDARD) return await runStream(flags, interrupt);
  await using engine = createEngine();
  const result = await save(flags, interrupt, { to: flags.output ?? '', engine });
  if (flags.json) printJson(result);
  else print(summary(result, await inspect({ directory: result.directory, engine })));
  return EXIT.DONE;
}

/** Standard output has the image, so everything else goes to standard error. */
async function runStream(flags: Flags, interrupt: Interrupt): Promise<number> {
  const answers = flags.waitReady ? { answers: STDIN } : {};
  const result = await save(flags, interrupt, { to: { fd: STDOUT, ...answers } });
  printError(flags.json ? JSON.stringify(result) : streamSummary(result, flags.waitReady === true));
  return EXIT.DONE;
}

const STDIN = 0;
const STDOUT = 1;

/** The command has both ends of the conversation, so the tree is killed only when it has brought it up. */
async function runThrough(through: string, flags: Flags, interrupt: Interrupt): Promise<number> {
  const child = spawn('sh', ['-c', through], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.on('error', () => {});
  const result = await save(flags, interrupt, { to: child.stdin, answers: child.stdout });
  // It may stay as long as the tree does, on whose behalf it speaks; we do not.
  child.unref();
  if (flags.json) printJson(result);
  else printError(streamSummary(result, true));
  return EXIT.DONE;
}

type Destination = Pick<Parameters<typeof checkpoint>[0], 'engine'> &
  ({ readonly to: string | StreamDescriptor } | { readonly to: Writable; readonly answers: Readable });

async function save(
  flags: Flags,
  { signal }: Interrupt,
  destination: Destination,
): Promise<CheckpointResult> {
  using progress = new ProgressLine(`saving pid ${flags.pid}`);
  return await checkpoint({
    ...destination,
    pid: flags.pid,
    afterwards: flags.leaveRunning ? 'run' : flags.leaveStopped ? 'stop' : 'kill',
    shell_job: flags.shellJob === true,
    timeout_ms: flags.timeout * 1000,
    checksums: flags.checksums,
    durable: flags.sync,
    overwrite: flags.overwrite === true,
    trust: flags.trust === true,
    link_remap: flags.linkRemap === true,
    ghost_limit_bytes: flags.ghostLimit,
    external: flags.external,
    ext_unix_sk: flags.extUnixSk === true,
    outside_pipes: flags.outsidePipes === true,
    irmap_scan_paths: flags.irmapScanPath,
    file_locks: flags.fileLocks,
    ...connectionOptions(flags),
    signal,
    onProgress: progress.update,
  });
}

function streamSummary(result: CheckpointResult, isAnswered: boolean): string {
  const fate = isAnswered
    ? 'it runs at the other end, and was killed here'
    : `it was ${FATES[result.afterwards]}`;
  return (
    `Sent pid ${result.pid}: ${count(result.processes, 'process', 'processes')}, ${count(result.threads, 'thread')}, ` +
    `${formatBytes(result.image_bytes)}; frozen for ${formatTime(result.frozen_ms)}; ${fate}`
  );
}

const FATES = { kill: 'killed', run: 'left running', stop: 'left stopped' } as const;

function summary(result: CheckpointResult, image: InspectResult): string {
  const PAGE_BYTES = 4096;
  const phases = result.phases.map(({ name, duration_ms }) => `${name} ${duration_ms.toFixed(1)}`).join(', ');
  const { private_pages, shared_pages } = result;
  return [
    `Saved pid ${result.pid} to ${result.directory}; the tree was ${FATES[result.afterwards]}`,
    '',
    formatTree(image.processes),
    '',
    `tree     ${count(result.processes, 'process', 'processes')}, ${count(result.threads, 'thread')}`,
    `frozen   ${formatTime(result.frozen_ms)} (stopping took ${formatTime(result.freezing_ms)}, all of it ${formatTime(result.total_ms)})`,
    `phases   ${phases} ms`,
    `memory   ${formatBytes(private_pages * PAGE_BYTES)} private, ${formatBytes(shared_pages * PAGE_BYTES)} shared`,
    `image    ${formatBytes(result.image_bytes)} in ${count(Object.keys(result.files).length, 'file')}`,
  ].join('\n');
}
