import { type Packed, type PackOptions, packImage, unpackImage } from '../../image/index.js';
import { METHODS, type Method, type ParsedOptions } from '../requests.js';
import type { PackResult, Results } from '../results.js';
import { checkHost } from './check.js';
import { checkpointTree } from './checkpoint.js';
import { inspectImage } from './inspect.js';
import { planImage } from './plan.js';
import { restoreTree } from './restore.js';
import { unlockTree } from './unlock.js';

/** Called at the begin of every phase. */
export type OnPhase = (name: string) => void;

export interface Surroundings {
  readonly onPhase: OnPhase;
  /** Throws when the call has been called off. */
  readonly interrupt: () => void;
}

/** Does what a call asks for, synchronously. @throws ZodError for options that are none */
export function handle(method: Method, options: unknown, surroundings: Surroundings): Results[Method] {
  switch (method) {
    case 'checkpoint':
      return checkpointTree(METHODS.checkpoint.parse(options), surroundings);
    case 'restore':
      return restoreTree(METHODS.restore.parse(options), surroundings);
    case 'inspect':
      return inspectImage(METHODS.inspect.parse(options));
    case 'plan':
      return planImage(METHODS.plan.parse(options));
    case 'check':
      return checkHost(METHODS.check.parse(options));
    case 'pack':
      return pack(METHODS.pack.parse(options), packImage);
    case 'unpack':
      return pack(METHODS.unpack.parse(options), (directory, file, how) => unpackImage(file, directory, how));
    case 'unlock':
      return unlockTree(METHODS.unlock.parse(options));
    default:
      return method satisfies never;
  }
}

function pack(
  { directory, file, ...how }: ParsedOptions<'pack'>,
  copy: (directory: string, file: string, how: PackOptions) => Packed,
): PackResult {
  return { directory, file, ...copy(directory, file, how) };
}
