import { closeSync } from 'node:fs';
import { hostname, machine, release, version } from 'node:os';
import { print } from '../output.js';
import { gatherWords } from './config-file.js';
import { UsageError } from './getopt.js';
import { Log } from './log.js';
import { parseOptions } from './option-table.js';
import type { CriuOptions } from './options.js';
import { CriuError, openSession, reasonOf, type Session } from './session.js';
import { usage } from './usage.js';
import { CRIU_VERSION, stasisVersion } from './version.js';

/**
 * The drop-in `criu`. It does its work in this process, on the thread that starts it, and loads the engine only for
 * the verbs that need it: callers run it hundreds of times, often for its version or one feature.
 */

const VERBS = ['dump', 'restore', 'check'];
const LATER_VERBS = ['pre-dump', 'page-server', 'lazy-pages', 'dedup', 'service', 'swrk'];

interface Command {
  readonly verb: string;
  /** What --exec-cmd becomes. */
  readonly rest: readonly string[];
}

/** Answers the status to exit with. */
export async function main(args: readonly string[]): Promise<number> {
  const log = new Log(2);
  try {
    return await run(args, log);
  } catch (error) {
    if (error instanceof UsageError) {
      log.error('options', `${error.message} (criu --help says more)`);
    } else await report(error, log);
    return 1;
  } finally {
    log.flush();
  }
}

async function run(args: readonly string[], log: Log): Promise<number> {
  const sources = args.includes('--help') || args.includes('-h') ? [] : gatherWords(args, process.env);
  const { options, words } = parseOptions([...sources.map((source) => source.words), args]);
  if (options.given.has('help') || options.given.has('version')) return inform(options);
  log.level = options.verbosity;
  for (const { file } of sources) log.debug(`Options of ${file} were read`);
  const command = commandOf(words, options);
  closeAll(options);
  const session = openSession(options, log);
  announce(session, command.verb);
  const status = await dispatch(command, session);
  log.close();
  return status;
}

function inform(options: CriuOptions): number {
  if (options.given.has('help')) print(usage());
  else print(`Version: ${CRIU_VERSION}\nStasis: ${stasisVersion()}`);
  return 0;
}

function commandOf(words: readonly string[], options: CriuOptions): Command {
  const [verb, ...rest] = words;
  if (verb === undefined) throw new UsageError('command is required');
  if (verb === 'cpuinfo') {
    const [action, ...others] = rest;
    if (action !== 'dump' && action !== 'check')
      throw new UsageError('cpuinfo requires an action: dump or check');
    if (others.length > 0)
      throw new UsageError(`excessive parameter for command cpuinfo: ${others.join(' ')}`);
    return { verb: `cpuinfo ${action}`, rest: [] };
  }
  if (LATER_VERBS.includes(verb))
    throw new CriuError('criu', `criu ${verb} is not available yet in this version of Stasis`);
  if (!VERBS.includes(verb)) throw new UsageError(`unknown command: ${verb}`);
  if (!options.execCmd) {
    if (rest.length > 0) throw new UsageError(`excessive parameter for command ${verb}: ${rest.join(' ')}`);
    return { verb, rest };
  }
  if (rest.length === 0) throw new UsageError('--exec-cmd requires a command');
  if (verb !== 'restore') throw new UsageError('--exec-cmd is available for the restore command only');
  if (options.restoreDetached)
    throw new UsageError('--restore-detached and --exec-cmd cannot be used together');
  return { verb, rest };
}

function closeAll({ closeFds }: CriuOptions): void {
  for (const fd of closeFds) {
    try {
      closeSync(fd);
    } catch (error) {
      throw new CriuError('files', `--close ${fd}: ${reasonOf(error)}`, { cause: error });
    }
  }
}

function announce({ log, options }: Session, verb: string): void {
  log.info(`Version: ${CRIU_VERSION} (Stasis ${stasisVersion()}), pid ${process.pid}`);
  log.info(`Running on ${hostname()} Linux ${release()} ${version()} ${machine()}`);
  if (verb === 'restore') return;
  if (options.inheritFds.size > 0) throw new CriuError('options', '--inherit-fd is restore-only option');
  if (options.mntnsCompatMode === true)
    throw new CriuError('options', 'Option --mntns-compat-mode is only valid on restore');
}

/** Only what a verb needs is loaded. */
async function dispatch({ verb, rest }: Command, session: Session): Promise<number> {
  switch (verb) {
    case 'dump':
      return (await import('./dump.js')).runDump(session);
    case 'restore':
      return (await import('./restore.js')).runRestore(session, rest);
    case 'check':
      return (await import('./check.js')).runCheck(session);
    case 'cpuinfo dump':
      return (await import('./cpuinfo.js')).runCpuinfoDump(session);
    case 'cpuinfo check':
      return (await import('./cpuinfo.js')).runCpuinfoCheck(session);
    default:
      throw new UsageError(`unknown command: ${verb}`);
  }
}

/** Every way to fail ends here, once. */
async function report(error: unknown, log: Log): Promise<void> {
  if (error instanceof CriuError) {
    log.error(error.area, error.message);
    return;
  }
  const { linesOf } = await import('./error-lines.js');
  const { area, text } = linesOf(error);
  log.error(area, text);
  if (error instanceof Error && error.stack !== undefined) log.debug(error.stack);
}
