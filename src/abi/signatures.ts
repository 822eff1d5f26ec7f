/**
 * How system calls print, in the manner of strace: a descriptor for each argument. A call that is not here
 * prints its registers as numbers.
 */
import { type Argument, formatArgument } from './argument.js';
import { FILE_SIGNATURES } from './signatures-file.js';
import { MEMORY_SIGNATURES } from './signatures-memory.js';
import { PROCESS_SIGNATURES } from './signatures-process.js';
import { SOCKET_SIGNATURES } from './signatures-socket.js';
import { SYSTEM_SIGNATURES } from './signatures-system.js';
import type { SyscallName } from './syscalls.js';

export { type Argument, formatArgument };

export type Signature = readonly Argument[];

const ALL = {
  ...MEMORY_SIGNATURES,
  ...FILE_SIGNATURES,
  ...PROCESS_SIGNATURES,
  ...SOCKET_SIGNATURES,
  ...SYSTEM_SIGNATURES,
} as const satisfies Partial<Record<SyscallName, Signature>>;

export const SIGNATURES: Readonly<Partial<Record<SyscallName, Signature>>> = ALL;

/** A whole call with its arguments, as far as given: `mprotect(0x7f0000000000, 4096, PROT_READ)`. */
export function formatCall(call: SyscallName, args: readonly bigint[]): string {
  const signature = SIGNATURES[call];
  const texts = args.slice(0, signature?.length ?? args.length).map((value, index) => {
    const argument = signature?.[index];
    return formatArgument(argument ?? { name: `arg${index}`, kind: 'hex' }, value, args);
  });
  return `${call}(${texts.join(', ')})`;
}
