import type { Command } from 'commander';
import { inspect } from '../library/api.js';
import type { InspectResult } from '../library/results.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print, printError } from './output.js';
import { ProgressLine } from './progress.js';
import { count, formatBytes, formatTable } from './table.js';
import { formatTree } from './tree.js';
import { printJson, runVerb } from './verb.js';

interface Flags {
  readonly verify?: true;
  readonly json?: true;
}

const FILES_SHOWN = 10;

export function addInspect(program: Command, done: (status: number) => void): void {
  program
    .command('inspect')
    .description('show what an image holds: tree, memory, files, and where its size is')
    .argument('<image>', 'image directory or archive')
    .option('--verify', 'check everything, checksums included')
    .option('--json', 'print one JSON object')
    .action(async (directory: string, flags: Flags) =>
      done(await runVerb(flags.json === true, (interrupt) => run(directory, flags, interrupt))),
    );
}

async function run(directory: string, flags: Flags, { signal }: Interrupt): Promise<number> {
  const image = await read(directory, flags, signal);
  if (flags.json) printJson(image);
  else print(describe(image));
  const { problems } = image;
  if (problems === null || problems.length === 0) return EXIT.DONE;
  if (!flags.json)
    for (const { file, offset_bytes, message } of problems)
      printError(`${file}${offset_bytes === null ? '' : `, offset ${offset_bytes}`}: ${message}`);
  return EXIT.IMAGE;
}

async function read(directory: string, flags: Flags, signal: AbortSignal): Promise<InspectResult> {
  using progress = new ProgressLine(`reading ${directory}`);
  return await inspect({ directory, verify: flags.verify === true, signal, onProgress: progress.update });
}

function describe(image: InspectResult): string {
  const { processes, files, problems } = image;
  const threads = processes.reduce((sum, process) => sum + process.threads.length, 0);
  const verdict =
    problems === null
      ? []
      : [problems.length === 0 ? soundness(image) : `PROBLEMS ${problems.length}, see below`];
  return [
    `Image ${image.directory}, version ${image.version}${image.parent === null ? '' : `, increment of ${image.parent}`}`,
    `${count(processes.length, 'process', 'processes')}, ${count(threads, 'thread')}, ` +
      `${formatBytes(image.image_bytes)}, of that ${formatBytes(image.pages_bytes)} are pages ` +
      `(${formatBytes(image.shared_memory_bytes)} of shared memory)`,
    ...verdict,
    '',
    formatTree(processes),
    '',
    ...descriptors(image),
    largest(files),
  ].join('\n');
}

function soundness({ checksums }: InspectResult): string {
  return checksums
    ? 'Sound: everything parses and fits, all checksums match'
    : 'Sound: everything parses and fits (there are no checksums of its contents)';
}

function descriptors({ processes }: InspectResult): string[] {
  const rows = processes
    .filter((process) => Object.keys(process.descriptors).length > 0)
    .map((process) => [
      String(process.pid),
      Object.entries(process.descriptors)
        .sort(([, a], [, b]) => b - a)
        .map(([kind, number]) => `${number} ${kind}`)
        .join(', '),
    ]);
  if (rows.length === 0) return [];
  const columns = [
    { title: 'PID', align: 'right' },
    { title: 'DESCRIPTORS', align: 'left' },
  ] as const;
  return [formatTable(columns, rows), ''];
}

function largest(files: InspectResult['files']): string {
  const columns = [
    { title: 'SIZE', align: 'right' },
    { title: 'RECORDS', align: 'right' },
    { title: 'FILE', align: 'left' },
  ] as const;
  const rows = files
    .slice(0, FILES_SHOWN)
    .map(({ name, bytes, records }) => [formatBytes(bytes), records === null ? '-' : String(records), name]);
  const more = files.length - rows.length;
  return `${formatTable(columns, rows)}${more > 0 ? `\n… and ${count(more, 'smaller file')}` : ''}`;
}
