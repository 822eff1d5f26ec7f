import { O_CLOEXEC, O_NOCTTY, O_RDWR } from '../../abi/fcntl.js';
import { TIOCNOTTY, TIOCSCTTY, TIOCSPGRP } from '../../abi/ioctl.js';
import { words } from '../../kernel/words.js';
import type { Holder, SessionHooks, SessionMember } from '../contract.js';
import { TYPE } from './tty-device.js';
import { extrasOf } from './tty-extras.js';
import { type ImagePair, opensOf, pairsOf } from './tty-image.js';
import { masterKey } from './tty-pair.js';

/** Controlling terminals: the session's leader takes it (TIOCSCTTY), its children inherit it. */
interface Controlling {
  readonly key: string;
  readonly pgrp: number;
}

/** The terminal of the session that `pid` leads; undefined if it has none, or the caller's. */
function controllingOf(pid: number, holder: Holder): Controlling | undefined {
  const pair = pairsOf(holder).find(({ sid, master }) => master !== undefined && sid === pid);
  if (pair !== undefined) return { key: masterKey(pair.index), pgrp: foregroundOf(pair, holder) };
  const isPair = (type: number): boolean => type === TYPE.pty || type === TYPE.ctty;
  const open = opensOf(holder).find(({ info }) => info.sid === pid && !isPair(info.type));
  return open === undefined ? undefined : { key: `file:${open.id}`, pgrp: open.info.pgrp };
}

function foregroundOf({ index, master }: ImagePair, holder: Holder): number {
  return extrasOf(holder).pairs[index]?.foreground ?? master?.info.pgrp ?? 0;
}

export const session: SessionHooks = {
  begin({ pid }, tape, taker, holder) {
    const controlling = controllingOf(pid, holder);
    if (controlling === undefined) return;
    tape.about('controlling terminal');
    const fd = taker.take(controlling.key);
    tape.call('ioctl', [fd, TIOCSCTTY, 0]);
    tape.call('close', [fd]);
  },

  finish(member: SessionMember, tape, taker, holder) {
    const { pid, sid } = member;
    if (pid !== sid) {
      if (extrasOf(holder).without.includes(pid) && controllingOf(sid, holder) !== undefined) {
        tape.about('no controlling terminal');
        const own = tape.call('open', [tape.string('/dev/tty'), O_RDWR | O_NOCTTY | O_CLOEXEC, 0]);
        tape.call('ioctl', [own, TIOCNOTTY, 0]);
        tape.call('close', [own]);
      }
      return;
    }
    const controlling = controllingOf(pid, holder);
    if (controlling === undefined || controlling.pgrp === 0) return;
    tape.about('foreground group');
    // From the background it takes a blocked SIGTTOU, and all signals are (drivers/tty/tty_jobctrl.c tty_check_change).
    const fd = taker.take(controlling.key);
    tape.call('ioctl', [fd, TIOCSPGRP, tape.space(words([controlling.pgrp]))]);
    tape.call('close', [fd]);
  },

  groups(holder) {
    return pairsOf(holder)
      .filter((pair) => pair.sid !== 0 && foregroundOf(pair, holder) !== 0)
      .map((pair) => ({ pgid: foregroundOf(pair, holder), sid: pair.sid }));
  },
};
