import { readFileSync } from 'node:fs';
import { UsageError } from './getopt.js';

/**
 * Configuration files: an option a line, without its dashes, its value after white space, in double quotes where it
 * holds white space itself (`\"` for a quote within). A `#` begins a comment.
 */

/** The options of a file's text as words of a command line. `file` is for messages. */
export function parseConfig(text: string, file: string): string[] {
  return text.split('\n').flatMap((line, index) => parseLine(line, `${file}, line ${index + 1}`));
}

const LINE = /^\s*([^\s#]+)(?:\s+(?:"((?:\\"|[^"])*)"|([^\s"#][^\s#]*)))?\s*(?:#.*)?$/;
const EMPTY = /^\s*(?:#.*)?$/;

function parseLine(line: string, place: string): string[] {
  if (EMPTY.test(line)) return [];
  const match = LINE.exec(line);
  if (match === null) throw new UsageError(`${place}: not an option and at most one value: ${line.trim()}`);
  const [, name = '', quoted, plain] = match;
  const value = quoted?.replaceAll('\\"', '"') ?? plain;
  return value === undefined ? [`--${name}`] : [`--${name}`, value];
}

/** The words of a file; undefined when it cannot be read. */
function readConfig(file: string): string[] | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
  return parseConfig(text, file);
}

/**
 * Words of all sources in the order in which they count, later ones win: system, user, $CRIU_CONFIG_FILE, --config,
 * command line. `--config FILE` and `--no-default-config` on the command line leave the default files out.
 */
export function gatherWords(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): { file: string; words: readonly string[] }[] {
  let chosen: string | undefined;
  let defaults = true;
  args.forEach((arg, index) => {
    if (arg === '--no-default-config') defaults = false;
    else if (arg === '--config') chosen = args[index + 1];
    else if (arg.startsWith('--config=')) chosen = arg.slice('--config='.length);
  });
  const files: string[] = [];
  if (defaults && chosen === undefined) {
    files.push('/etc/criu/default.conf');
    if (environment.HOME) files.push(`${environment.HOME}/.criu/default.conf`);
  }
  if (environment.CRIU_CONFIG_FILE) files.push(environment.CRIU_CONFIG_FILE);
  if (chosen !== undefined) files.push(chosen);
  return files.flatMap((file) => {
    const words = readConfig(file);
    return words === undefined ? [] : [{ file, words }];
  });
}
