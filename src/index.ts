/** Checkpoint and restore process trees. */

export { MoveError, RestoreError, UnsupportedError } from './engine/errors.js';
export { ImageError } from './image/errors.js';
export { SyscallError } from './kernel/errors.js';
export {
  type CheckOptions,
  type CheckpointOptions,
  check,
  checkpoint,
  createEngine,
  type InspectOptions,
  inspect,
  type PackOptions,
  type PlanOptions,
  pack,
  plan,
  type Restored,
  type RestoreOptions,
  restore,
  type UnlockOptions,
  type UnpackOptions,
  unlock,
  unpack,
} from './library/api.js';
export { type CallControl, Engine, type EngineOptions, type Progress } from './library/engine.js';
export { CancelledError, EngineLostError } from './library/errors.js';
export type { FeatureState } from './library/host/features.js';
export type * from './library/results.js';
export type { ImageOrigin, ImageSink, StreamDescriptor } from './library/streams.js';
export type { Refusal } from './resources/contract.js';
