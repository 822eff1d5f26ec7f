/** bpf(2): include/uapi/linux/bpf.h. */

// Commands.
export const BPF_MAP_CREATE = 0;
export const BPF_OBJ_GET_INFO_BY_FD = 15;
export const BPF_MAP_FREEZE = 22;
export const BPF_MAP_LOOKUP_BATCH = 24;
export const BPF_MAP_UPDATE_BATCH = 26;

// Types of maps.
export const BPF_MAP_TYPE_HASH = 1;
export const BPF_MAP_TYPE_ARRAY = 2;

// Sizes of union bpf_attr as far as each command uses it, and of struct bpf_map_info.
export const BPF_MAP_CREATE_SIZE = 72;
export const BPF_INFO_SIZE = 16;
export const BPF_BATCH_SIZE = 56;
export const BPF_MAP_INFO_SIZE = 88;

// Commands about programs, and iterators over what the kernel has (Linux 5.8).
export const BPF_PROG_LOAD = 5;
export const BPF_LINK_CREATE = 28;
export const BPF_ITER_CREATE = 33;

export const BPF_PROG_TYPE_TRACING = 26;
export const BPF_TRACE_ITER = 28;
export const BPF_F_MMAPABLE = 1 << 10;

// Functions of the kernel that programs call.
export const BPF_FUNC_probe_read_kernel = 113;
export const BPF_FUNC_seq_write = 127;

// Instructions: the code byte, as linux/bpf.h and linux/bpf_common.h put it together.
export const BPF_MOV64_REG = 0xbf;
export const BPF_MOV64_IMM = 0xb7;
export const BPF_ADD64_IMM = 0x07;
export const BPF_LDX_DW = 0x79;
export const BPF_STX_DW = 0x7b;
export const BPF_LD_IMM64 = 0x18;
export const BPF_JA = 0x05;
export const BPF_JEQ_IMM = 0x15;
export const BPF_JNE_IMM = 0x55;
/** May go on a few million times more (Linux 6.9); the verifier takes a loop for finite by it. */
export const BPF_MAY_GOTO = 0xe5;
export const BPF_CALL = 0x85;
export const BPF_EXIT = 0x95;
/** Source register of BPF_LD_IMM64: the address of a map's first value. */
export const BPF_PSEUDO_MAP_VALUE = 2;

export const BPF_PROG_LOAD_SIZE = 120;
export const BPF_LINK_CREATE_SIZE = 32;
export const BPF_ITER_CREATE_SIZE = 8;
export const BPF_ITER_LINK_INFO_SIZE = 16;
