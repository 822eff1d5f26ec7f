import { EPOLLIN as POLLIN } from '../abi/event.js';
import { F_DUPFD } from '../abi/fcntl.js';
import { ImageError, type ImageWriter, type MessageOf, StreamTarget } from '../image/index.js';
import { LineReader, type Patience, StallError, writeWhole } from '../kernel/channel.js';
import { SyscallError } from '../kernel/errors.js';
import { go, goIfEqual } from '../tape/logic.js';
import type { Label, Operand, Space, Tape } from '../tape/tape.js';
import { ANSWER, ANSWER_BYTES_MAX, READY } from './answers.js';
import type { Commitment, Descriptors } from './commitment.js';
import { MoveError } from './errors.js';
import type { Guardian } from './guardian.js';
import type { CheckpointOptions, StreamPlace } from './options.js';

/**
 * The commit of a stream, which leaves no name behind by which a guardian could tell. It is told beforehand instead.
 *
 * Without answers (`-o -`) the frame END commits. The guardian is told before that END is under way; if we die then, it
 * sends END itself: a reader takes it twice as well as once, and now it is sure that it went out, so the tree is killed.
 * A reader that is gone (EPIPE) never lets a tree go that it has not seen the end of, so then ours goes on.
 *
 * With answers (`--wait-ready`) it takes three messages:
 *
 *     source            target
 *     END        →      builds the tree, up to the last barrier
 *                ←      ready, or failed
 *     GONE       →      lets its tree go
 *                ←      running, or failed
 *     kills its tree
 *
 * Up to GONE, every failure of either side or of the line between lets the source go on, and ends what the target has
 * built: a target that hears no GONE ends its tree. GONE says that the source stands still and stays so, unless it is
 * told that the target failed. So there never are two that run, and one is always whole: a line that is cut between GONE
 * and `running` leaves the source stopped, not killed, for whoever looks at both to decide. A dead controller changes
 * none of that: the guardian sends GONE, waits for the answer and does the same.
 */
export class StreamCommitment implements Commitment {
  readonly target: StreamTarget;
  readonly descriptors: readonly number[];
  readonly #place: StreamPlace;
  readonly #pid: number;
  readonly #patience: Patience;
  readonly #answers: LineReader | undefined;
  #state: State = 'open';
  isUnderWay = false;
  /** What the guardian finds out on its tape, asked for once. */
  readonly #found = new WeakMap<Tape, Space>();

  constructor(place: StreamPlace, { pid, directory, hooks }: CheckpointOptions) {
    this.#place = place;
    this.#pid = pid;
    this.#patience = { interrupt: hooks.interrupt, stall_ms: place.stall_ms };
    const { fd, answers } = place;
    this.descriptors = answers === undefined ? [fd] : [fd, answers];
    this.#answers =
      answers === undefined
        ? undefined
        : new LineReader(answers, 'answers of the other end', ANSWER_BYTES_MAX);
    this.target = new StreamTarget(directory, (bytes) => this.#send(bytes, this.#patience), {
      answers: answers !== undefined,
    });
  }

  #send(bytes: Uint8Array, patience: Patience): void {
    this.isUnderWay = true;
    try {
      writeWhole(this.#place.fd, bytes, patience, 'the stream of the image');
    } catch (error) {
      throw this.#complaint() ?? this.#explain(error);
    }
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof SyscallError || error instanceof StallError)) return error;
    return new ImageError(this.target.path, `cannot be written: ${error.message}`, { cause: error });
  }

  /** Whoever stops reading may have said why. */
  #complaint(): MoveError | undefined {
    if (this.#state !== 'open') return undefined;
    try {
      const line = this.#answers?.next({ stall_ms: COMPLAINT_MS });
      return line === undefined ? undefined : refused(line);
    } catch {
      return undefined;
    }
  }

  ifCommitted(tape: Tape, fd: Descriptors, label: Label): void {
    switch (this.#state) {
      case 'open':
        return;
      case 'committed':
        go(tape, label);
        return;
      case 'ending': {
        const { end } = this.#ending;
        goIfEqual(
          tape,
          this.#find(tape, () => endAgain(tape, fd(this.#place.fd), end)),
          end.length,
          label,
        );
        return;
      }
      case 'given': {
        const answer = this.#find(tape, () => this.#giveAgain(tape, fd));
        const failed = tape.label();
        goIfEqual(tape, answer, wordOf(ANSWER.failed), failed);
        go(tape, label);
        tape.place(failed);
        return;
      }
      default:
        this.#state satisfies never;
    }
  }

  #find(tape: Tape, ask: () => Space): Space {
    const known = this.#found.get(tape) ?? ask();
    this.#found.set(tape, known);
    return known;
  }

  /** GONE may be said twice. What the other end answers is left in the space; nothing, when it is silent. */
  #giveAgain(tape: Tape, fd: Descriptors): Space {
    const { fd: out, answers = -1, ready_ms } = this.#place;
    const { gone } = this.#ending;
    const answer = tape.space(16);
    const silent = tape.label();
    tape.about('the source stands still for good; does the target run?');
    tape.call('write', [fd(out), tape.space(gone), gone.length], 'any');
    const pollfd = tape.space(Uint8Array.of(0, 0, 0, 0, POLLIN, 0, 0, 0));
    // Only the result of an entry can be copied.
    const duplicate = tape.call('fcntl', [fd(answers), F_DUPFD, 0], 'any');
    tape.copy(duplicate, pollfd, 0);
    tape.jump('poll', [pollfd, 1, ready_ms], silent);
    tape.call('read', [fd(answers), answer, answer.length], 'any');
    tape.place(silent);
    return answer;
  }

  ifUndecided(tape: Tape, label: Label): void {
    if (this.#state !== 'given') return;
    const answer = this.#found.get(tape);
    if (answer === undefined) return;
    const runs = tape.label();
    goIfEqual(tape, answer, wordOf(ANSWER.running), runs);
    go(tape, label);
    tape.place(runs);
  }

  afterKill(tape: Tape, fd: Descriptors): void {
    if (this.#state === 'open' || this.#state === 'given') return;
    const { gone } = this.#ending;
    tape.call('write', [fd(this.#place.fd), tape.space(gone), gone.length], 'any');
  }

  get #ending() {
    const { ending } = this.target;
    if (ending === undefined) throw new Error('the stream has not ended yet');
    return ending;
  }

  commit(writer: ImageWriter, inventory: MessageOf<'inventory'>, guardian: Guardian): MoveError | undefined {
    let undecided: MoveError | undefined;
    const be = (state: State): void => {
      this.#state = state;
      // Once the other end has been told, it is told, whether or not somebody would finish for us.
      if (state === 'committed' || state === 'open') guardian.refreshLate();
      else guardian.refresh();
    };
    const publish = (end: () => void): void => {
      if (this.#answers === undefined) {
        be('ending');
        end();
      } else {
        end();
        this.#awaitReady(this.#answers);
        be('given');
        this.#send(this.#ending.gone, { stall_ms: this.#place.stall_ms });
        undecided = this.#awaitRunning(this.#answers);
        if (undecided !== undefined) return;
      }
      be('committed');
    };
    try {
      writer.commit(inventory, { durable: false, publish });
    } catch (error) {
      be('open');
      throw error;
    }
    return undecided;
  }

  #awaitReady(answers: LineReader): void {
    let line: string | undefined;
    try {
      line = answers.next({ ...this.#patience, stall_ms: this.#place.ready_ms });
    } catch (error) {
      if (error instanceof StallError)
        throw new MoveError(
          `the other end did not report that the tree stands ready within ${this.#place.ready_ms / 1000} s`,
          'running',
        );
      throw error;
    }
    if (line === undefined)
      throw new MoveError('the other end has gone without a report that the tree stands ready', 'running');
    if (line !== READY) throw refused(line);
  }

  /** Nobody calls this off: the other end may have let its tree go by now. */
  #awaitRunning(answers: LineReader): MoveError | undefined {
    let line: string | undefined;
    try {
      line = answers.next({ stall_ms: this.#place.ready_ms });
    } catch {
      // Silence, or a broken line: nobody knows.
    }
    if (line?.startsWith(ANSWER.failed)) throw refused(line);
    if (line?.startsWith(ANSWER.running)) return undefined;
    return new MoveError(
      'the other end was told to let its tree go, and did not say whether it has. The tree here is whole, and stopped. Look ' +
        `there: if the tree runs, \`stasis unlock --pid ${this.#pid} --kill\` ends this one without a word to its peers; otherwise ` +
        `\`stasis unlock --pid ${this.#pid} --resume\` lets it go on, with its connections`,
      'stopped',
    );
  }

  killed(): void {
    if (this.#answers !== undefined) return;
    try {
      // For a reader that waits for it; its end of file says the same.
      writeWhole(this.#place.fd, this.#ending.gone, { stall_ms: COMPLAINT_MS }, 'the stream of the image');
    } catch {
      // It has all it needs.
    }
  }
}

type State = 'open' | 'ending' | 'given' | 'committed';

/** How long somebody who hung up is asked for the reason. */
const COMPLAINT_MS = 1000;

/** The first four bytes of an answer, as goIfEqual compares them. */
function wordOf(text: string): number {
  return Buffer.from(text).readUInt32LE(0);
}

function endAgain(tape: Tape, fd: Operand, end: Uint8Array): Space {
  const written = tape.space(8);
  tape.about('the end of the stream, in case it did not go out');
  tape.copy(tape.call('write', [fd, tape.space(end), end.length], 'any'), written, 0);
  return written;
}

function refused(line: string): MoveError {
  const reason = line.startsWith(ANSWER.failed) ? line.slice(ANSWER.failed.length).trim() : '';
  const said =
    reason === '' ? `said ${JSON.stringify(line.slice(0, 200))}` : `could not bring the tree up: ${reason}`;
  return new MoveError(`the other end ${said}`, 'running');
}
