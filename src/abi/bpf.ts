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
