import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { errnoMessage } from '../../abi/errno.js';
import { F_SETFD, FD_CLOEXEC } from '../../abi/fcntl.js';
import { SIGACTION_SIZE, SIGPIPE, SIGSET_SIZE } from '../../abi/signal.js';
import { cString } from '../../kernel/c-string.js';
import { NativeMemory } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import { CriuError } from './session.js';

/**
 * execvp(3) in place of this process, whose children stay its own: the restored root becomes the command's child.
 */
export function execute(command: readonly string[]): number {
  const [name] = command;
  if (name === undefined) throw new CriuError('exec', '--exec-cmd requires a command');
  const file = findProgram(name);
  if (file === undefined) throw new CriuError('exec', `Failed to exec command ${name}: not found`);
  const environment = Object.entries(process.env).map(([key, value]) => `${key}=${value}`);
  const strings = [file, ...command, ...environment].map(cString);
  const length = strings.reduce((sum, { length }) => sum + length, 0);
  const pointers = (command.length + 1 + environment.length + 1) * 8;
  using memory = new NativeMemory(pointers + length);

  const addresses = place(memory, strings, pointers);
  const argv = writeVector(memory, 0, addresses.slice(1, 1 + command.length));
  const envp = writeVector(memory, (command.length + 1) * 8, addresses.slice(1 + command.length));
  undoNodesSettings();
  const result = attempt('execve', [addresses[0] ?? 0n, argv, envp]);
  throw new CriuError('exec', `Failed to exec command ${name}: ${errnoMessage(-result)}`);
}

function place(memory: NativeMemory, strings: readonly Buffer[], start: number): bigint[] {
  let at = start;
  return strings.map((bytes) => {
    memory.bytes.set(bytes, at);
    const address = memory.address + BigInt(at);
    at += bytes.length;
    return address;
  });
}

function writeVector(memory: NativeMemory, at: number, addresses: readonly bigint[]): bigint {
  [...addresses, 0n].forEach((address, index) => {
    memory.view.setBigUint64(at + index * 8, address, true);
  });
  return memory.address + BigInt(at);
}

/** Node ignores SIGPIPE, and closes standard descriptors on exec; neither is to be inherited. */
function undoNodesSettings(): void {
  using action = new NativeMemory(SIGACTION_SIZE);
  attempt('rt_sigaction', [SIGPIPE, action.address, 0, SIGSET_SIZE]);
  for (const fd of [0, 1, 2]) attempt('fcntl', [fd, F_SETFD, 0 & FD_CLOEXEC]);
}

function findProgram(name: string): string | undefined {
  if (name.includes('/')) return name;
  const directories = (process.env.PATH ?? '/bin:/usr/bin').split(':');
  return directories.map((directory) => path.join(directory || '.', name)).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
