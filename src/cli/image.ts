import type { Command } from 'commander';
import { pack, unpack } from '../library/api.js';
import type { PackResult } from '../library/results.js';
import { EXIT } from './exit.js';
import { printError } from './output.js';
import { ProgressLine } from './progress.js';
import { count, formatBytes } from './table.js';
import { printJson, runVerb } from './verb.js';

interface Flags {
  readonly trust?: true;
  readonly overwrite?: true;
  readonly sync: boolean;
  readonly json?: true;
}

/** `stasis image pack DIR FILE` and `stasis image unpack FILE DIR`. */
export function addImage(program: Command, done: (status: number) => void): void {
  const image = program.command('image').description('turn image directories into single files, and back');
  add(image, 'pack', '<dir> <file>', 'make one file of an image directory').action(
    async (directory: string, file: string, flags: Flags) =>
      done(
        await run(flags, `packing ${directory}`, (signal) =>
          pack({ ...optionsOf(flags), directory, file, signal }),
        ),
      ),
  );
  add(image, 'unpack', '<file> <dir>', 'make an image directory of a file').action(
    async (file: string, directory: string, flags: Flags) =>
      done(
        await run(flags, `unpacking ${file}`, (signal) =>
          unpack({ ...optionsOf(flags), directory, file, signal }),
        ),
      ),
  );
}

function add(image: Command, verb: string, places: string, description: string): Command {
  return image
    .command(verb)
    .description(description)
    .arguments(places)
    .option('--trust', 'accept an image that another user owns or could change')
    .option('--overwrite', 'replace what is there')
    .option('--no-sync', 'do not wait for the disk')
    .option('--json', 'print one JSON object');
}

function optionsOf({ trust, overwrite, sync }: Flags) {
  return { trust: trust === true, overwrite: overwrite === true, durable: sync };
}

function run(
  flags: Flags,
  what: string,
  work: (signal: AbortSignal) => Promise<PackResult>,
): Promise<number> {
  return runVerb(flags.json === true, async ({ signal }) => {
    using _ = new ProgressLine(what);
    const result = await work(signal);
    if (flags.json) printJson(result);
    else printError(`${count(result.files, 'file')}, ${formatBytes(result.bytes)}`);
    return EXIT.DONE;
  });
}
