import { buildContents } from './contents.js';
import {
  checkNetwork,
  freezeNetwork,
  hasOwnNetwork,
  type NetworkPlan,
  placeOf,
  planNetwork,
  writeNetwork,
} from './network.js';

/** The network namespace a tree lives in. */
export const network = {
  plan: planNetwork,
  check: checkNetwork,
  freeze: freezeNetwork,
  write: writeNetwork,
  isOwn: hasOwnNetwork,
  placeOf,
  build: buildContents,
} as const;

export type { NetworkPlan };
