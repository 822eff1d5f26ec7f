import { SIGINT, SIGKILL, SIGTERM } from '../abi/signal.js';
import { HOLDINGS } from './fault-holding.js';
import type { Fault, FaultAnswer, FaultOrder, Victim } from './fault-order.js';
import { Journal, type Selection } from './fault-places.js';
import type { Confinement, SubjectOptions } from './fault-subject.js';
import { DumpTrials, RestoreTrials, type Trial } from './fault-trial.js';

/** Many trials of one kind: at every kernel call (or every so many), or at random instants, from the first touch to the end. */
export interface Campaign {
  readonly name: string;
  readonly what: FaultOrder['afterwards'] | 'restore';
  readonly subject: SubjectOptions;
  readonly fault: 'kill' | 'throw' | 'instant';
  readonly victim: Victim;
  readonly signal: number;
  /** How many trials of it a short run makes. */
  readonly quick: number;
  /** Where a short run's calls are, as parts of the whole. */
  readonly from: number;
  /** Each in a Node process of its own, with threads, instead of one that was forked. */
  readonly isFresh: boolean;
}

export interface CampaignResult {
  readonly campaign: Campaign;
  readonly runs: number;
  /** Trials after which there was a valid image (dump), or a tree (restore). */
  readonly done: number;
  /** Trials that did not come to the call at which the fault was to be. */
  readonly missed: number;
  /** With those of earlier runs with the same state. */
  readonly known: number;
  /** Kernel calls of a trial without a fault. */
  readonly calls: number;
  readonly harmed: readonly Trial[];
}

/** A short run ends a campaign after this, and all of them after that, on a machine that has much else to do. */
const QUICK_MS = 3000;
const ALL_QUICK_MS = 55_000;
/** Random instants of a full run; as many times fewer as calls are left out. */
const INSTANTS = 300;

function campaign(
  what: Campaign['what'],
  fault: Campaign['fault'],
  quick: number,
  more: Partial<Campaign> & { readonly confinement?: Confinement } = {},
): Campaign {
  const { confinement = 'none', victim = 'controller', signal = SIGKILL, subject, from = 0 } = more;
  const { isFresh = false } = more;
  const options = subject ?? { confinement, small: true };
  const whom = victim === 'controller' ? '' : ` of helper ${victim}`;
  const act = fault === 'throw' ? 'an exception' : `signal ${signal}${whom}`;
  const when = fault === 'instant' ? 'at a random instant' : 'before a call';
  const size = options.small === true ? 'small' : 'large';
  const process = isFresh ? ', fresh process' : '';
  const tree =
    options.holds === undefined
      ? `${size} tree, seccomp ${options.confinement}`
      : `tree with ${options.holds.join(' and ')}`;
  const name = `${what}: ${act} ${when}, ${tree}${process}`;
  return { name, what, subject: options, fault, victim, signal, quick, from, isFresh };
}

const LARGE: SubjectOptions = { confinement: 'none' };
const CONTINUED: SubjectOptions = { confinement: 'none', small: true, continued: true };

/** What can only be looked at by changing it. */
const HOLDING: SubjectOptions = { confinement: 'none', holds: HOLDINGS };

export const CAMPAIGNS: readonly Campaign[] = [
  campaign('run', 'kill', 16),
  campaign('run', 'throw', 16),
  campaign('run', 'kill', 8, { victim: 0 }),
  campaign('run', 'kill', 6, { victim: 'copy', from: 0.3 }),
  campaign('run', 'kill', 2, { signal: SIGTERM }),
  campaign('run', 'instant', 8),
  campaign('run', 'instant', 4, { victim: 0 }),
  campaign('kill', 'kill', 8, { from: 0.95 }),
  campaign('kill', 'throw', 6, { from: 0.95 }),
  campaign('kill', 'kill', 3, { victim: 0, from: 0.95 }),
  campaign('kill', 'kill', 2, { signal: SIGINT }),
  campaign('kill', 'instant', 4),
  campaign('run', 'kill', 8, { subject: LARGE }),
  campaign('run', 'throw', 8, { subject: LARGE }),
  campaign('kill', 'kill', 4, { subject: LARGE, from: 0.97 }),
  campaign('kill', 'instant', 2, { subject: LARGE }),
  campaign('stop', 'kill', 3, { from: 0.97, subject: CONTINUED }),
  campaign('stop', 'throw', 3, { from: 0.97, subject: CONTINUED }),
  campaign('run', 'kill', 4, { confinement: 'harsh' }),
  campaign('run', 'kill', 3, { confinement: 'mild' }),
  campaign('run', 'kill', 5, { confinement: 'strict' }),
  campaign('run', 'throw', 4, { confinement: 'strict' }),
  campaign('run', 'throw', 2, { confinement: 'harsh' }),
  campaign('run', 'throw', 2, { confinement: 'mild' }),
  campaign('run', 'instant', 2, { confinement: 'harsh' }),
  campaign('kill', 'kill', 2, { confinement: 'harsh', from: 0.9 }),
  campaign('run', 'instant', 4, { isFresh: true }),
  campaign('kill', 'instant', 2, { isFresh: true }),
  campaign('run', 'kill', 12, { subject: HOLDING, from: 0.1 }),
  campaign('run', 'throw', 8, { subject: HOLDING, from: 0.1 }),
  campaign('run', 'kill', 2, { subject: HOLDING, victim: 0 }),
  campaign('run', 'instant', 6, { subject: HOLDING }),
  campaign('kill', 'kill', 4, { subject: HOLDING, from: 0.9 }),
  campaign('kill', 'throw', 3, { subject: HOLDING, from: 0.9 }),
  campaign('kill', 'instant', 2, { subject: HOLDING }),
  campaign('restore', 'kill', 10),
  campaign('restore', 'throw', 8),
  campaign('restore', 'kill', 4, { victim: 0 }),
  campaign('restore', 'kill', 4, { victim: 1 }),
  campaign('restore', 'kill', 6, { victim: 2 }),
  campaign('restore', 'instant', 6),
  campaign('restore', 'instant', 4, { victim: 2 }),
  campaign('restore', 'kill', 4, { subject: LARGE }),
  campaign('restore', 'throw', 3, { subject: LARGE }),
];

/** What is done in which trial. */
interface Trials {
  run(campaign: Campaign, fault: Fault): Promise<Trial>;
  end(): Promise<void>;
}

async function trialsOf({ what, subject, isFresh }: Campaign): Promise<Trials> {
  if (what === 'restore') {
    const trials = await RestoreTrials.start(subject, isFresh);
    return { run: (_, fault) => trials.run(fault), end: () => trials[Symbol.asyncDispose]() };
  }
  const trials = new DumpTrials(subject, isFresh);
  return {
    run: (campaign, fault) => trials.run(campaign.what === 'restore' ? 'run' : campaign.what, fault),
    end: () => trials[Symbol.asyncDispose](),
  };
}

/** Campaigns that follow each other and have the same tree share it, and the process that does the work. One tree at a time. */
export class TrialSets implements AsyncDisposable {
  #key = '';
  #trials: Trials | undefined;
  readonly #undisturbed = new Map<string, Trial>();
  readonly #start = Date.now();

  async of(campaign: Campaign): Promise<Trials> {
    const { what, subject, isFresh } = campaign;
    const key = JSON.stringify([what === 'restore', subject, isFresh]);
    if (this.#trials !== undefined && this.#key === key) return this.#trials;
    await this.end();
    this.#key = key;
    this.#trials = await trialsOf(campaign);
    return this.#trials;
  }

  /** Of a short run: what takes longer than its share leaves less to those that follow, which have one trial at least. */
  deadlineOf(campaign: Campaign): number {
    const share = (CAMPAIGNS.indexOf(campaign) + 1) / CAMPAIGNS.length;
    return Math.min(Date.now() + QUICK_MS, this.#start + ALL_QUICK_MS * share);
  }

  async end(): Promise<void> {
    await this.#trials?.end();
    this.#trials = undefined;
  }

  /** A trial without a fault, once for all that are alike. */
  async undisturbed(campaign: Campaign): Promise<Trial> {
    const { what, subject, isFresh } = campaign;
    const key = JSON.stringify([what, subject, isFresh]);
    const trial =
      this.#undisturbed.get(key) ?? (await (await this.of(campaign)).run(campaign, { kind: 'none' }));
    this.#undisturbed.set(key, trial);
    return trial;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

/** `selection` undefined makes the short run. `say` hears of every trial that did harm. */
export async function runCampaign(
  sets: TrialSets,
  campaign: Campaign,
  selection: Selection | undefined,
  say: (line: string) => void,
): Promise<CampaignResult> {
  const harmed: Trial[] = [];
  let runs = 0;
  let done = 0;
  let missed = 0;
  const count = (trial: Trial): void => {
    runs++;
    if (trial.done) done++;
    if (isMissed(trial)) missed++;
    if (trial.harm.length === 0) return;
    harmed.push(trial);
    say(explainHarm(campaign, trial));
  };
  const undisturbed = await sets.undisturbed(campaign);
  count(undisturbed);
  const { answer } = undisturbed;
  if (answer === undefined || answer.error !== undefined)
    throw new Error(answer?.error ?? 'it does not answer');
  if (selection !== undefined) say(`${campaign.name}: ${answer.phases.join(', ')}, end ${answer.calls}`);
  const trials = await sets.of(campaign);
  const deadline = selection?.deadline ?? sets.deadlineOf(campaign);
  const journal = new Journal(selection?.state, campaign.name);
  const faults =
    selection === undefined ? sample(campaign, answer) : all(campaign, selection, answer, journal);
  for (const fault of faults) {
    const trial = await trials.run(campaign, fault);
    count(trial);
    journal.add(keyOf(fault), trial.harm);
    if (Date.now() > deadline) break;
  }
  return { campaign, runs, done, missed, known: journal.size, calls: answer.calls, harmed };
}

/** A fault that was to be done at a call which this trial did not come to: the number of calls is not always the same. */
function isMissed({ fault, answer }: Trial): boolean {
  return (
    (fault.kind === 'kill' || fault.kind === 'throw') && answer !== undefined && answer.call === undefined
  );
}

/** What happened, and a command which does it again. */
export function explainHarm({ name, fault: kind }: Campaign, { fault, phase, answer, harm }: Trial): string {
  const lines = [`${name}: ${JSON.stringify(fault)}`, `  at: ${answer?.call ?? ''} ${phase}`];
  for (const line of harm.slice(0, 12)) lines.push(`  ${line.slice(0, 300)}`);
  if (harm.length > 12) lines.push(`  and ${harm.length - 12} lines more`);
  const place = kind === 'instant' ? '' : ` STASIS_FAULT_AT='${phase.split(/ (?=\S+$)/)[0]}'`;
  const only = `^${name.replaceAll(/[^a-z0-9 ,:]/gi, '.')}$`;
  lines.push(
    `  again: STASIS_FAULTS=full STASIS_FAULT_ONLY='${only}'${place} STASIS_FAULT_REPEAT=20 npm test -- engine/faults`,
  );
  return lines.join('\n');
}

function faultAt({ fault, victim, signal }: Campaign, place: { at: number; phase?: string }): Fault {
  return fault === 'throw' ? { kind: 'throw', ...place } : { kind: 'kill', victim, signal, ...place };
}

function instantOf({ victim, signal }: Campaign, duration_us: number): Fault {
  return { kind: 'kill at', victim, signal, after_us: Math.floor(Math.random() * duration_us) };
}

/** One instant is as good as another. */
function keyOf(fault: Fault): string {
  if (fault.kind !== 'kill' && fault.kind !== 'throw') return fault.kind;
  return `${fault.phase ?? ''}+${fault.at}`;
}

/** A sample that is cut short is one of all places. */
function* sample(campaign: Campaign, { calls, duration_us }: FaultAnswer): Generator<Fault> {
  const { fault, quick, from } = campaign;
  if (fault === 'instant') {
    for (let index = 0; index < quick; index++) yield instantOf(campaign, duration_us);
    return;
  }
  const start = Math.floor(calls * from);
  const step = Math.max(1, (calls - start) / quick);
  const places: number[] = [];
  for (let at = start; at < calls; at += step) places.push(Math.floor(at));
  shuffle(places);
  for (const at of places) yield faultAt(campaign, { at });
}

/** What is selected, and was not done yet. */
function* all(
  campaign: Campaign,
  selection: Selection,
  answer: FaultAnswer,
  journal: Journal,
): Generator<Fault> {
  const { stride, repeat, shard } = selection;
  if (campaign.fault === 'instant') {
    const count = Math.ceil(INSTANTS / stride / shard.count) * repeat;
    while (journal.times('kill at') < count) yield instantOf(campaign, answer.duration_us);
    return;
  }
  const mine = placesOf(selection, answer).filter((_, index) => index % shard.count === shard.index);
  for (let round = 1; round <= repeat; round++)
    for (const place of mine) {
      const fault = faultAt(campaign, place);
      if (journal.times(keyOf(fault)) < round) yield fault;
    }
}

function placesOf(
  { range, stride }: Selection,
  { calls, phases }: FaultAnswer,
): { at: number; phase?: string }[] {
  const places: { at: number; phase?: string }[] = [];
  if (range?.phase === undefined) {
    const last = Math.min(range?.to ?? calls, calls - 1);
    for (let at = range?.from ?? 0; at <= last; at += stride) places.push({ at });
    return places;
  }
  const { phase, from, to } = range;
  const length = lengthOf(phase, phases, calls);
  for (let at = from; at <= Math.min(to, length - 1); at += stride) places.push({ at, phase });
  return places;
}

/** How many calls a phase makes; `phases` says with which number each begins. */
function lengthOf(phase: string, phases: readonly string[], calls: number): number {
  const starts = phases.map((text) => Number(text.slice(text.lastIndexOf(' ') + 1)));
  const index = phases.findIndex((text) => text.slice(0, text.lastIndexOf(' ')) === phase);
  if (index < 0) return 0;
  return (starts[index + 1] ?? calls) - (starts[index] ?? 0);
}

function shuffle(places: number[]): void {
  for (let index = places.length - 1; index > 0; index--) {
    const other = Math.floor(Math.random() * (index + 1));
    const place = places[index] ?? 0;
    places[index] = places[other] ?? 0;
    places[other] = place;
  }
}
