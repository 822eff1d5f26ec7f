/**
 * Command lines as getopt_long(3) reads them: options may stand anywhere before `--`, short ones can be joined
 * (`-jl`, `-tPID`), long ones take `--name value` or `--name=value` and may be cut to a prefix that is unique. An
 * optional value has to be joined to its option.
 */

export interface OptionShape {
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  readonly value: 'none' | 'required' | 'optional';
  /** Has a twin `--no-NAME`. */
  readonly negatable?: boolean;
}

export interface Occurrence<T extends OptionShape> {
  readonly option: T;
  /** What was typed, for messages: `-t`, `--tree`. */
  readonly spelling: string;
  readonly value: string | undefined;
  /** False for `--no-NAME`. */
  readonly on: boolean;
}

export interface CommandLine<T extends OptionShape> {
  readonly occurrences: readonly Occurrence<T>[];
  /** What is no option, in order. */
  readonly words: readonly string[];
}

/** A command line that cannot be understood. */
export class UsageError extends Error {
  readonly code = 'EUSAGE';
}

interface LongName<T> {
  readonly option: T;
  readonly on: boolean;
}

export class Getopt<T extends OptionShape> {
  readonly #long = new Map<string, LongName<T>>();
  readonly #short = new Map<string, T>();

  constructor(options: readonly T[]) {
    for (const option of options) {
      this.#long.set(option.name, { option, on: true });
      if (option.negatable) this.#long.set(`no-${option.name}`, { option, on: false });
      if (option.short !== undefined) this.#short.set(option.short, option);
    }
  }

  /** @throws UsageError */
  parse(args: readonly string[]): CommandLine<T> {
    const occurrences: Occurrence<T>[] = [];
    const words: string[] = [];
    for (let i = 0; i < args.length; i++) {
      const arg = args[i] ?? '';
      if (arg === '--') {
        words.push(...args.slice(i + 1));
        break;
      }
      const next = args[i + 1];
      if (arg.startsWith('--')) {
        const found = this.#parseLong(arg, next);
        occurrences.push(found.occurrence);
        if (found.tookNext) i++;
      } else if (arg.startsWith('-') && arg.length > 1) {
        if (this.#parseShort(arg, next, occurrences)) i++;
      } else {
        words.push(arg);
      }
    }
    return { occurrences, words };
  }

  #findLong(name: string): LongName<T> {
    const exact = this.#long.get(name);
    if (exact !== undefined) return exact;
    const candidates = [...this.#long].filter(([known]) => known.startsWith(name));
    const [only] = candidates;
    if (only === undefined) throw new UsageError(`unknown option --${name}`);
    if (candidates.length > 1) {
      const names = candidates.map(([known]) => `--${known}`).join(', ');
      throw new UsageError(`option --${name} may mean any of ${names}`);
    }
    return only[1];
  }

  #parseLong(arg: string, next: string | undefined): { occurrence: Occurrence<T>; tookNext: boolean } {
    const equals = arg.indexOf('=');
    const name = arg.slice(2, equals < 0 ? undefined : equals);
    const joined = equals < 0 ? undefined : arg.slice(equals + 1);
    const { option, on } = this.#findLong(name);
    const spelling = `--${on ? '' : 'no-'}${option.name}`;
    if (option.value === 'none' || !on) {
      if (joined !== undefined) throw new UsageError(`option ${spelling} takes no value`);
      return { occurrence: { option, spelling, value: undefined, on }, tookNext: false };
    }
    if (joined !== undefined || option.value === 'optional')
      return { occurrence: { option, spelling, value: joined, on }, tookNext: false };
    if (next === undefined) throw new UsageError(`option ${spelling} needs a value`);
    return { occurrence: { option, spelling, value: next, on }, tookNext: true };
  }

  /** Answers whether the next word was taken as the last option's value. */
  #parseShort(arg: string, next: string | undefined, occurrences: Occurrence<T>[]): boolean {
    for (let at = 1; at < arg.length; at++) {
      const letter = arg[at] ?? '';
      const option = this.#short.get(letter);
      if (option === undefined) throw new UsageError(`unknown option -${letter}`);
      const spelling = `-${letter}`;
      if (option.value === 'none') {
        occurrences.push({ option, spelling, value: undefined, on: true });
        continue;
      }
      const rest = arg.slice(at + 1);
      if (rest !== '' || option.value === 'optional') {
        occurrences.push({ option, spelling, value: rest === '' ? undefined : rest, on: true });
        return false;
      }
      if (next === undefined) throw new UsageError(`option ${spelling} needs a value`);
      occurrences.push({ option, spelling, value: next, on: true });
      return true;
    }
    return false;
  }
}
