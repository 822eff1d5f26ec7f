import { network } from '../../engine/registry.js';
import { planRestore } from '../../engine/restore/plan.js';
import { ImageReader } from '../../image/index.js';
import { Network, OWN_NETWORK } from '../../kernel/namespace.js';
import { StemHolder } from '../../resources/description/index.js';
import { printTape } from '../../tape/print.js';
import type { Tape } from '../../tape/tape.js';
import type { ParsedOptions } from '../requests.js';
import type { PlannedTape, PlanResult } from '../results.js';

/** The tapes a restore would play, in the order of its barriers. Nothing is started. */
export function planImage(options: ParsedOptions<'plan'>): PlanResult {
  const { directory, trust, shell_job, external } = options;
  using reader = ImageReader.open(directory, { trust });
  const request = {
    directory,
    trust,
    shellJob: shell_job,
    external,
    extUnixSk: options.ext_unix_sk,
    inheritFds: new Map(),
    verify: false,
    sibling: false,
    leaveStopped: false,
    hooks: {},
  };
  // Without a word of it all that a plan lacks is what there is in it, such as the numbers of interfaces.
  const joins = options.join_ns;
  const place = joins.length === 0 ? undefined : network.placeOf(reader, { ...request, joins });
  using _ = Network.enter(place?.kind === 'join' ? place.path : OWN_NETWORK);
  using holder = new StemHolder(reader, request);
  const plan = planRestore(reader, holder);
  const phases: readonly (readonly [phase: string, tapes: Iterable<Tape>])[] = [
    ['holder', [holder.openings]],
    ['births', plan.births.values()],
    ['memory', plan.finish.values()],
    ['holder', [holder.late]],
    ['descriptors', plan.tables.values()],
    ['holder', [holder.latest]],
    ['descriptors', plan.additions.values()],
    ['stand-ins', plan.collect.values()],
    ['states', plan.states.map(({ tape }) => tape)],
    ['holder', [holder.last]],
    ['resume', [holder.resume]],
  ];
  const tapes = phases.flatMap(([phase, list]) =>
    [...list].filter(({ entries }) => entries.length > 0).map((tape) => describe(phase, tape)),
  );
  return { directory: reader.directory, processes: plan.processes.length, tapes };
}

function describe(phase: string, tape: Tape): PlannedTape {
  return { phase, title: tape.title, calls: tape.entries.length, listing: printTape(tape) };
}
