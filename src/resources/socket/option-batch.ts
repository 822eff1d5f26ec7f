import { ERRNO } from '../../abi/errno.js';
import { SyscallError } from '../../kernel/errors.js';
import { words } from '../../kernel/words.js';
import { HEADER_SIZE } from '../../tape/layout.js';
import { OwnTape } from '../../tape/own.js';
import { Played, type Result, type Space, Tape } from '../../tape/tape.js';

/** An option by its level and number, and the most bytes it can have. */
export interface OptionQuestion {
  readonly level: number;
  readonly option: number;
  readonly length: number;
}

/** What getsockopt(2) says where this kind of socket has no option of that name. */
export const ABSENT: ReadonlySet<number> = new Set([
  -ERRNO.EOPNOTSUPP,
  -ERRNO.ENOPROTOOPT,
  -ERRNO.EINVAL,
  -ERRNO.ENOTCONN,
]);

/** The same options of many sockets: each time all of them are asked for at once, in one call through the FFI. */
export class OptionBatch {
  readonly #questions: readonly OptionQuestion[];
  readonly #tape: OwnTape;
  readonly #played: Played;
  /** The tape as it is before the questions are asked. */
  readonly #blank: Uint8Array;
  readonly #answers: readonly { readonly answer: Result; readonly value: Space; readonly length: Space }[];
  /** Where the socket's number goes, which is no part of the answers: it comes last. */
  readonly #fd: Space;

  constructor(questions: readonly OptionQuestion[]) {
    const tape = new Tape('options of a socket');
    const rooms = questions.map(({ length }) => ({
      value: tape.space(length),
      length: tape.space(words([length])),
    }));
    this.#fd = tape.space(8);
    const fd = { kind: 'value', at: { kind: 'inside', space: this.#fd, at: 0 } } as const;
    this.#answers = rooms.map((room, index) => {
      const { level = 0, option = 0 } = questions[index] ?? {};
      return {
        ...room,
        answer: tape.call('getsockopt', [fd, level, option, room.value, room.length], 'any'),
      };
    });
    this.#questions = questions;
    this.#tape = new OwnTape(tape);
    this.#blank = this.#tape.bytes.slice();
    this.#played = new Played(tape, this.#tape.bytes);
  }

  /** Ask them of a socket. Answers all that came back, for comparison. */
  ask(fd: number): Uint8Array {
    const { bytes } = this.#tape;
    bytes.set(this.#blank);
    const number = this.#played.view(this.#fd);
    number.setUint32(0, fd, true);
    this.#tape.play('getsockopt');
    return bytes.subarray(HEADER_SIZE, number.byteOffset - bytes.byteOffset);
  }

  /** The bytes of an option as last asked for; undefined where the socket has none of the name. Throws SyscallError. */
  bytes(index: number): Uint8Array | undefined {
    const question = this.#questions[index];
    const asked = this.#answers[index];
    if (question === undefined || asked === undefined)
      throw new RangeError(`option ${index} was not asked for`);
    const answer = this.#played.number(asked.answer);
    if (ABSENT.has(answer)) return undefined;
    if (answer < 0)
      throw new SyscallError('getsockopt', -answer, `option ${question.option} of level ${question.level}`);
    return this.#played.read(asked.value).subarray(0, this.#played.view(asked.length).getUint32(0, true));
  }

  /** An option of four bytes. */
  number(index: number): number | undefined {
    const value = this.bytes(index);
    if (value?.length !== 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getInt32(0, true);
  }
}
