import { RLIMIT_NOFILE } from '../../abi/process.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';

/** A restore needs higher descriptor numbers than this host lets us have. */
export class DescriptorLimitError extends Error {
  override readonly name = 'DescriptorLimitError';
  readonly code = 'EMFILE';
}

let known: number | undefined;

/** Our RLIMIT_NOFILE, the hard one: the lowest number no descriptor can have. */
export function descriptorLimit(): number {
  if (known !== undefined) return known;
  syscall('prlimit64', [0, RLIMIT_NOFILE, 0, scratch.address]);
  // RLIM_INFINITY would not do as a number; fs.nr_open is below 2^31 anyway.
  const limit = scratch.view.getBigUint64(8, true);
  known = limit > 0x7fff_ffffn ? 0x7fff_ffff : Number(limit);
  return known;
}
