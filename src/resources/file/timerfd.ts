import { TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET } from '../../abi/event.js';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import { TFD_IOC_SET_TICKS } from '../../abi/ioctl.js';
import { createMessage, ImageError, type timerfd_entry } from '../../image/index.js';
import type { TimerfdInfo } from '../../kernel/procfs/fdinfo.js';
import type { FileKind } from '../contract.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';

/**
 * timerfd_create(2): clock, time left, interval and ticks, all in fdinfo. The time left is relative even where the
 * timer was set to an absolute time (fs/timerfd.c timerfd_show), so it goes on from where it was; ticks that were not
 * read are put back by TFD_IOC_SET_TICKS.
 */
export const timerfd: FileKind = {
  name: 'timerfd',
  support: 'clock, time left, interval, unread ticks, flags',
  member: 'tfd',

  recognise: ({ info }) => info.link === 'anon_inode:[timerfd]',

  dump(descriptor, id, taken, context) {
    const { timerfd: state, flags } = descriptor.info.info;
    if (state === undefined) throw new Error(`${descriptor.info.link}: fdinfo has no clockid`);
    const tfd = {
      id,
      flags: flags & ~O_CLOEXEC,
      fown: dumpOwner(descriptor, taken, context),
      clockid: state.clockid,
      ticks: state.ticks,
      settimeFlags: state.settimeFlags,
      vsec: state.value.sec,
      vnsec: standsExpired(state) ? 1n : state.value.nsec,
      isec: state.interval.sec,
      insec: state.interval.nsec,
    };
    return createMessage('files', { type: FD_TYPE.tfd, id, tfd });
  },

  open({ id, tfd }, holder) {
    if (tfd === undefined) throw new ImageError('files.img', `file ${id} is no timerfd`);
    const { tape } = holder;
    const fd = tape.call('timerfd_create', [tfd.clockid, O_CLOEXEC]);
    setStatusFlags(tape, fd, tfd.flags);
    restoreOwner(`file:${id}`, tfd.fown, holder);
    return fd;
  },

  /** As late as the holder can: the clocks run from here. */
  connect({ id, tfd }, holder) {
    if (tfd === undefined) return;
    const { tape } = holder;
    const fd = holder.slot(`file:${id}`);
    const setting = settingOf(tfd);
    if (setting !== undefined)
      tape.call('timerfd_settime', [fd, setting.flags, tape.space(bytesOf(setting.times)), 0]);
    if (tfd.ticks === 0n) return;
    const ticks = new Uint8Array(8);
    new DataView(ticks.buffer).setBigUint64(0, tfd.ticks, true);
    tape.call('ioctl', [fd, TFD_IOC_SET_TICKS, tape.space(ticks)]);
  },
};

/** A periodic timer that has expired stands still until it is read (timerfd_read_iter); in the image it is about to. */
function standsExpired({ value, interval, ticks }: TimerfdInfo): boolean {
  return value.sec === 0n && value.nsec === 0n && (interval.sec !== 0n || interval.nsec !== 0n) && ticks > 0n;
}

/** interval and value, each in seconds and nanoseconds. */
type Times = readonly [bigint, bigint, bigint, bigint];

/** What timerfd_settime(2) is given; undefined for a timer that is not set. */
function settingOf(tfd: timerfd_entry): { flags: number; times: Times } | undefined {
  const { isec, insec, vsec, vnsec, settimeFlags } = tfd;
  if (vsec === 0n && vnsec === 0n) {
    if (isec === 0n && insec === 0n) return undefined;
    // CRIU's images have no time left for one that has expired; without ticks it was stopped.
    return { flags: 0, times: [isec, insec, 0n, tfd.ticks === 0n ? 0n : 1n] };
  }
  if ((settimeFlags & TFD_TIMER_CANCEL_ON_SET) === 0) return { flags: 0, times: [isec, insec, vsec, vnsec] };
  // Only absolute timers are cancelled when the clock is set.
  const now_ms = BigInt(Date.now());
  const at_ns = now_ms * 1_000_000n + vsec * 1_000_000_000n + vnsec;
  return {
    flags: TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
    times: [isec, insec, at_ns / 1_000_000_000n, at_ns % 1_000_000_000n],
  };
}

function bytesOf(times: Times): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  times.forEach((value, index) => {
    view.setBigUint64(index * 8, value, true);
  });
  return bytes;
}
