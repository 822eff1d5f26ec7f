import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Another engine of the same image format: a criu binary that the environment names, for tests of the exchange. */
const PEER = process.env.STASIS_PEER;

/** Why tests with the peer cannot run here; false where they can, as node:test wants it. */
export const SKIP_PEER: string | false =
  PEER === undefined
    ? 'STASIS_PEER names no criu binary'
    : existsSync(PEER)
      ? false
      : `STASIS_PEER is ${PEER}, which is not there`;

/** Save a tree and kill it. */
export function peerDump(pid: number, directory: string): void {
  run('dump', ['--tree', String(pid)], directory);
}

/** Bring a tree back; the root becomes a child of the first process of the namespace. */
export function peerRestore(directory: string): void {
  run('restore', ['--restore-detached'], directory);
}

function run(verb: string, options: readonly string[], directory: string): void {
  const log = `${verb}.log`;
  try {
    // No pipes: a restored tree would hold them open.
    execFileSync(PEER ?? 'criu', [verb, ...options, '-D', directory, '-o', log, '-v4'], { stdio: 'ignore' });
  } catch (error) {
    const said = readFileSync(join(directory, log), 'utf8');
    const errors = said.split('\n').filter((line) => /Error|Warn/.test(line));
    throw new Error(`${PEER} ${verb} failed:\n${errors.slice(-12).join('\n')}`, { cause: error });
  }
}
