import { closeSync, constants, openSync, writeSync } from 'node:fs';
import type { Command } from 'commander';
import { type Restored, restore } from '../library/api.js';
import type { ExitStatus } from '../library/results.js';
import { collect, collectInherited } from './arguments.js';
import { networkLock } from './connection-flags.js';
import { EXIT, EXIT_SIGNAL } from './exit.js';
import type { Interrupt } from './interrupt.js';
import { printError } from './output.js';
import { ProgressLine } from './progress.js';
import { count, formatTime } from './table.js';
import { printJson, runVerb } from './verb.js';

interface Flags {
  readonly detach?: true;
  readonly pidfile?: string;
  readonly verify?: true;
  readonly trust?: true;
  readonly shellJob?: true;
  readonly leaveStopped?: true;
  readonly inheritFd: Record<string, number>;
  readonly external: string[];
  readonly joinNs: string[];
  readonly spool?: string;
  readonly extUnixSk?: true;
  readonly tcpClose?: true;
  readonly networkLock: 'nftables' | 'skip';
  readonly json?: true;
}

export function addRestore(program: Command, done: (status: number) => void): void {
  program
    .command('restore')
    .description('bring a process tree back from its image')
    .argument(
      '<image>',
      'image directory, archive, or - for a stream on standard input (answered on standard output)',
    )
    .option('--detach', 'return once the tree runs (otherwise when its root ends, with its status)')
    .option('--pidfile <file>', "write the root's pid to a file")
    .option('--verify', 'compare all files with their checksums first')
    .option('--trust', 'accept an image that another user owns or could change')
    .option('--shell-job', "the root's session and terminal are the caller's")
    .option('--leave-stopped', 'leave the tree stopped')
    .option(
      '--inherit-fd <fd[N]:KEY>',
      'descriptor N stands in for an outside file (repeatable)',
      collectInherited,
      {},
    )
    .option('--external <key>', 'what is outside of the tree (repeatable)', collect, [])
    .option(
      '--join-ns <net:PATH>',
      'restore it in this network namespace; net:PID for that of a process',
      collect,
      [],
    )
    .option(
      '--spool <dir>',
      'with -: where the image lies until the tree runs, without a name; $TMPDIR or /var/tmp',
    )
    .option('--ext-unix-sk', 'connect to named datagram sockets outside of the tree again')
    .option('--tcp-close', 'restore TCP connections as closed sockets')
    .addOption(networkLock())
    .option('--json', 'print one JSON object')
    .action(async (directory: string, flags: Flags) =>
      done(await runVerb(flags.json === true, (interrupt) => run(directory, flags, interrupt))),
    );
}

async function run(directory: string, flags: Flags, interrupt: Interrupt): Promise<number> {
  // Opened before there is a tree, so that a path that cannot be written ends nothing.
  const pidfile = flags.pidfile === undefined ? undefined : openPidfile(flags.pidfile);
  const restored = await bringBack(directory, flags, interrupt);
  const { exit, ...result } = restored;
  if (pidfile !== undefined) {
    writeSync(pidfile, `${restored.pid}\n`);
    closeSync(pidfile);
  }
  if (!flags.json) printError(summary(restored));
  if (exit === undefined) {
    if (flags.json) printJson({ ...result, exit: null });
    return EXIT.DONE;
  }
  interrupt.forward = (signal) => forward(signal, restored.pid, flags.shellJob === true);
  const status = await exit;
  if (flags.json) printJson({ ...result, exit: status });
  return statusAs(status);
}

const STDIN = 0;
const STDOUT = 1;

async function bringBack(directory: string, flags: Flags, { signal }: Interrupt): Promise<Restored> {
  const { spool } = flags;
  using progress = new ProgressLine(`restoring ${directory === '-' ? 'a stream' : directory}`);
  return await restore({
    from:
      directory === '-'
        ? { fd: STDIN, answers: STDOUT, ...(spool === undefined ? {} : { spool }) }
        : directory,
    detach: flags.detach === true,
    verify: flags.verify === true,
    trust: flags.trust === true,
    shell_job: flags.shellJob === true,
    leave_stopped: flags.leaveStopped === true,
    inherit_fds: flags.inheritFd,
    external: flags.external,
    join_ns: flags.joinNs,
    ext_unix_sk: flags.extUnixSk === true,
    tcp_close: flags.tcpClose === true,
    network_lock: flags.networkLock,
    signal,
    onProgress: progress.update,
    ...(flags.shellJob ? { stdio: 'inherit' as const } : {}),
  });
}

function openPidfile(file: string): number {
  return openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o644);
}

/** The terminal sends SIGINT to a shell job itself. */
function forward(signal: NodeJS.Signals, pid: number, isShellJob: boolean): void {
  if (isShellJob && signal === 'SIGINT') return;
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function statusAs(status: ExitStatus): number {
  return status.kind === 'exited' ? status.status : EXIT_SIGNAL + status.signal;
}

function summary(restored: Restored): string {
  const { pid, processes, threads, total_ms, phases } = restored;
  const times = phases.map(({ name, duration_ms }) => `${name} ${duration_ms.toFixed(1)}`).join(', ');
  return (
    `Restored pid ${pid}: ${count(processes, 'process', 'processes')}, ${count(threads, 'thread')} ` +
    `in ${formatTime(total_ms)} (${times} ms)`
  );
}
