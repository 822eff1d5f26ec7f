import { isatty } from 'node:tty';
import { O_CLOEXEC, O_NOCTTY, S_IFCHR, S_IFMT } from '../../abi/fcntl.js';
import { createMessage, ImageError } from '../../image/index.js';
import type { FileKind, Holder, Result } from '../contract.js';
import { isPathOnly } from '../description/calls.js';
import { duplicate } from '../description/holder.js';
import { inherited } from '../description/inherit.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { FD_TYPE } from '../description/types.js';
import { checkPairs, checkSessions, checkTerminal, isExternal } from './tty-check.js';
import { infoIdOf, isMaster, keyOf, pairOf, TYPE, typeOf } from './tty-device.js';
import { writeExtras } from './tty-extras.js';
import { gather, gatheredOf } from './tty-gather.js';
import { isCallers, isInsideSession, type Open, opensOf, pairsOf, pathOf } from './tty-image.js';
import { openMasters, rebuildPair } from './tty-pair.js';
import { see } from './tty-seen.js';
import { session } from './tty-session.js';
import { bytesOfTermios, setTermios } from './tty-settings.js';
import { slotPath } from './unlinked.js';

/**
 * Terminals: pty(7), ioctl_tty(2), and the sessions they control, credentials(7). A pair whose master is open in the
 * tree is rebuilt with its index; a slave without a master anywhere is hung up, and so again. A terminal whose master
 * is elsewhere is that of the session the tree was started in (--shell-job), at restore whichever the caller has, with
 * its settings left alone; or it is given by --inherit-fd. Consoles, virtual terminals and serial lines are opened by
 * their names; their settings are the tree's only if they control a session of it.
 *
 * What is not kept: how far the cursor is in a line (n_tty's column, for expanding tabs), a character quoted by ^V.
 */
export const tty: FileKind = {
  name: 'terminal',
  support:
    'pairs with index, settings, locked settings, window size, modes, unread data in both directions, stopped output, hung up ones; controlling terminals and foreground groups; /dev/tty, consoles, virtual terminals, serial lines by name; the terminal of an outside session (--shell-job, --external and --inherit-fd). Not: slaves whose master is outside otherwise, terminals of a second devpts',
  member: 'tty',
  session,

  recognise: ({ info }) =>
    (Number(info.stat.mode) & S_IFMT) === S_IFCHR &&
    typeOf(info.stat.rdev) !== undefined &&
    !isPathOnly(info.info.flags),

  check: checkTerminal,
  checkAll: checkPairs,
  checkTree: checkSessions,

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const flags = info.info.flags & ~O_CLOEXEC;
    const fown = dumpOwner(descriptor, taken, context);
    const external = isExternal(descriptor, context.options);
    const type = external ? TYPE.external : (typeOf(info.stat.rdev) ?? TYPE.pty);
    const infoId = infoIdOf(type, pairOf(descriptor), isMaster(info.stat.rdev));
    see({ descriptor, id, infoId, type }, taken, context);
    const regfId = context.files.add((regId) => {
      const name = info.link.replace(/ \(deleted\)$/, '');
      const reg = { id: regId, flags, pos: 0n, fown, name, mode: Number(info.stat.mode) };
      return createMessage('files', { type: FD_TYPE.reg, id: regId, reg });
    });
    return createMessage('files', {
      type: FD_TYPE.tty,
      id,
      tty: { id, ttyInfoId: infoId, flags, fown, regfId },
    });
  },

  gather,

  write(context) {
    const gathered = gatheredOf(context).value;
    if (gathered === undefined) return;
    const { infos, data, extras } = gathered;
    if (infos.length > 0) context.writer.write('tty-info', null, infos);
    if (data.length > 0) context.writer.write('tty-data', null, data);
    writeExtras(extras, context.writer);
  },

  open({ id, tty }, holder) {
    const open = opensOf(holder).find((each) => each.id === id);
    if (tty === undefined || open === undefined)
      throw new ImageError('files.img', `file ${id} is no terminal`);
    rebuild(holder);
    restoreOwner(`file:${id}`, tty.fown, holder);
    if (rebuild(holder).has(id)) return holder.tape.call('dup', [holder.slot(`file:${id}`)]);
    return openOne(open, holder);
  },
};

/** All terminals of the tree, and the caller's /dev/tty, before anything is opened alone; answers the ids of those. */
const rebuild = perRestore((holder): ReadonlySet<number> => {
  const pairs = pairsOf(holder);
  const done = new Set<number>();
  // The holder gives up the caller's terminal by leading a session of its own.
  for (const open of opensOf(holder)) {
    if (open.info.type !== TYPE.ctty || !isCallers(open, holder) || isGiven(open, holder)) continue;
    holder.hold(
      `file:${open.id}`,
      holder.tape.call('open', [holder.tape.string('/dev/tty'), open.tty.flags, 0]),
    );
    done.add(open.id);
  }
  if (pairs.length > 0) openMasters(pairs, holder);
  for (const pair of pairs) {
    rebuildPair(pair, holder);
    for (const { id } of [...pair.slaves, ...pair.hungUp]) done.add(id);
    if (pair.master !== undefined) done.add(pair.master.id);
  }
  return done;
});

function isGiven({ info }: Open, holder: Holder): boolean {
  return holder.options.inheritFds.has(keyOf(info.rdev, info.dev));
}

function openOne(open: Open, holder: Holder): Result {
  const { tape } = holder;
  const { id, tty, info } = open;
  const given = inherited(holder, [keyOf(info.rdev, info.dev)]);
  if (given !== undefined) return given;
  if (info.type === TYPE.external)
    throw new NoTerminalError(
      `file ${id} is an external terminal: give it by --inherit-fd fd[N]:${keyOf(info.rdev, info.dev)}`,
    );
  if (isCallers(open, holder))
    return tape.call('open', [
      tape.string(slotPath(callersTerminal(id, holder), holder)),
      tty.flags | O_NOCTTY,
      0,
    ]);
  const fd = tape.call('open', [tape.string(pathOf(open)), tty.flags | O_NOCTTY, 0]);
  if (info.termios !== undefined && isInsideSession(info.sid, holder))
    setTermios(tape, fd, bytesOfTermios(info.termios));
  return fd;
}

/** Restoring needs a terminal, and the caller has none. */
export class NoTerminalError extends Error {
  readonly code = 'ENOTTY';
}

const brought = perRestore(() => ({ done: false }));

/** The key of a descriptor of the caller's terminal, which descriptions are opened from anew. */
function callersTerminal(id: number, holder: Holder): string {
  const key = 'terminal';
  const state = brought(holder);
  if (state.done) return key;
  if (!holder.options.shellJob)
    throw new NoTerminalError(`file ${id} is a terminal of another session: restore it with --shell-job`);
  const fd = [0, 1, 2].find((fd) => isatty(fd));
  if (fd === undefined)
    throw new NoTerminalError('the image wants a terminal (--shell-job), and standard input is none');
  holder.hold(key, holder.bring(duplicate(fd)));
  state.done = true;
  return key;
}
