import type { Command } from 'commander';
import { check } from '../library/api.js';
import type { CheckResult } from '../library/results.js';
import { collect, parseBytes, parsePid } from './arguments.js';
import { addConnectionFlags, type ConnectionFlags, connectionOptions } from './connection-flags.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print } from './output.js';
import { formatTable, printable } from './table.js';
import { printJson, runVerb } from './verb.js';

interface Flags extends ConnectionFlags {
  readonly pid?: number;
  readonly shellJob?: true;
  readonly linkRemap?: true;
  readonly ghostLimit: number;
  readonly external: string[];
  readonly extUnixSk?: true;
  readonly outsidePipes?: true;
  readonly irmapScanPath: string[];
  readonly fileLocks: boolean;
  readonly json?: true;
}

export function addCheck(program: Command, done: (status: number) => void): void {
  const command = program
    .command('check')
    .description('say what this host offers, and for a pid every reason why it could not be saved')
    .option('--pid <pid>', 'root of a tree', parsePid)
    .option('--shell-job', 'as for checkpoint')
    .option('--link-remap', 'as for checkpoint')
    .option('--ghost-limit <size>', 'as for checkpoint', parseBytes, 2 ** 20)
    .option('--external <key>', 'as for checkpoint (repeatable)', collect, [])
    .option('--ext-unix-sk', 'as for checkpoint')
    .option('--outside-pipes', 'as for checkpoint')
    .option('--irmap-scan-path <dir>', 'as for checkpoint (repeatable)', collect, [])
    .option('--no-file-locks', 'as for checkpoint');
  addConnectionFlags(command)
    .option('--json', 'print one JSON object')
    .action(async (flags: Flags) => done(await runVerb(flags.json === true, (i) => run(flags, i))));
}

async function run(flags: Flags, { signal }: Interrupt): Promise<number> {
  const result = await check({
    ...(flags.pid === undefined ? {} : { pid: flags.pid }),
    shell_job: flags.shellJob === true,
    link_remap: flags.linkRemap === true,
    ghost_limit_bytes: flags.ghostLimit,
    external: flags.external,
    ext_unix_sk: flags.extUnixSk === true,
    outside_pipes: flags.outsidePipes === true,
    irmap_scan_paths: flags.irmapScanPath,
    file_locks: flags.fileLocks,
    ...connectionOptions(flags),
    signal,
  });
  if (flags.json) printJson(result);
  else print(describe(result));
  return result.ok ? EXIT.DONE : EXIT.UNSUPPORTED;
}

function describe(result: CheckResult): string {
  const missing = result.host.filter(({ required, state }) => required && state !== 'ok');
  if (result.refusals !== null) {
    const lines = result.refusals.map(({ task, object, reason, help }) =>
      printable(`${object} of ${task}: ${reason}${help === undefined ? '' : `; ${help}`}`),
    );
    const verdict =
      lines.length === 0 ? `pid ${result.pid} can be saved` : `pid ${result.pid} cannot be saved:`;
    return [
      verdict,
      ...lines.map((line) => `  ${line}`),
      ...(missing.length === 0 ? [] : [host(result)]),
    ].join('\n');
  }
  return host(result);
}

const MARKS = { ok: 'yes', missing: 'no', unused: 'not yet' } as const;

function locksOf({ locks }: CheckResult): string {
  const lines = locks.map((lock) => {
    const { table, network } = lock;
    return `  ${table}${network === null ? '' : ` in ${printable(network)}`}${wayOut(lock)}`;
  });
  return lines.length === 0
    ? ''
    : `\n\nConnections are silent, until images are restored, by tables\n${lines.join('\n')}`;
}

function wayOut({ directory, pid, left_stopped }: CheckResult['locks'][number]): string {
  if (left_stopped)
    return `: pid ${pid} was left stopped; stasis unlock --pid ${pid} --kill if it runs at the other end, or --resume`;
  if (directory === null) return '';
  return directory.startsWith('/')
    ? `: stasis unlock ${printable(directory)}`
    : `: ${printable(directory)}; stasis unlock --pid ${pid}`;
}

function host(result: CheckResult): string {
  const { host: features } = result;
  const columns = [
    { title: 'FEATURE', align: 'left' },
    { title: 'HERE', align: 'left' },
    { title: 'NEEDED', align: 'left' },
    { title: 'FOR', align: 'left' },
  ] as const;
  const rows = features.map(({ name, what, state, required, reason }) => [
    name,
    MARKS[state],
    required ? 'always' : 'sometimes',
    state === 'missing' ? `${what}: ${reason}` : what,
  ]);
  const missing = features.filter(({ required, state }) => required && state !== 'ok');
  const verdict =
    missing.length === 0 ? 'This host can save and restore' : 'This host CANNOT save and restore';
  return `${formatTable(columns, rows)}\n\n${verdict}${locksOf(result)}`;
}
