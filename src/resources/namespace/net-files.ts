import { readdirSync } from 'node:fs';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { readText } from '../../kernel/procfs/read.js';

/** /proc/net of the namespace this thread is in. What the kernel does not have is empty; nothing else is. */

const ROOT = '/proc/thread-self/net';

export function linesOfNet(name: string): string[] {
  const text = unlessVanished(() => readText(`${ROOT}/${name}`)) ?? '';
  return text.split('\n').filter((line) => line.trim() !== '');
}

/** Those of a directory. */
export function filesOfNet(directory: string): string[] {
  try {
    return readdirSync(`${ROOT}/${directory}`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
