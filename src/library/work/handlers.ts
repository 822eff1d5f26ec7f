import { METHODS, type Method } from '../requests.js';
import type { Results } from '../results.js';
import { checkHost } from './check.js';
import { checkpointTree } from './checkpoint.js';
import { inspectImage } from './inspect.js';
import { planImage } from './plan.js';
import { restoreTree } from './restore.js';

/** Called at the begin of every phase. */
export type OnPhase = (name: string) => void;

/** Does what a call asks for, synchronously. @throws ZodError for options that are none */
export function handle(method: Method, options: unknown, onPhase: OnPhase): Results[Method] {
  switch (method) {
    case 'checkpoint':
      return checkpointTree(METHODS.checkpoint.parse(options), onPhase);
    case 'restore':
      return restoreTree(METHODS.restore.parse(options), onPhase);
    case 'inspect':
      return inspectImage(METHODS.inspect.parse(options));
    case 'plan':
      return planImage(METHODS.plan.parse(options));
    case 'check':
      return checkHost(METHODS.check.parse(options));
    default:
      return method satisfies never;
  }
}
