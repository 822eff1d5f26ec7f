import type { Command } from 'commander';
import { plan } from '../library/api.js';
import { collect } from './arguments.js';
import { EXIT } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { print } from './output.js';
import { ProgressLine } from './progress.js';
import { printJson, runVerb } from './verb.js';

interface Flags {
  readonly shellJob?: true;
  readonly external: string[];
  readonly joinNs: string[];
  readonly extUnixSk?: true;
  readonly json?: true;
}

export function addPlan(program: Command, done: (status: number) => void): void {
  program
    .command('plan')
    .description('print the tapes that a restore would play, as strace would')
    .argument('<image>', 'image directory or archive')
    .option('--shell-job', 'as for restore')
    .option('--external <key>', 'as for restore (repeatable)', collect, [])
    .option('--join-ns <net:PATH>', 'as for restore', collect, [])
    .option('--ext-unix-sk', 'as for restore')
    .option('--json', 'print one JSON object')
    .action(async (directory: string, flags: Flags) =>
      done(await runVerb(flags.json === true, (interrupt) => run(directory, flags, interrupt))),
    );
}

async function run(directory: string, flags: Flags, { signal }: Interrupt): Promise<number> {
  using progress = new ProgressLine(`planning ${directory}`);
  const planned = await plan({
    directory,
    shell_job: flags.shellJob === true,
    external: flags.external,
    join_ns: flags.joinNs,
    ext_unix_sk: flags.extUnixSk === true,
    signal,
    onProgress: progress.update,
  });
  if (flags.json) {
    printJson(planned);
    return EXIT.DONE;
  }
  let barrier: string | undefined;
  for (const { phase, listing } of planned.tapes) {
    if (phase !== barrier) print(`\n######## ${phase}`);
    barrier = phase;
    print(`\n${listing}`);
  }
  return EXIT.DONE;
}
