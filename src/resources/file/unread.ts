import { FIONREAD } from '../../abi/ioctl.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext } from '../contract.js';
import { objectOf, refusalOf } from '../description/described.js';

/**
 * Events of inotify and fanotify that wait to be read. A program reads them as soon as it runs, so this passes; `criu`
 * drops them, and whoever asks for its behaviour gets that.
 */
export function retryUnread(descriptor: Descriptor, taken: number, context: DumpContext): void {
  syscall('ioctl', [taken, FIONREAD, scratch.address], objectOf(descriptor));
  const bytes = scratch.view.getInt32(0, true);
  if (bytes === 0 || context.options.dropEvents === true) return;
  context.retry(
    refusalOf(
      descriptor,
      `it has ${bytes} bytes of events that were not read, and nobody can put them back`,
      'let the program read them',
    ),
  );
}
