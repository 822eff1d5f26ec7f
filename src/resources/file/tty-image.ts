import {
  encodeName,
  ImageError,
  type reg_file_entry,
  type tty_file_entry,
  type tty_info_entry,
} from '../../image/index.js';
import type { Holder } from '../contract.js';
import { perRestore } from '../description/state.js';
import { TYPE } from './tty-device.js';
import { extrasOf } from './tty-extras.js';

/** The terminals of an image, as a restore sees them. */
export interface Open {
  readonly id: number;
  readonly tty: tty_file_entry;
  readonly info: tty_info_entry;
  readonly name: string;
  readonly mode: number | undefined;
}

/** A pair that is rebuilt; those of the caller and those given by --inherit-fd are not. */
export interface ImagePair {
  readonly index: number;
  readonly master: Open | undefined;
  /** Slaves and /dev/tty. */
  readonly slaves: readonly Open[];
  readonly hungUp: readonly Open[];
  /** Of either side: they are the same. */
  readonly settings: tty_info_entry | undefined;
  readonly sid: number;
}

export const opensOf = perRestore((holder): Open[] => {
  const { reader } = holder;
  const infos = new Map((reader.readOptional('tty-info') ?? []).map((info) => [info.id, info]));
  const entries = reader.readOptional('files') ?? [];
  const names = new Map<number, reg_file_entry>();
  for (const { id, reg } of entries) if (reg !== undefined) names.set(id, reg);
  return entries.flatMap(({ id, tty }) => {
    if (tty === undefined) return [];
    const info = infos.get(tty.ttyInfoId);
    if (info === undefined) throw new ImageError('tty-info.img', `terminal ${tty.ttyInfoId} is missing`);
    const reg = names.get(tty.regfId);
    return [{ id, tty, info, name: reg?.name ?? '', mode: reg?.mode }];
  });
});

/** Pids of the image that lead their session. */
const leaders = perRestore(
  ({ reader }) => new Set(reader.read('pstree').flatMap(({ pid, sid }) => (pid === sid ? [pid] : []))),
);

function isMasterId(infoId: number): boolean {
  return (infoId & 1) === 1;
}

export function isInsideSession(sid: number, holder: Holder): boolean {
  return sid !== 0 && leaders(holder).has(sid);
}

export const pairsOf = perRestore((holder): ImagePair[] => {
  const opens = opensOf(holder);
  const pairs = opens.filter(({ info }) => info.type === TYPE.pty && info.pty !== undefined);
  const indices = [...new Set(pairs.map(({ info }) => info.pty?.index ?? 0))].sort((a, b) => a - b);
  return indices.flatMap((index) => {
    const sides = pairs.filter(({ info }) => info.pty?.index === index);
    const master = sides.find(({ info }) => isMasterId(info.id));
    const isHung = ({ id, info }: Open): boolean =>
      info.termios === undefined || extrasOf(holder).files[id]?.hungUp === true;
    const slaves = sides.filter((side) => !isMasterId(side.info.id));
    // Slaves whose master is neither here nor gone are the caller's.
    if (master === undefined && !slaves.every(isHung)) return [];
    const { sid } = master?.info ?? { sid: 0 };
    const ctty = opens.filter(
      (open) => open.info.type === TYPE.ctty && indexOfCtty(open, sides, holder) === index,
    );
    return [
      {
        index,
        master,
        slaves: [...slaves.filter((side) => !isHung(side)), ...ctty],
        hungUp: slaves.filter(isHung),
        settings: sides.find(({ info }) => info.termios !== undefined)?.info,
        sid,
      },
    ];
  });
});

/** Which pair a description of /dev/tty is one of; images of CRIU tell only of which session it is the terminal. */
function indexOfCtty({ id, info }: Open, sides: readonly Open[], holder: Holder): number | undefined {
  const extras = extrasOf(holder).files[id];
  if (extras?.index !== undefined) return extras.index;
  if (info.sid === 0) return undefined;
  return sides.find((side) => side.info.sid === info.sid)?.info.pty?.index;
}

/** Is it whichever terminal the caller has? */
export function isCallers(open: Open, holder: Holder): boolean {
  const { type, sid } = open.info;
  if (type === TYPE.external) return false;
  const isRebuilt = pairsOf(holder).some(
    (pair) => pair.master === open || pair.slaves.includes(open) || pair.hungUp.includes(open),
  );
  if (isRebuilt) return false;
  if (type === TYPE.pty) return true;
  return type === TYPE.ctty ? !isInsideSession(sid, holder) : sid !== 0 && !isInsideSession(sid, holder);
}

export function pathOf(open: Open): Uint8Array {
  return encodeName(open.name);
}
