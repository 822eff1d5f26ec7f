import { ImageReader } from '../image/index.js';
import { Network, OWN_NETWORK } from '../kernel/namespace.js';
import { StemHolder } from '../resources/description/index.js';
import { now_ms, PhaseClock } from './clock.js';
import type { RestoreReport, RestoreRequest } from './options.js';
import { network } from './registry.js';
import { Performance } from './restore/perform.js';
import { asRestoreError, planRestore, type RestorePlan } from './restore/plan.js';

/** Bring a tree back from its image. Until the last barrier every failure leaves no process behind. */
export function restore(request: RestoreRequest): RestoreReport {
  const clock = new PhaseClock(request.hooks.phase);
  const start = now_ms();

  clock.start('plan');
  using reader = request.reader ?? ImageReader.open(request.directory, { trust: request.trust });
  const place = placeOf(reader, request);
  using entered = enter(place);
  using holder = new StemHolder(reader, request);
  const plan = planRestore(reader, holder);

  using performance = new Performance(plan, request);
  performance.build(clock, () => entered.outside(() => request.hooks.whileLoading?.()));
  if (place.kind === 'new') network.build(place.contents, 'late');

  clock.start('resume');
  const pid = performance.rootPid;
  entered.outside(() => request.hooks.beforeResume?.(pid));
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

type Place = ReturnType<typeof network.placeOf>;

function placeOf(reader: ImageReader, request: RestoreRequest): Place {
  try {
    return network.placeOf(reader, request);
  } catch (error) {
    throw asRestoreError(error, reader);
  }
}

/** Go to the network namespace in which the tree is restored; a new one gets what its sockets need. */
function enter(place: Place): Network {
  if (place.kind !== 'new') return Network.enter(place.kind === 'join' ? place.path : OWN_NETWORK);
  const entered = Network.fresh();
  try {
    network.build(place.contents, 'early');
    return entered;
  } catch (error) {
    entered[Symbol.dispose]();
    throw error;
  }
}

function pagesOf(plan: RestorePlan): number {
  let pages = 0;
  for (const { mm, reader, pid } of plan.processes)
    if (mm !== undefined)
      for (const { nrPages, flags } of reader.pagemap(pid)?.entries ?? []) if (flags !== 0) pages += nrPages;
  return pages;
}
