import {
  ARCH_GET_CPUID,
  ARCH_GET_XCOMP_PERM,
  ARCH_REQ_XCOMP_PERM,
  ARCH_SET_CPUID,
} from '../../abi/process.js';
import { nameOf, type TaskState } from '../contract.js';
import { extrasFor, extrasOf } from './extras.js';

/** What x86 lets a task change about its processor: arch_prctl(2), modify_ldt(2). */

/** asm/prctl.h: the mask of address bits that linear address masking leaves in use. */
const ARCH_GET_UNTAG_MASK = 0x4001;
const ALL_BITS = 0xffff_ffff_ffff_ffffn;
/** The one dynamic feature that needs to be asked for. */
const TILE_DATA = 18;
const READ_LDT = 0;
const LDT_ENTRY_SIZE = 8;

export const processor: TaskState = {
  name: 'processor switches',
  scope: 'process',
  support:
    'permission for AMX, faulting CPUID; linear address masking and local descriptor tables are refused',

  ask(tape) {
    const permitted = tape.space(8);
    const untag = tape.space(Uint8Array.from({ length: 8 }, () => 0xff));
    const ldt = tape.call('modify_ldt', [READ_LDT, tape.space(LDT_ENTRY_SIZE), LDT_ENTRY_SIZE], 'any');
    const cpuid = tape.call('arch_prctl', [ARCH_GET_CPUID, 0], 'any');
    const asked = tape.call('arch_prctl', [ARCH_GET_XCOMP_PERM, permitted], 'any');
    tape.call('arch_prctl', [ARCH_GET_UNTAG_MASK, untag], 'any');
    return (played, thread, context) => {
      const extras = extrasOf(context, thread.insideTid);
      if (played.result(cpuid) === 0n) extras.cpuid = 0;
      const features = played.view(permitted).getBigUint64(0, true);
      if (played.result(asked) === 0n && ((features >> BigInt(TILE_DATA)) & 1n) === 1n)
        extras.xcomp = features.toString(16);
      const refuse = (object: string) =>
        context.refuse({ task: nameOf(thread), object, reason: 'this release cannot rebuild it' });
      if (played.result(ldt) > 0n) refuse('local descriptor table (modify_ldt)');
      if (played.view(untag).getBigUint64(0, true) !== ALL_BITS) refuse('linear address masking (LAM)');
    };
  },

  restore(task, tape) {
    const extras = extrasFor(task.reader, task.tid);
    if (extras?.xcomp !== undefined) tape.call('arch_prctl', [ARCH_REQ_XCOMP_PERM, TILE_DATA], 0);
    if (extras?.cpuid === 0) tape.call('arch_prctl', [ARCH_SET_CPUID, 0], 0);
  },
};
