import { Command, CommanderError } from 'commander';
import { addCheck } from './check.js';
import { addCheckpoint } from './checkpoint.js';
import { stasisVersion } from './criu/version.js';
import { EXIT } from './exit.js';
import { addImage } from './image.js';
import { addInspect } from './inspect.js';
import { writeTo } from './output.js';
import { addPlan } from './plan.js';
import { addRestore } from './restore.js';
import { addUnlock } from './unlock.js';

/** The command `stasis`: a thin client of the library. Answers the status to exit with. */
export async function main(args: readonly string[]): Promise<number> {
  let status: number = EXIT.DONE;
  const done = (verbs: number): void => {
    status = verbs;
  };
  const program = new Command('stasis')
    .description('Checkpoint and restore process trees')
    .version(stasisVersion())
    .showHelpAfterError('(--help says more)')
    .exitOverride()
    .configureOutput(OUTPUT);
  for (const add of [addCheckpoint, addRestore, addInspect, addPlan, addCheck, addUnlock, addImage])
    add(program, done);
  try {
    await program.parseAsync([...args], { from: 'user' });
    return status;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? EXIT.DONE : EXIT.USAGE;
  }
}

const STDOUT = 1;
const STDERR = 2;
const WIDTH = 100;

/** Commander's own output would open process.stdout, which can set O_NONBLOCK on a shared terminal. */
const OUTPUT = {
  writeOut: (text: string): void => writeTo(STDOUT, text),
  writeErr: (text: string): void => writeTo(STDERR, text),
  getOutHelpWidth: (): number => WIDTH,
  getErrHelpWidth: (): number => WIDTH,
  getOutHasColors: (): boolean => false,
  getErrHasColors: (): boolean => false,
};
