import type { fileKinds } from '../../engine/registry.js';
import * as probe from './probes.js';

/**
 * What Stasis asks of a kernel. Names that `criu check --feature` knows are CRIU's. `always` is needed by every
 * dump and restore, `sometimes` only where a program has such state. `later` is what kernels may have and Stasis
 * does not use yet: whoever asks is told so, for the state it stands for would be refused.
 */
export interface HostFeature {
  readonly name: string;
  readonly what: string;
  readonly need: 'always' | 'sometimes' | 'later';
  readonly probe?: probe.Probe;
  /** Counts as `later` unless files of this kind are handled. */
  readonly fileKind?: string;
}

export const HOST_FEATURES: readonly HostFeature[] = [
  { name: 'capabilities', what: 'tracing and choosing pids', need: 'always', probe: probe.capabilities },
  { name: 'ptrace', what: 'stopping and reading tasks', need: 'always', probe: probe.ptraceAllowed },
  { name: 'kcmp', what: 'telling which tasks share an object', need: 'always', probe: probe.kcmp },
  {
    name: 'pidfd_getfd',
    what: "duplicates of other tasks' descriptors",
    need: 'always',
    probe: probe.pidfdGetfd,
  },
  { name: 'clone3_set_tid', what: 'tasks with chosen pids', need: 'always', probe: probe.cloneSetTid },
  { name: 'map_files', what: 'files behind mappings', need: 'always', probe: probe.mapFiles },
  { name: 'prctl_mm_map', what: "setting a process's memory bounds", need: 'always', probe: probe.mmMap },
  { name: 'memfd_exec', what: 'starting blank processes', need: 'always', probe: probe.executableMemfd },
  {
    name: 'mnt_id',
    what: 'the mount of an open file',
    need: 'always',
    probe: probe.fileSays('/proc/self/fdinfo/0', /^mnt_id:/m, 'needs Linux 3.15'),
  },
  {
    name: 'ns_pid',
    what: 'pids in their namespace',
    need: 'always',
    probe: probe.fileSays('/proc/self/status', /^NSpid:/m, 'needs Linux 4.1'),
  },

  { name: 'pagemap_scan', what: 'finding pages fast', need: 'sometimes', probe: probe.pagemapScan },
  { name: 'pagemap_scan_guard_pages', what: 'guard regions', need: 'sometimes', probe: probe.guardPages },
  { name: 'get_rseq_conf', what: 'restartable sequences', need: 'sometimes', probe: probe.since(5, 13) },
  { name: 'seccomp_suspend', what: 'tasks under seccomp', need: 'sometimes', probe: probe.since(4, 3) },
  {
    name: 'seccomp_filters',
    what: 'reading seccomp filters',
    need: 'sometimes',
    probe: probe.fileSays('/proc/self/status', /^Seccomp:/m, 'needs CONFIG_SECCOMP_FILTER'),
  },
  {
    name: 'network_lock_nftables',
    what: 'making connections silent',
    need: 'sometimes',
    probe: probe.nftables,
  },
  // What CRIU needs it for is done by nftables.
  {
    name: 'has_ipt_legacy',
    what: 'the same, for --network-lock iptables',
    need: 'sometimes',
    probe: probe.nftables,
  },
  {
    name: 'tcp_half_closed',
    what: 'half-closed TCP connections',
    need: 'sometimes',
    probe: probe.since(4, 10),
  },
  { name: 'timer_cr_ids', what: 'POSIX timers with chosen ids', need: 'sometimes', probe: probe.timerIds },
  { name: 'memfd_hugetlb', what: 'memfds of huge pages', need: 'sometimes', probe: probe.hugetlbMemfd },
  {
    name: 'loginuid',
    what: 'login uids',
    need: 'sometimes',
    probe: probe.fileSays('/proc/self/loginuid', /^\d+/, 'needs CONFIG_AUDIT'),
  },
  {
    name: 'can_map_vdso',
    what: 'a vDSO at the address of the image',
    need: 'sometimes',
    probe: probe.since(4, 9),
  },
  {
    name: 'overlayfs_maps',
    what: 'files mapped from overlayfs',
    need: 'sometimes',
    probe: probe.since(6, 8),
  },
  { name: 'openat2', what: 'opening paths within a root', need: 'sometimes', probe: probe.since(5, 6) },
  { name: 'breakpoints', what: 'finding the end of a restore (Stasis needs none)', need: 'sometimes' },

  {
    name: 'timerfd',
    what: 'timer descriptors',
    need: 'sometimes',
    fileKind: 'timerfd',
    probe: probe.since(3, 17),
  },
  {
    name: 'kcmp_epoll',
    what: 'targets of epoll descriptors',
    need: 'sometimes',
    fileKind: 'epoll',
    probe: probe.since(4, 13),
  },
  { name: 'tun', what: 'tun and tap devices', need: 'sometimes', fileKind: 'tun' },
  { name: 'tun_ns', what: 'tun and tap devices in a network namespace', need: 'sometimes', fileKind: 'tun' },
  { name: 'autofs', what: 'autofs mounts', need: 'later' },
  { name: 'fdinfo_lock', what: 'file locks', need: 'later', probe: probe.since(4, 1) },
  { name: 'aio_remap', what: 'asynchronous I/O rings', need: 'sometimes', probe: probe.since(3, 19) },
  { name: 'compat_cr', what: '32-bit programs', need: 'later' },
  {
    name: 'mem_dirty_track',
    what: 'tracking changes of memory (pre-dump, incremental images)',
    need: 'later',
    probe: probe.pagemapScan,
  },
  { name: 'uffd', what: 'memory on demand', need: 'later', probe: probe.userfaultfd },
  { name: 'uffd-noncoop', what: 'memory on demand', need: 'later', probe: probe.userfaultfd },
  { name: 'userns', what: 'user namespaces', need: 'later' },
  { name: 'cgroupns', what: 'cgroup namespaces', need: 'later' },
  {
    name: 'timens',
    what: 'clocks that go on where they were, on a host that was booted later',
    need: 'sometimes',
    probe: probe.since(5, 11),
  },
  { name: 'external_net_ns', what: 'network namespaces from outside', need: 'sometimes' },
  { name: 'move_mount_set_group', what: 'mount namespaces', need: 'later' },
  { name: 'apparmor_stacking', what: 'stacked AppArmor profiles', need: 'later' },
  { name: 'sk_ns', what: 'sockets of other namespaces', need: 'later' },
  { name: 'sk_unix_file', what: 'files of Unix sockets', need: 'later' },
  { name: 'net_diag_raw', what: 'raw sockets', need: 'later' },
  { name: 'sockopt_buf_lock', what: 'locked socket buffer sizes', need: 'later' },
  { name: 'ipv6_freebind', what: 'IPv6 sockets bound to missing addresses', need: 'later' },
  { name: 'nsid', what: 'network namespace ids', need: 'later' },
  { name: 'link_nsid', what: 'peers of links in other namespaces', need: 'later' },
  { name: 'newifindex', what: 'network devices with chosen indexes', need: 'later' },
  { name: 'nftables', what: 'packet filters', need: 'later' },
  { name: 'pidfd_store', what: 'telling reused pids in pre-dumps', need: 'later' },
];

export interface FeatureState {
  readonly name: string;
  readonly what: string;
  /** `missing`: the kernel lacks it; `unused`: Stasis does not use it yet. */
  readonly state: 'ok' | 'missing' | 'unused';
  readonly required: boolean;
  /** Why it is not `ok`. */
  readonly reason?: string;
}

/** `kinds` are the registry's, handed in so that a look at one feature need not load it. */
export function probeFeature(feature: HostFeature, kinds: Pick<typeof fileKinds, 'some'>): FeatureState {
  const { name, what, need, fileKind } = feature;
  const base = { name, what, required: need === 'always' };
  const reason = feature.probe?.();
  if (reason !== undefined) return { ...base, state: 'missing', reason };
  const unused =
    need === 'later' || (fileKind !== undefined && !kinds.some((kind) => kind.name === fileKind));
  return unused
    ? { ...base, state: 'unused', reason: `Stasis does not handle ${what} yet` }
    : { ...base, state: 'ok' };
}
