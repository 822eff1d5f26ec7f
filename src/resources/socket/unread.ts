import { POLLERR, POLLIN } from '../../abi/event.js';
import { pollNow } from '../../kernel/poll.js';
import type { Descriptor, DumpContext } from '../contract.js';
import { refusalOf } from '../description/described.js';

export interface Unread {
  readonly data: boolean;
  /** An error that the next call will report, or messages in the error queue. */
  readonly error: boolean;
}

/** What poll(2) says of a socket, which takes nothing out of it; reading would take a pending error. */
export function unreadOf(fd: number): Unread {
  const events = pollNow(fd, POLLIN);
  return { data: (events & POLLIN) !== 0, error: (events & POLLERR) !== 0 };
}

/** What the program is about to read by itself: the dump is tried again a little later. */
export function retryUnread(descriptor: Descriptor, what: string, context: DumpContext): never {
  return context.retry(
    refusalOf(
      descriptor,
      `it has ${what}, which the kernel gives out only once and does not take back`,
      'let the program read it',
    ),
  );
}
