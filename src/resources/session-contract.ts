import type { Tape } from '../tape/tape.js';
import type { Holder, Taker } from './contract.js';

/** A process of the image, as far as sessions go. Ids as in the image. */
export interface SessionMember {
  readonly pid: number;
  readonly sid: number;
  readonly pgid: number;
}

/** What a kind of file does for sessions at restore: terminals. All of the holder's openings were played before. */
export interface SessionHooks {
  /**
   * On the leader's tape, when it has made its session and before any child of it is born: the controlling terminal,
   * which is inherited (kernel/fork.c copy_signal).
   */
  begin(leader: SessionMember, tape: Tape, taker: Taker, holder: Holder): void;
  /** On the tape of every living process, when all groups exist: the foreground group, and who has no terminal. */
  finish(member: SessionMember, tape: Tape, taker: Taker, holder: Holder): void;
  /** Groups that have to exist at `finish` though no process of the image is in them. */
  groups?(holder: Holder): readonly { readonly pgid: number; readonly sid: number }[];
}
