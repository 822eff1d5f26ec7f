export { FIRST_SLOT, StemHolder, UnknownFileError } from './holder.js';
export { DescriptorLimitError } from './limit.js';
export { StemTaker } from './taker.js';
export { helperPids } from './used.js';
