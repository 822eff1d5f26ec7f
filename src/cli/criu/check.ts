import { fileKinds } from '../../engine/registry.js';
import { type FeatureState, HOST_FEATURES, probeFeature } from '../../library/host/features.js';
import { print } from '../output.js';
import { CriuError, type Session } from './session.js';

/** `criu check`: what this host offers. `--feature NAME` asks for one thing, by its status. */
export function runCheck(session: Session): number {
  const { options, log } = session;
  if (options.feature !== undefined) return checkOne(options.feature);
  const wanted = HOST_FEATURES.filter(
    ({ need }) => need === 'always' || (options.extra && need === 'sometimes'),
  );
  const lacking = wanted
    .map((feature) => probeFeature(feature, fileKinds))
    .filter(({ state }) => state !== 'ok');
  for (const feature of lacking) {
    if (feature.required) log.error('check', describe(feature));
    else log.warn('check', describe(feature));
  }
  if (lacking.some(({ required }) => required)) return 1;
  print(
    lacking.length === 0
      ? 'Looks good.'
      : 'Looks good, but some trees cannot be saved or restored here (see the warnings).',
  );
  return lacking.length === 0 ? 0 : 1;
}

function checkOne(name: string): number {
  const feature = HOST_FEATURES.find((known) => known.name === name);
  if (feature === undefined) throw new CriuError('check', `Unknown feature ${name}`);
  const state = probeFeature(feature, fileKinds);
  if (state.state !== 'ok') throw new CriuError('check', describe(state));
  print(`${name} is supported`);
  return 0;
}

function describe({ name, what, reason }: FeatureState): string {
  return `${name} (${what}): ${reason ?? 'missing'}`;
}
