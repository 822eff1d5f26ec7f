import { readDescriptors } from '../../kernel/procfs/descriptors.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import type { Descriptor, Process } from '../contract.js';

/** What a process has open now, while it runs, perhaps; nothing of one that has ended. */
export function descriptorsOf(process: Process): Descriptor[] {
  const infos = unlessVanished(() => readDescriptors(process.pid)) ?? [];
  return infos.map((info) => ({ process, fd: info.fd, info }));
}
