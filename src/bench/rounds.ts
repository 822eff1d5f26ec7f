import { join } from 'node:path';
import { checkpoint, restore as restoreByLibrary } from '../library/api.js';
import type { PhaseTime } from '../library/results.js';
import { type Contestant, dump, remove, restore } from './criu.js';
import { Subject } from './subject.js';
import type { Workload } from './workloads.js';

/** One round of one contestant. All but the size in ms. */
export interface Measured {
  /** The program's longest gap while it was dumped and left running. */
  readonly pause: number;
  /** What the contestant itself calls the frozen time of that dump. */
  readonly frozen: number;
  /** The whole command. */
  readonly dump: number;
  /** The program's longest gap over dump, kill and restore. */
  readonly gap: number;
  /** The whole command. */
  readonly restore: number;
  /** Without the start of the contestant's program. */
  readonly restore_engine: number;
  readonly image_bytes: number;
}

export const MEASURES = [
  'pause',
  'frozen',
  'dump',
  'gap',
  'restore',
  'restore_engine',
  'image_bytes',
] as const satisfies readonly (keyof Measured)[];

/** A fresh subject is dumped and left running, then dumped, killed and restored. */
export async function measure(
  contestant: Contestant,
  workload: Workload,
  directory: string,
): Promise<Measured> {
  const subject = await Subject.start(workload, join(directory, 'subject'));
  const images = { run: join(directory, 'running'), kill: join(directory, 'killed') };
  try {
    await subject.nextPeriod();
    const running = dump(contestant, subject.pid, images.run, true);
    const pause = await subject.nextPeriod();
    remove(images.run);
    await subject.nextPeriod();
    dump(contestant, subject.pid, images.kill, false);
    await subject.untilGone();
    const restored = restore(contestant, images.kill);
    const gap = await subject.nextPeriod();
    return {
      pause,
      frozen: running.frozen_ms,
      dump: running.command_ms,
      gap,
      restore: restored.command_ms,
      restore_engine: restored.engine_ms,
      image_bytes: running.image_bytes,
    };
  } finally {
    await subject.end();
    for (const image of Object.values(images)) remove(image);
  }
}

/** Where the time goes inside of our engine. */
export interface Profile {
  readonly freezing_ms: number;
  readonly frozen_ms: number;
  readonly phases: readonly PhaseTime[];
  readonly threads: number;
  /** Stops of tasks by ptrace, of all tasks together. */
  readonly stops: number;
  readonly restore_ms: number;
  readonly restore_phases: readonly PhaseTime[];
}

/** A dump that leaves the subject running, and a restore, by our library; an engine is started for each, as for a command. */
export async function profile(workload: Workload, directory: string): Promise<Profile> {
  const subject = await Subject.start(workload, join(directory, 'subject'));
  const image = join(directory, 'profiled');
  try {
    const dumping = {
      pid: subject.pid,
      directory: image,
      durable: false,
      tcp_established: workload.connections > 0,
    } as const;
    const { freezing_ms, frozen_ms, phases, threads, stops } = await checkpoint({
      ...dumping,
      afterwards: 'run',
    });
    await checkpoint({ ...dumping, afterwards: 'kill', overwrite: true });
    await subject.untilGone();
    const restored = await restoreByLibrary({ directory: image, detach: true });
    await subject.nextPeriod();
    return {
      freezing_ms,
      frozen_ms,
      phases,
      threads,
      stops,
      restore_ms: restored.total_ms,
      restore_phases: restored.phases,
    };
  } finally {
    await subject.end();
    remove(image);
  }
}
