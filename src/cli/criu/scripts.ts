import { spawnSync } from 'node:child_process';
import type { Session } from './session.js';

/**
 * Action scripts: programs that are run at fixed points, with the point's name in $CRTOOLS_SCRIPT_ACTION, the image
 * directory in $CRTOOLS_IMAGE_DIR and the root's pid, once there is one, in $CRTOOLS_INIT_PID. What they print goes
 * to the log.
 */
export type ScriptAction =
  | 'pre-dump'
  | 'post-dump'
  | 'pre-restore'
  | 'post-restore'
  | 'pre-resume'
  | 'post-resume';

/** A script that could not be started, or that a signal ended, counts as this status. */
const FAILED = 255;

/** Runs all scripts, whatever the earlier ones say; answers the first status that is not 0. */
export function runScripts(session: Session, action: ScriptAction, rootPid: number | undefined): number {
  const { options, log } = session;
  if (options.actionScripts.length === 0) return 0;
  log.debug(`Running ${action} scripts`);
  const env = {
    ...process.env,
    CRTOOLS_SCRIPT_ACTION: action,
    CRTOOLS_IMAGE_DIR: `/proc/${process.pid}/fd/${session.imagesFd}`,
    ...(rootPid === undefined ? {} : { CRTOOLS_INIT_PID: String(rootPid) }),
  };
  const statuses = options.actionScripts.map((script) => {
    log.debug(`\t[${script}]`);
    const { status, signal, error } = spawnSync(script, [], { stdio: ['ignore', log.fd, log.fd], env });
    if (error !== undefined) log.error('scripts', `Script ${script} cannot be run: ${error.message}`);
    else if (signal !== null) log.error('scripts', `Script ${script} was killed by ${signal}`);
    else if (status !== 0) log.error('scripts', `Script ${script} exited with ${status}`);
    return error !== undefined ? FAILED : (status ?? FAILED);
  });
  return statuses.find((status) => status !== 0) ?? 0;
}
