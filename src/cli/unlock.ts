import type { Command } from 'commander';
import { unlock } from '../library/api.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print } from './output.js';
import { count } from './table.js';
import { printJson, runVerb } from './verb.js';

interface Flags {
  readonly json?: true;
}

export function addUnlock(program: Command, done: (status: number) => void): void {
  program
    .command('unlock')
    .description('let go of the connections that a checkpoint has left silent, without a restore')
    .argument('<dir>', 'image directory')
    .option('--json', 'print one JSON object')
    .action(async (directory: string, flags: Flags) =>
      done(await runVerb(flags.json === true, (interrupt) => run(directory, flags, interrupt))),
    );
}

async function run(directory: string, flags: Flags, { signal }: Interrupt): Promise<number> {
  const result = await unlock({ directory, signal });
  if (flags.json) printJson(result);
  else if (result.tables.length === 0) print(`nothing is locked for ${result.directory}`);
  else print(`removed ${count(result.tables.length, 'table')}: ${result.tables.join(', ')}`);
  return EXIT.DONE;
}
