import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { type Answer, type Beat, type Gap, JournalReader, type Report } from './workload/journal.js';
import { ballastOf, Party } from './workload/party.js';
import { membersOf, PIPELINE, PYTHON, type Settings } from './workload/settings.js';

/** The server said something it could not have said, had nothing been lost, repeated or changed. */
export class DisprovedError extends Error {}

const POLL_MS = 5;
const NO_GAP: Gap = { day_ms: 0, monotonic_ms: 0 };
const BUFFER_BYTES = 1 << 16;

/**
 * Reads the server's journal as it grows, does the same calculation from the same seed, and compares: every number,
 * every state, every hash of memory, every pid.
 */
export class Witness {
  readonly #settings: Settings;
  readonly #reader = new JournalReader();
  readonly #parties: ReadonlyMap<string, Party>;
  readonly #told: string[] = [];
  #fd: number | undefined;
  #last: Beat | undefined;
  #reports = 0;
  #pids: Readonly<Record<string, number>> = {};
  #gap: Gap = NO_GAP;
  readonly reports: Report[] = [];

  constructor(settings: Settings) {
    this.#settings = settings;
    const { seed, pages } = settings;
    this.#parties = new Map(
      membersOf(settings).map((name) => [name, new Party(ballastOf(seed, name, pages))]),
    );
  }

  /** Beats seen and proved. */
  get beats(): number {
    return this.#last?.beat ?? 0;
  }

  get last(): Beat | undefined {
    return this.#last;
  }

  /** States and hashes compared, for the summary. */
  compared = 0;

  /** The longest time in which the server did not see its clocks, since this was last asked. */
  takeGap(): Gap {
    const gap = this.#gap;
    this.#gap = NO_GAP;
    return gap;
  }

  /** A word that the server was told; every later report must have it. */
  told(word: string): void {
    this.#told.push(word);
  }

  /** Read on until `enough`, which throws when that cannot come any more. */
  async until(enough: () => boolean, what: string, timeout_ms: number): Promise<void> {
    const deadline = performance.now() + timeout_ms;
    for (;;) {
      this.read();
      if (enough()) return;
      if (performance.now() > deadline)
        throw new DisprovedError(
          `${what} did not happen in ${timeout_ms / 1000} s; the last beat was ${this.beats}`,
        );
      await pause(POLL_MS);
    }
  }

  /** Everything that is in the journal by now. @throws DisprovedError, JournalError */
  read(): void {
    const buffer = Buffer.alloc(BUFFER_BYTES);
    try {
      this.#fd ??= openSync(this.#settings.journal, 'r');
    } catch {
      return;
    }
    for (;;) {
      const count = readSync(this.#fd, buffer);
      if (count === 0) return;
      for (const entry of this.#reader.push(buffer.toString('utf8', 0, count)))
        if (entry.kind === 'beat') this.#beat(entry);
        else this.#report(entry);
    }
  }

  #beat(beat: Beat): void {
    const number = this.beats + 1;
    must(beat.beat === number, `beat ${number} was followed by beat ${beat.beat}`);
    must(beat.at_ms > (this.#last?.at_ms ?? 0), `beat ${number} lies before the one before it`);
    for (const [name, party] of this.#parties)
      this.#compare(name, beat.answers[name], party.step(number), number);
    this.#compare(PIPELINE, beat.answers[PIPELINE], `beat ${number} ${number}`, number);
    this.#signals(beat);
    if (this.#last === undefined)
      this.#pids = Object.fromEntries(Object.entries(beat.answers).map(([name, { pid }]) => [name, pid]));
    this.#gap = {
      day_ms: Math.max(this.#gap.day_ms, beat.gap.day_ms),
      monotonic_ms: Math.max(this.#gap.monotonic_ms, beat.gap.monotonic_ms),
    };
    this.#last = beat;
  }

  #compare(name: string, answer: Answer | undefined, state: string, number: number): void {
    must(answer?.state === state, `${name} answered ${answer?.state} at beat ${number}, not ${state}`);
    const pid = this.#pids[name] ?? answer?.pid;
    must(answer?.pid === pid, `${name} had pid ${pid}, and was ${answer?.pid} at beat ${number}`);
    this.compared++;
  }

  #signals({ beat, signals }: Beat): void {
    const expected = this.#settings.python === undefined ? 0 : beat + this.#reports;
    for (const [what, count] of Object.entries(signals))
      must(count === expected, `${count} signals were ${what} by beat ${beat}, not ${expected}`);
  }

  #report(report: Report): void {
    this.#reports++;
    must(report.starts === 1, `the server was started ${report.starts} times`);
    must(report.beat === this.beats, `the report of beat ${report.beat} came after beat ${this.beats}`);
    must(
      report.remembered.join() === this.#told.join(),
      `the server remembers ${report.remembered}, not ${this.#told}`,
    );
    for (const [name, party] of this.#parties) {
      must(
        report.memory[name] === party.memoryHash,
        `the memory of ${name} is not what it must be at beat ${report.beat}`,
      );
      this.compared++;
    }
    this.reports.push(report);
  }

  /** What is counted by signals. */
  get hasSignals(): boolean {
    return this.#parties.has(PYTHON);
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function must(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new DisprovedError(otherwise);
}
