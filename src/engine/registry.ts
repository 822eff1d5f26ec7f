import { fileKinds } from '../resources/file/index.js';
import { memory } from '../resources/memory/index.js';
import { taskStates } from '../resources/process/index.js';

/** Every kind of kernel object Stasis knows; the engine knows no other. Task states are in the order of their restore. */
export { fileKinds, memory, taskStates };
