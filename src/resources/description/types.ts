/** The `type` of fdinfo and file entries: CRIU's fd_types (images/fdinfo.proto). */
export const FD_TYPE = {
  reg: 1,
  pipe: 2,
  fifo: 3,
  isk: 4,
  usk: 5,
  efd: 6,
  epfd: 7,
  ify: 8,
  sgfd: 9,
  psk: 10,
  tty: 11,
  ffy: 12,
  nlsk: 13,
  nsf: 14,
  tunf: 15,
  ext: 16,
  tfd: 17,
  memfd: 18,
  bpf: 19,
  pidfd: 20,
} as const;

/** `remap_type` of remap-fpath.img. */
export const REMAP = { linked: 0, ghost: 1, procfs: 2 } as const;
