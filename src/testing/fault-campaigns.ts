import { HOLDINGS } from './fault-holding.js';
import type { Fault, FaultOrder, Victim } from './fault-order.js';
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
  readonly harmed: readonly Trial[];
}

const SIGKILL = 9;
/** A short run ends a campaign after this, and all of them after that, on a machine that has much else to do. */
const QUICK_MS = 3000;
const ALL_QUICK_MS = 55_000;
/** Random instants of a full run; as many times fewer as calls are left out. */
export const INSTANTS = 300;

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
const SIGINT = 2;
const SIGTERM = 15;

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

/** `stride` 1 is every call; undefined makes the short run. `say` hears of every trial that did harm. */
export async function runCampaign(
  sets: TrialSets,
  campaign: Campaign,
  stride: number | undefined,
  say: (line: string) => void,
): Promise<CampaignResult> {
  const harmed: Trial[] = [];
  let runs = 0;
  let done = 0;
  const count = (trial: Trial): void => {
    runs++;
    if (trial.done) done++;
    if (trial.harm.length === 0) return;
    harmed.push(trial);
    say(`${campaign.name}: ${JSON.stringify(trial.fault)}: ${trial.harm.slice(0, 5).join('; ')}`);
  };
  const undisturbed = await sets.undisturbed(campaign);
  count(undisturbed);
  const { answer } = undisturbed;
  if (answer === undefined || answer.error !== undefined)
    throw new Error(answer?.error ?? 'it does not answer');
  const trials = await sets.of(campaign);
  const deadline = stride === undefined ? sets.deadlineOf(campaign) : Number.POSITIVE_INFINITY;
  for (const fault of faultsOf(campaign, stride, answer.calls, answer.duration_us)) {
    count(await trials.run(campaign, fault));
    if (Date.now() > deadline) break;
  }
  return { campaign, runs, done, harmed };
}

function* faultsOf(
  campaign: Campaign,
  stride: number | undefined,
  calls: number,
  duration_us: number,
): Generator<Fault> {
  const { fault, victim, signal, quick, from } = campaign;
  if (fault === 'instant') {
    const count = stride === undefined ? quick : Math.ceil(INSTANTS / stride);
    for (let index = 0; index < count; index++)
      yield { kind: 'kill at', victim, signal, after_us: Math.floor(Math.random() * duration_us) };
    return;
  }
  const start = stride === undefined ? Math.floor(calls * from) : 0;
  const step = stride ?? Math.max(1, (calls - start) / quick);
  const places: number[] = [];
  for (let at = start; at < calls; at += step) places.push(Math.floor(at));
  if (stride === undefined) shuffle(places);
  for (const at of places)
    yield fault === 'throw' ? { kind: 'throw', at } : { kind: 'kill', victim, at, signal };
}

/** A sample that is cut short is one of all places. */
function shuffle(places: number[]): void {
  for (let index = places.length - 1; index > 0; index--) {
    const other = Math.floor(Math.random() * (index + 1));
    const place = places[index] ?? 0;
    places[index] = places[other] ?? 0;
    places[other] = place;
  }
}
