import { ImageReader } from '../image/index.js';
import { StemHolder } from '../resources/description/index.js';
import { now_ms, PhaseClock } from './clock.js';
import type { RestoreReport, RestoreRequest } from './options.js';
import { Performance } from './restore/perform.js';
import { planRestore, type RestorePlan } from './restore/plan.js';

/** Bring a tree back from its image. Until the last barrier every failure leaves no process behind. */
export function restore(request: RestoreRequest): RestoreReport {
  const clock = new PhaseClock(request.hooks.phase);
  const start = now_ms();

  clock.start('plan');
  using reader = request.reader ?? ImageReader.open(request.directory, { trust: request.trust });
  using holder = new StemHolder(reader, request);
  const plan = planRestore(reader, holder);

  using performance = new Performance(plan, request);
  performance.build(clock);

  clock.start('resume');
  const pid = performance.rootPid;
  request.hooks.beforeResume?.(pid);
  performance.release();
  clock.stop();

  return {
    pid,
    processes: plan.processes.length,
    threads: plan.states.length,
    phases: clock.phases,
    total_ms: now_ms() - start,
    pages: pagesOf(plan),
  };
}

function pagesOf(plan: RestorePlan): number {
  let pages = 0;
  for (const { mm, reader, pid } of plan.processes)
    if (mm !== undefined)
      for (const { nrPages, flags } of reader.pagemap(pid)?.entries ?? []) if (flags !== 0) pages += nrPages;
  return pages;
}
