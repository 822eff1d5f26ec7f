import { createHash } from 'node:crypto';

/**
 * The server's journal: a record a line, each with the SHA-256 of the chain so far and of itself, so that no record can
 * be lost, repeated or changed unnoticed. It is the only thing that the demo sees of the server.
 */

/** What one member answered: which process it was, and what. */
export interface Answer {
  readonly pid: number;
  /** The state of its chain in hex; of the pipeline, what came out of it. */
  readonly state: string;
}

export interface Gap {
  readonly day_ms: number;
  readonly monotonic_ms: number;
}

/** Where the heart puts them: indexes of shared doubles. */
export const GAP = { day: 0, monotonic: 1 } as const;

/** One beat: every member was asked once. */
export interface Beat {
  readonly kind: 'beat';
  /** Counted by the server, from 1. */
  readonly beat: number;
  /** On the monotonic clock, when all answers were there. */
  readonly at_ms: number;
  /**
   * The longest time since the last beat in which a thread that does nothing but look at the clocks did not see them: by
   * the clock of the day, and by the monotonic clock.
   */
  readonly gap: Gap;
  readonly answers: Readonly<Record<string, Answer>>;
  /** Signals sent to the Python pair, handled there, and answered by a signal. Zero without Python. */
  readonly signals: { readonly sent: number; readonly handled: number; readonly answered: number };
}

/** The answer to a question of the demo. */
export interface Report {
  readonly kind: 'report';
  readonly question: string;
  /** The last beat before it. */
  readonly beat: number;
  /** What it was told to remember. */
  readonly remembered: readonly string[];
  /** SHA-256 of the memory of each member, in hex. */
  readonly memory: Readonly<Record<string, string>>;
  /** How often the server's code was started: 1, in its memory only. */
  readonly starts: number;
}

export type Entry = Beat | Report;

/** The chain's value before the first record. */
const CHAIN_START = '0'.repeat(64);

function link(chain: string, entry: string): string {
  return createHash('sha256').update(chain).update(entry).digest('hex');
}

/** Writes records. */
export class Journal {
  #chain = CHAIN_START;
  readonly #write: (line: string) => void;

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  add(entry: Entry): void {
    const text = JSON.stringify(entry);
    this.#chain = link(this.#chain, text);
    this.#write(`${this.#chain} ${text}\n`);
  }
}

/** The journal is not what the server wrote. */
export class JournalError extends Error {}

/** Reads records and checks each against the chain, as they come. */
export class JournalReader {
  #chain = CHAIN_START;
  #rest = '';
  #lines = 0;

  /** The records that `text`, the next part of the file, completes. @throws JournalError */
  push(text: string): Entry[] {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines.map((line) => this.#check(line));
  }

  #check(line: string): Entry {
    this.#lines++;
    const [chain = '', ...words] = line.split(' ');
    const text = words.join(' ');
    this.#chain = link(this.#chain, text);
    if (chain !== this.#chain)
      throw new JournalError(
        `record ${this.#lines} of the journal breaks its chain: something was lost, repeated or changed`,
      );
    return JSON.parse(text) as Entry;
  }
}
