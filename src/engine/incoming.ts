import { closeSync } from 'node:fs';
import { MFD_CLOEXEC } from '../abi/mman.js';
import { writeAll } from '../image/directory.js';
import { ArchiveDecoder, ArchiveStore, FLAG_ANSWERS, ImageError, unnamedFile } from '../image/index.js';
import { type Patience, readSome, writeWhole } from '../kernel/channel.js';
import { scratchString } from '../kernel/memory.js';
import { syscall } from '../kernel/syscall.js';
import { ANSWER, ANSWER_BYTES_MAX, READY } from './answers.js';
import { MoveError } from './errors.js';

/**
 * An image that comes as a stream. It is judged byte by byte as it comes, and kept, as it is, in a file without a name:
 * a stream that breaks off leaves nothing, not even after a kill -9, and pages need not be in memory twice. Nothing of
 * it is used before its end has come: whatever is wrong with it, no process has been started for it. From the file every
 * process loads its own pages.
 *
 * commitment-stream.ts says what source and target tell each other then.
 */
export interface StreamSource {
  readonly fd: number;
  /** Where the source is answered, if it asks for that. */
  readonly answers: number | undefined;
  /** Directory whose file system has the file meanwhile. */
  readonly spool: string;
  readonly stall_ms: number;
  /** How long the source may take to answer. */
  readonly ready_ms: number;
  /** Called while the source is waited for; a throw ends it. */
  readonly interrupt?: (() => void) | undefined;
}

const CHUNK_BYTES = 256 * 1024;
/** Whoever starts both ends by hand needs time before the first byte. */
const PATIENT_MS = 24 * 3600 * 1000;

export class Incoming implements Disposable {
  readonly #source: StreamSource;
  readonly #name: string;
  readonly #decoder: ArchiveDecoder;
  readonly #buffer = new Uint8Array(CHUNK_BYTES);
  #spool: number | undefined;
  #isAtEnd = false;
  #isToldOf = false;

  /** `name` is what messages call the stream. */
  constructor(source: StreamSource, name: string) {
    this.#source = source;
    this.#name = name;
    this.#decoder = new ArchiveDecoder(name);
  }

  /** Does the source wait for answers? Known once something has come. */
  get hasToAnswer(): boolean {
    return ((this.#decoder.header?.flags ?? 0) & FLAG_ANSWERS) !== 0;
  }

  /** Take all of the image in. @throws ImageError with the offset for whatever is wrong with it */
  receive(): ArchiveStore {
    const spool = openSpool(this.#source.spool);
    this.#spool = spool;
    while (!this.#decoder.isEnded) {
      const bytes = this.#read(this.#decoder.position === 0 ? PATIENT_MS : this.#source.stall_ms);
      if (bytes === undefined) this.#decoder.end();
      else {
        this.#decoder.push(bytes);
        writeAll(spool, bytes);
      }
    }
    const { header, contents } = this.#decoder;
    if (header === undefined) throw new ImageError(this.#name, 'has no header');
    if (contents.parent !== undefined)
      throw new ImageError(
        this.#name,
        `is an increment of ${contents.parent}, which a stream cannot bring along`,
      );
    if (this.hasToAnswer && this.#source.answers === undefined)
      throw new MoveError(`${this.#name} asks for answers, and there is nowhere to give them`, 'running');
    // Its pids may have to be free here; where there are answers, they are another host's.
    if (!this.hasToAnswer) this.#awaitGone();
    this.#spool = undefined;
    return new ArchiveStore(this.#name, spool, header, contents);
  }

  /** Undefined at the end. */
  #read(stall_ms: number): Uint8Array | undefined {
    const { fd, interrupt } = this.#source;
    const patience: Patience = { interrupt, stall_ms };
    const count = readSome(fd, this.#buffer, patience, this.#name);
    if (count === 0) this.#isAtEnd = true;
    return count === 0 ? undefined : this.#buffer.subarray(0, count);
  }

  /**
   * The tree is complete and stands still; returns when it may run.
   * @throws MoveError when the source has not said that it stands still for good: the tree must not run
   */
  stand(): void {
    if (!this.hasToAnswer) return;
    this.#say(READY);
    this.#awaitGone();
  }

  /** Without answers, the end of the stream says the same: by then the source has been killed. */
  #awaitGone(): void {
    const { contents } = this.#decoder;
    while (!contents.isGone) {
      const bytes = this.#isAtEnd ? undefined : this.#read(this.#source.ready_ms);
      if (bytes !== undefined) this.#decoder.push(bytes);
      else if (this.hasToAnswer)
        throw new MoveError('the source has gone without saying that it stands still for good', 'running');
      else {
        this.#decoder.end();
        return;
      }
    }
  }

  /** The tree runs here. The source may be gone by now. */
  running(pid: number): void {
    this.#isToldOf = true;
    try {
      this.#say(`${ANSWER.running} ${pid}`);
    } catch {
      // It stands still, as it said.
    }
  }

  /** There is no tree here. */
  failed(error: unknown): void {
    if (!this.hasToAnswer || this.#isToldOf) return;
    this.#isToldOf = true;
    const reason = error instanceof Error ? error.message : String(error);
    try {
      this.#say(`${ANSWER.failed} ${reason.replace(/\s+/g, ' ').slice(0, ANSWER_BYTES_MAX / 4)}`);
    } catch {
      // The source goes on when it hears nothing.
    }
  }

  #say(line: string): void {
    const { answers, stall_ms, interrupt } = this.#source;
    if (!this.hasToAnswer || answers === undefined) return;
    writeWhole(answers, Buffer.from(`${line}\n`), { stall_ms, interrupt }, 'the answers to the source');
  }

  [Symbol.dispose](): void {
    if (this.#spool !== undefined) closeSync(this.#spool);
    this.#spool = undefined;
  }
}

/** Not every file system knows files without names; memory does. */
function openSpool(directory: string): number {
  try {
    return unnamedFile(directory);
  } catch {
    return syscall('memfd_create', [scratchString('stasis-stream'), MFD_CLOEXEC], 'the incoming image');
  }
}
