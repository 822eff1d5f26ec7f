import { type Command, Option } from 'commander';
import { unlock } from '../library/api.js';
import type { UnlockResult } from '../library/results.js';
import { parsePid } from './arguments.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print } from './output.js';
import { count } from './table.js';
import { printJson, runVerb } from './verb.js';

interface Flags {
  readonly pid?: number;
  readonly resume?: true;
  readonly kill?: true;
  readonly json?: true;
}

export function addUnlock(program: Command, done: (status: number) => void): void {
  program
    .command('unlock')
    .description(
      'let go of the connections that a checkpoint has left silent, without a restore; decide about a tree that a stream has left stopped',
    )
    .argument('[dir]', 'image directory')
    .option('--pid <pid>', 'instead of an image: root of a tree that went out on a stream', parsePid)
    .addOption(
      new Option(
        '--resume',
        'the tree does not run at the other end: it goes on here, with its connections',
      ).conflicts('kill'),
    )
    .option(
      '--kill',
      'the tree runs at the other end: kill it here, without a word to its peers; the lock stays, for what still comes in',
    )
    .option('--json', 'print one JSON object')
    .action(async (directory: string | undefined, flags: Flags, command: Command) => {
      if ((directory === undefined) === (flags.pid === undefined))
        command.error('error: give an image directory, or --pid');
      if ((flags.resume || flags.kill) && flags.pid === undefined)
        command.error('error: --resume and --kill are about the tree of a --pid');
      return done(await runVerb(flags.json === true, (interrupt) => run(directory, flags, interrupt)));
    });
}

async function run(directory: string | undefined, flags: Flags, { signal }: Interrupt): Promise<number> {
  const result = await unlock({
    ...(directory === undefined ? {} : { directory }),
    ...(flags.pid === undefined ? {} : { pid: flags.pid }),
    ...(flags.resume ? { decision: 'resume' } : flags.kill ? { decision: 'kill' } : {}),
    signal,
  });
  if (flags.json) printJson(result);
  else print(describe(result, flags));
  return EXIT.DONE;
}

function describe({ directory, pid, processes, connections, tables }: UnlockResult, flags: Flags): string {
  const who = `pid ${pid} (${count(processes, 'process', 'processes')})`;
  if (flags.kill)
    return `killed ${who}; what still comes in for it is dropped until stasis unlock --pid ${pid}`;
  if (flags.resume) return `${who} goes on, with ${count(connections, 'connection')}`;
  if (tables.length === 0) return `nothing is locked for ${directory ?? `pid ${pid}`}`;
  return `removed ${count(tables.length, 'table')}: ${tables.join(', ')}`;
}
