import * as S from '../abi/seccomp.js';
import { SYSCALL_X86_64, type SyscallName } from '../abi/syscalls.js';

/**
 * What seccomp filters would do to a system call whose arguments are not known: classic BPF, followed along every way
 * that an unknown word leaves open. struct seccomp_data: number, architecture, instruction pointer, six arguments.
 */
export type Verdict =
  /** It would be made. */
  | 'made'
  /** It might be answered with an error instead, but no harm would come of it. */
  | 'refused'
  /** It might end the task, or raise SIGSYS, or wait for a listener. */
  | 'fatal';

const INSTRUCTION_SIZE = 8;
const AUDIT_ARCH_X86_64 = 0xc000003e;
const DATA_SIZE = 64;
/** Ways through a filter that are followed before it counts as fatal. */
const STEPS_MAX = 100_000;
const CLASS = { ld: 0, ldx: 1, st: 2, stx: 3, alu: 4, jmp: 5, ret: 6, misc: 7 } as const;
const MODE = { imm: 0, abs: 0x20, mem: 0x60, len: 0x80 } as const;
const FROM_X = 8;
const TXA = 0x80;

type Word = number | undefined;

interface State {
  readonly at: number;
  readonly a: Word;
  readonly x: Word;
  readonly memory: readonly Word[];
}

/** By a whole chain: all filters are asked, and the strictest answer counts. */
export function verdictOf(filters: readonly Uint8Array[], call: SyscallName): Verdict {
  let strictest: Verdict = 'made';
  for (const filter of filters) {
    for (const action of actionsOf(filter, SYSCALL_X86_64[call])) {
      const verdict = verdictOfAction(action);
      if (verdict === 'fatal') return 'fatal';
      if (verdict === 'refused') strictest = 'refused';
    }
  }
  return strictest;
}

function verdictOfAction(action: number | undefined): Verdict {
  switch (action) {
    case S.SECCOMP_RET_ALLOW:
    case S.SECCOMP_RET_LOG:
      return 'made';
    case S.SECCOMP_RET_ERRNO:
    case S.SECCOMP_RET_TRACE:
      return 'refused';
    default:
      return 'fatal';
  }
}

/** Every action that a filter may come to; undefined for one that cannot be told. */
function actionsOf(filter: Uint8Array, number: number): Set<number | undefined> {
  const view = new DataView(filter.buffer, filter.byteOffset, filter.byteLength);
  const found = new Set<number | undefined>();
  const open: State[] = [{ at: 0, a: 0, x: 0, memory: [] }];
  for (let steps = 0; open.length > 0; steps++) {
    const state = open.pop();
    const isLost =
      state === undefined || steps > STEPS_MAX || (state.at + 1) * INSTRUCTION_SIZE > filter.length;
    if (isLost) return found.add(undefined);
    step(view, state, number, open, found);
  }
  return found;
}

function step(
  view: DataView,
  state: State,
  number: number,
  open: State[],
  found: Set<number | undefined>,
): void {
  const offset = state.at * INSTRUCTION_SIZE;
  const code = view.getUint16(offset, true);
  const k = view.getUint32(offset + 4, true);
  const next = { ...state, at: state.at + 1 };
  const source = (code & FROM_X) === 0 ? k : state.x;
  switch (code & 7) {
    case CLASS.ld:
      open.push({ ...next, a: load(code, k, state, number) });
      return;
    case CLASS.ldx:
      open.push({ ...next, x: load(code, k, state, number) });
      return;
    case CLASS.st:
    case CLASS.stx: {
      const memory = [...state.memory];
      memory[k] = (code & 7) === CLASS.st ? state.a : state.x;
      open.push({ ...next, memory });
      return;
    }
    case CLASS.alu:
      open.push({ ...next, a: calculate(code & 0xf0, state.a, source) });
      return;
    case CLASS.jmp:
      for (const jump of jumps(
        code & 0xf0,
        state.a,
        source,
        k,
        view.getUint8(offset + 2),
        view.getUint8(offset + 3),
      ))
        open.push({ ...next, at: next.at + jump });
      return;
    case CLASS.ret: {
      const value = (code & 0x18) === 0x10 ? state.a : k;
      found.add(value === undefined ? undefined : (value & S.SECCOMP_RET_ACTION_FULL) >>> 0);
      return;
    }
    default:
      open.push((code & TXA) === 0 ? { ...next, x: state.a } : { ...next, a: state.x });
  }
}

function load(code: number, k: number, state: State, number: number): Word {
  switch (code & 0xe0) {
    case MODE.imm:
      return k;
    case MODE.mem:
      return state.memory[k];
    case MODE.len:
      return DATA_SIZE;
    default:
      return k === 0 ? number : k === 4 ? AUDIT_ARCH_X86_64 : undefined;
  }
}

/** Offsets of the ways on: one where the comparison can be made, else both. */
function jumps(
  operation: number,
  a: Word,
  b: Word,
  k: number,
  whenTrue: number,
  whenFalse: number,
): number[] {
  if (operation === 0) return [k];
  if (a === undefined || b === undefined) return [whenTrue, whenFalse];
  const isTrue =
    operation === S.BPF_JEQ
      ? a === b
      : operation === S.BPF_JGT
        ? a > b
        : operation === S.BPF_JGE
          ? a >= b
          : (a & b) !== 0;
  return [isTrue ? whenTrue : whenFalse];
}

function calculate(operation: number, a: Word, b: Word): Word {
  if (operation === 0x80) return a === undefined ? undefined : -a >>> 0;
  if (a === undefined || b === undefined) return undefined;
  switch (operation) {
    case 0x00:
      return (a + b) >>> 0;
    case 0x10:
      return (a - b) >>> 0;
    case 0x20:
      return Math.imul(a, b) >>> 0;
    case 0x30:
      return b === 0 ? undefined : Math.floor(a / b);
    case 0x40:
      return (a | b) >>> 0;
    case 0x50:
      return (a & b) >>> 0;
    case 0x60:
      return (a << b) >>> 0;
    case 0x70:
      return a >>> b;
    case 0xa0:
      return (a ^ b) >>> 0;
    default:
      return undefined;
  }
}
