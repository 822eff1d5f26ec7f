import type { MemoryResource } from '../contract.js';
import { variantOfRings } from './aio.js';
import { checkMemory } from './check.js';
import { askMemory, dumpMemory } from './dump.js';
import { finishMemory, restoreDumpable } from './finish.js';
import { holdMapped, holdMemory, sealMemory } from './hold.js';
import { loadMemory } from './load.js';
import { newStemMaps } from './stem-maps.js';
import { memoryKinds } from './support.js';

/** Memory: mappings and pages. See check.ts for what cannot be saved. */
export const memory: MemoryResource = {
  kinds: memoryKinds,
  check: (process, refuse) => {
    checkMemory(process, refuse);
  },
  ask: askMemory,
  variant: variantOfRings,
  dump: dumpMemory,
  hold: holdMemory,
  holdMapped,
  stemMaps: newStemMaps,
  load: loadMemory,
  finish: finishMemory,
  last: restoreDumpable,
  seal: sealMemory,
};

export { MemfdCollector } from './memfd.js';
