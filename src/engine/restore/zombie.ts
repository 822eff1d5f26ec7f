import { readFileSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_WRONLY } from '../../abi/fcntl.js';
import { FSCONFIG_CMD_CREATE, FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC } from '../../abi/mount.js';
import { PR_SET_DUMPABLE } from '../../abi/prctl.js';
import { RLIMIT_CORE } from '../../abi/process.js';
import { readLimits } from '../../kernel/procfs/limits.js';
import { go } from '../../tape/logic.js';
import type { Tape } from '../../tape/tape.js';

/**
 * A zombie dies once more, and its status may say that it left a core dump. That is said only of who leaves one: into a
 * file system of its own that nobody else sees and that goes with it, without any memory in it. Where a program would be given
 * the dump (core_pattern), or where there is no right to such a file system, the status does not say so any more.
 * Nobody else leaves a dump, nor makes a program be started: a limit of nothing does not keep the kernel from that.
 */
const DUMPED = 0x80;

export function beforeDeath(tape: Tape, exitCode: number): void {
  tape.about('no core dump when it dies again');
  tape.call('prctl', [PR_SET_DUMPABLE, 0, 0, 0, 0], 0);
  const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'latin1').trim();
  if ((exitCode & DUMPED) !== 0 && !/^[|@]|^$/.test(pattern)) dumpNowhere(tape, pattern);
}

function dumpNowhere(tape: Tape, pattern: string): void {
  const [inside, alone, done] = [tape.label(), tape.label(), tape.label()];
  tape.about('but one that goes with it');
  const filter = tape.call(
    'openat',
    [AT_FDCWD, tape.string('/proc/self/coredump_filter'), O_WRONLY | O_CLOEXEC, 0],
    'any',
  );
  tape.call('write', [filter, tape.string('0'), 1], 'any');
  const system = tape.call('fsopen', [tape.string('tmpfs'), FSOPEN_CLOEXEC], 'any');
  tape.call('fsconfig', [system, FSCONFIG_CMD_CREATE, 0, 0, 0], 'any');
  const mount = tape.call('fsmount', [system, FSMOUNT_CLOEXEC, 0], 'any');
  tape.jump('fchdir', [mount], inside);
  go(tape, done);
  tape.place(inside);
  tape.jump('chroot', [tape.string('.')], alone);
  go(tape, done);
  tape.place(alone);
  for (const directory of directoriesOf(pattern)) tape.call('mkdir', [tape.string(directory), 0o700], 'any');
  const limit = tape.space(new Uint8Array(BigUint64Array.of(hardLimit(), hardLimit()).buffer));
  tape.call('prlimit64', [0, RLIMIT_CORE, limit, 0], 'any');
  tape.call('prctl', [PR_SET_DUMPABLE, 1, 0, 0, 0], 'any');
  tape.place(done);
}

/** Those above a file, the outermost first. */
function directoriesOf(path: string): string[] {
  const names = path.split('/').slice(0, -1);
  return names.map((_, index) => names.slice(0, index + 1).join('/')).filter((each) => each !== '');
}

function hardLimit(): bigint {
  return readLimits(process.pid)[RLIMIT_CORE]?.max ?? 0n;
}
