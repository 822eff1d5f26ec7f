import { type Command, Option } from 'commander';
import { checkpoint, createEngine, inspect } from '../library/api.js';
import type { CheckpointResult, InspectResult } from '../library/results.js';
import { collect, parseBytes, parsePid, parseSeconds } from './arguments.js';
import { addConnectionFlags, type ConnectionFlags, connectionOptions } from './connection-flags.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print } from './output.js';
import { ProgressLine } from './progress.js';
import { count, formatBytes, formatTime } from './table.js';
import { formatTree } from './tree.js';
import { printJson, runVerb } from './verb.js';

interface Flags extends ConnectionFlags {
  readonly pid: number;
  readonly output: string;
  readonly leaveRunning?: true;
  readonly leaveStopped?: true;
  readonly shellJob?: true;
  readonly timeout: number;
  readonly checksums: boolean;
  readonly sync: boolean;
  readonly overwrite?: true;
  readonly linkRemap?: true;
  readonly ghostLimit: number;
  readonly external: string[];
  readonly outsidePipes?: true;
  readonly fileLocks?: true;
  readonly json?: true;
}

export function addCheckpoint(program: Command, done: (status: number) => void): void {
  const command = program
    .command('checkpoint')
    .description('save a process tree into an image directory')
    .requiredOption('--pid <pid>', 'root of the tree', parsePid)
    .requiredOption('-o, --output <dir>', 'image directory, made when missing')
    .option('--leave-running', 'let the tree go on (it is killed otherwise)')
    .addOption(new Option('--leave-stopped', 'leave the tree stopped').conflicts('leaveRunning'))
    .option('--shell-job', "the root's session and terminal are the caller's")
    .option('--timeout <seconds>', 'how long a task may take to stop', parseSeconds, 10)
    .option('--no-checksums', 'do not write SHA-256 sums beside the image')
    .option('--no-sync', 'do not wait for the disk before the image counts')
    .option('--overwrite', 'replace an image that is in the directory')
    .option('--link-remap', 'give deleted files that have other names a name until they are restored')
    .option('--ghost-limit <size>', 'largest deleted file that goes into the image', parseBytes, 2 ** 20)
    .option('--external <key>', 'what is outside of the tree and stays there (repeatable)', collect, [])
    .option('--outside-pipes', 'accept pipes whose other end is outside of the tree')
    .option('--file-locks', 'save file locks');
  addConnectionFlags(command)
    .option('--json', 'print one JSON object')
    .action(async (flags: Flags) => done(await runVerb(flags.json === true, (i) => run(flags, i))));
}

async function run(flags: Flags, interrupt: Interrupt): Promise<number> {
  await using engine = createEngine();
  const result = await save(flags, interrupt, engine);
  if (flags.json) printJson(result);
  else print(summary(result, await inspect({ directory: result.directory, engine })));
  return EXIT.DONE;
}

async function save(
  flags: Flags,
  { signal }: Interrupt,
  engine: ReturnType<typeof createEngine>,
): Promise<CheckpointResult> {
  using progress = new ProgressLine(`saving pid ${flags.pid}`);
  return await checkpoint({
    pid: flags.pid,
    directory: flags.output,
    afterwards: flags.leaveRunning ? 'run' : flags.leaveStopped ? 'stop' : 'kill',
    shell_job: flags.shellJob === true,
    timeout_ms: flags.timeout * 1000,
    checksums: flags.checksums,
    durable: flags.sync,
    overwrite: flags.overwrite === true,
    link_remap: flags.linkRemap === true,
    ghost_limit_bytes: flags.ghostLimit,
    external: flags.external,
    outside_pipes: flags.outsidePipes === true,
    file_locks: flags.fileLocks === true,
    ...connectionOptions(flags),
    signal,
    engine,
    onProgress: progress.update,
  });
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
