import { readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { errnoName } from '../../abi/errno.js';
import * as mman from '../../abi/mman.js';
import * as pagemap from '../../abi/pagemap.js';
import * as C from '../../abi/process.js';
import type { SyscallName } from '../../abi/syscalls.js';
import { OwnedFd } from '../../kernel/fd.js';
import type { Argument } from '../../kernel/ffi.js';
import { NativeMemory, scratchString } from '../../kernel/memory.js';
import { listTables, openNftables } from '../../kernel/netlink/nftables.js';
import { attempt } from '../../kernel/syscall.js';

/**
 * Questions to the running kernel. Each answers undefined when it has what is asked for, else what is wrong in
 * words. They change nothing; where a call would need a traced task, the version that brought it is compared.
 */
export type Probe = () => string | undefined;

function called(name: SyscallName, args: readonly Argument[], help: string): string | undefined {
  const result = attempt(name, args);
  return result >= 0 ? undefined : `${name}: ${errnoName(-result)} (${help})`;
}

/** A descriptor made by a call, for a moment. */
function withFd(
  name: SyscallName,
  args: readonly Argument[],
  help: string,
  use: (fd: number) => string | undefined = () => undefined,
): string | undefined {
  const result = attempt(name, args);
  if (result < 0) return `${name}: ${errnoName(-result)} (${help})`;
  using fd = new OwnedFd(result);
  return use(fd.fd);
}

export function fileSays(file: string, pattern: RegExp, help: string): Probe {
  return () => {
    try {
      return pattern.test(readFileSync(file, 'utf8'))
        ? undefined
        : `${file} lacks ${pattern.source} (${help})`;
    } catch (error) {
      return `${file}: ${(error as NodeJS.ErrnoException).code ?? error} (${help})`;
    }
  };
}

export function since(major: number, minor: number): Probe {
  return () => {
    const [haveMajor = 0, haveMinor = 0] = release()
      .split('.')
      .map((part) => Number.parseInt(part, 10));
    const newEnough = haveMajor > major || (haveMajor === major && haveMinor >= minor);
    return newEnough ? undefined : `needs Linux ${major}.${minor}, this is ${release()}`;
  };
}

const CHECKPOINT_RESTORE = 'needs CONFIG_CHECKPOINT_RESTORE';

export const kcmp: Probe = () =>
  called('kcmp', [process.pid, process.pid, C.KCMP_VM, 0, 0], 'needs CONFIG_KCMP, Linux 3.5');

export const pidfdGetfd: Probe = () =>
  withFd('pidfd_open', [process.pid, 0], 'needs Linux 5.3', (pidfd) =>
    withFd('pidfd_getfd', [pidfd, pidfd, 0], 'needs Linux 5.6'),
  );

/** More pid namespaces than there can be: a kernel that knows the fields says EINVAL, an older one E2BIG. */
export const cloneSetTid: Probe = () => {
  using args = new NativeMemory(C.CLONE_ARGS_SIZE_VER1);
  const SET_TID_SIZE_OFFSET = 72;
  args.view.setBigUint64(SET_TID_SIZE_OFFSET, 1000n, true);
  const result = attempt('clone3', [args.address, C.CLONE_ARGS_SIZE_VER1]);
  return errnoName(-result) === 'EINVAL'
    ? undefined
    : `clone3: ${errnoName(-result)} (set_tid needs Linux 5.5)`;
};

export const mapFiles: Probe = () => {
  try {
    return readdirSync('/proc/self/map_files').length > 0 ? undefined : `/proc/self/map_files is empty`;
  } catch (error) {
    return `/proc/self/map_files: ${(error as NodeJS.ErrnoException).code ?? error} (${CHECKPOINT_RESTORE})`;
  }
};

export const mmMap: Probe = () => {
  using size = new NativeMemory(8);
  return called('prctl', [C.PR_SET_MM, C.PR_SET_MM_MAP_SIZE, size.address, 0, 0], CHECKPOINT_RESTORE);
};

/** A stem is executed from a memfd. */
export const executableMemfd: Probe = () =>
  withFd(
    'memfd_create',
    [scratchString('stasis-probe'), mman.MFD_CLOEXEC | mman.MFD_EXEC],
    'executable memfds; see the sysctl vm.memfd_noexec',
  );

export const hugetlbMemfd: Probe = () =>
  withFd(
    'memfd_create',
    [scratchString('stasis-probe'), mman.MFD_CLOEXEC | mman.MFD_HUGETLB],
    'needs CONFIG_HUGETLBFS, Linux 4.16',
  );

/** CAP_CHECKPOINT_RESTORE and CAP_SYS_PTRACE, or CAP_SYS_ADMIN, which has the first. */
export const capabilities: Probe = () => {
  const hex = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const effective = BigInt(`0x${hex}`);
  const has = (capability: number): boolean => (effective & (1n << BigInt(capability))) !== 0n;
  const missing: string[] = [];
  if (!has(C.CAP_SYS_PTRACE)) missing.push('CAP_SYS_PTRACE');
  if (!has(C.CAP_SYS_ADMIN) && !has(C.CAP_CHECKPOINT_RESTORE)) missing.push('CAP_CHECKPOINT_RESTORE');
  return missing.length === 0 ? undefined : `this process lacks ${missing.join(' and ')}; run as root`;
};

export const ptraceAllowed: Probe = () => {
  try {
    const scope = readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'utf8').trim();
    return scope === '3' ? 'kernel.yama.ptrace_scope is 3: nobody may trace, until the next boot' : undefined;
  } catch {
    return undefined;
  }
};

export const pagemapScan: Probe = () =>
  withFd('openat', [-100, scratchString('/proc/self/pagemap'), 0], 'procfs', (fd) => {
    using arg = new NativeMemory(pagemap.PM_SCAN_ARG_SIZE);
    arg.view.setBigUint64(pagemap.PM_SCAN_ARG_OFFSET_SIZE, BigInt(pagemap.PM_SCAN_ARG_SIZE), true);
    return called('ioctl', [fd, pagemap.PAGEMAP_SCAN, arg.address], 'needs Linux 6.7');
  });

/** Guard regions exist since 6.13, and PAGEMAP_SCAN shows them since 6.15. */
export const guardPages: Probe = () => {
  using page = new NativeMemory(1);
  const length = BigInt(page.length);
  const missing = called('madvise', [page.address, length, mman.MADV_GUARD_INSTALL], 'needs Linux 6.13');
  if (missing !== undefined) return missing;
  try {
    return withFd('openat', [-100, scratchString('/proc/self/pagemap'), 0], 'procfs', (fd) => {
      using arg = new NativeMemory(pagemap.PM_SCAN_ARG_SIZE);
      const set = (offset: number, value: bigint): void => arg.view.setBigUint64(offset, value, true);
      set(pagemap.PM_SCAN_ARG_OFFSET_SIZE, BigInt(pagemap.PM_SCAN_ARG_SIZE));
      set(pagemap.PM_SCAN_ARG_OFFSET_START, page.address);
      set(pagemap.PM_SCAN_ARG_OFFSET_END, page.address + length);
      set(pagemap.PM_SCAN_ARG_OFFSET_CATEGORY_MASK, pagemap.PAGE_IS_GUARD);
      return called('ioctl', [fd, pagemap.PAGEMAP_SCAN, arg.address], 'needs Linux 6.15');
    });
  } finally {
    attempt('madvise', [page.address, length, mman.MADV_GUARD_REMOVE]);
  }
};

export const timerIds: Probe = () => {
  const PR_TIMER_CREATE_RESTORE_IDS_GET = 2;
  const result = attempt('prctl', [C.PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0]);
  return result >= 0
    ? undefined
    : `prctl: ${errnoName(-result)} (needs Linux 6.16; before, timers are made and deleted until the id is right)`;
};

export const userfaultfd: Probe = () =>
  withFd('userfaultfd', [1 | 0x8_0000], 'needs CONFIG_USERFAULTFD, Linux 5.11');

/** Tables of packet filters can be listed, and so be made. */
export const nftables: Probe = () => {
  try {
    using netlink = openNftables();
    listTables(netlink);
    return undefined;
  } catch (error) {
    return `${error instanceof Error ? error.message : error} (needs CONFIG_NF_TABLES_INET, CAP_NET_ADMIN)`;
  }
};
