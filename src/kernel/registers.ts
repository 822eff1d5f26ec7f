/**
 * The general registers of a task: struct user_regs_struct of x86-64 (arch/x86/include/asm/user_64.h),
 * 27 words, as PTRACE_GETREGSET(NT_PRSTATUS) gives them.
 */
export const REGISTER_NAMES = [
  'r15', 'r14', 'r13', 'r12', 'bp', 'bx', 'r11', 'r10', 'r9', 'r8', 'ax', 'cx', 'dx', 'si', 'di', 'orig_ax',
  'ip', 'cs', 'flags', 'sp', 'ss', 'fs_base', 'gs_base', 'ds', 'es', 'fs', 'gs',
] as const; // biome-ignore format: as in the header

export type RegisterName = (typeof REGISTER_NAMES)[number];
export type Registers = Record<RegisterName, bigint>;

export const REGISTERS_SIZE = REGISTER_NAMES.length * 8;
/** orig_ax of a task that is in no system call. */
export const NO_SYSCALL = 0xffff_ffff_ffff_ffffn;

/** Where each register lies in the struct. */
const OFFSETS = Object.fromEntries(REGISTER_NAMES.map((name, index) => [name, index * 8])) as Record<
  RegisterName,
  number
>;

export function decodeRegisters(view: DataView, offset = 0): Registers {
  const registers = {} as Registers;
  for (const name of REGISTER_NAMES) registers[name] = view.getBigUint64(offset + OFFSETS[name], true);
  return registers;
}

export function encodeRegisters(registers: Partial<Registers>, view: DataView, offset = 0): void {
  for (const name in registers) {
    const at = offset + OFFSETS[name as RegisterName];
    view.setBigUint64(at, BigInt.asUintN(64, registers[name as RegisterName] ?? 0n), true);
  }
}
