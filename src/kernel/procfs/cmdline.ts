/** /proc/PID/cmdline and environ: proc_pid_cmdline(5), proc_pid_environ(5). Raw, since the task can write there. */
import { decodeBytes } from './bytes.js';
import { readBytes, readText, taskPath, type Where } from './read.js';

/** Empty for zombies and kernel threads. */
export function readCmdline(pid: number, where: Where = {}): Buffer {
  return readBytes(taskPath(pid, 'cmdline', where));
}

export function readEnviron(pid: number, where: Where = {}): Buffer {
  return readBytes(taskPath(pid, 'environ', where));
}

/** Strings that end in a zero byte each. */
export function splitStrings(bytes: Buffer): string[] {
  const strings = decodeBytes(bytes).split('\0');
  if (strings.at(-1) === '') strings.pop();
  return strings;
}

/** Name of a thread; it may hold newlines, only the last one is the kernel's. */
export function readComm(pid: number, where: Where = {}): string {
  return readText(taskPath(pid, 'comm', where)).replace(/\n$/, '');
}
