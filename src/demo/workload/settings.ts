/** What the demo tells the server, as JSON in its one argument. */
export interface Settings {
  readonly seed: string;
  /** Pages of 4096 bytes that every member keeps. */
  readonly pages: number;
  /** Path of the journal; made by the server. */
  readonly journal: string;
  /** Path of the FIFO that questions come from, a line each; there already. */
  readonly questions: string;
  /** Directory in memory for the file that is shared with Python. */
  readonly memoryDirectory: string;
  /** Path of python3; undefined where there is none. */
  readonly python: string | undefined;
  /** Time between two beats. */
  readonly pause_ms: number;
}

/** Names of the members, which are also their places in the journal. */
export const SERVER = 'server';
export const THREADS = ['thread 1', 'thread 2'] as const;
export const WORKERS = ['worker 1', 'worker 2'] as const;
export const PYTHON = 'python';
export const PIPELINE = 'pipeline';

/** Members with a chain and memory of their own. */
export function membersOf({ python }: Pick<Settings, 'python'>): string[] {
  return [SERVER, ...THREADS, ...WORKERS, ...(python === undefined ? [] : [PYTHON])];
}
