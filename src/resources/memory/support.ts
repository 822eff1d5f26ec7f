import type { MemoryKind } from '../contract.js';

/** What support.md says of memory, by what is behind a mapping. */
export const memoryKinds: readonly MemoryKind[] = [
  {
    name: 'private anonymous',
    support:
      'pages that are there, protection, advice, locks, guard regions, names, seals; pages that processes share since a fork stay shared; not with a protection key, a userfaultfd, or as a shadow stack',
  },
  {
    name: 'of files, private and shared',
    support:
      'range and offset, with the private changes; the file itself stays where it is (see regular files); not of devices',
  },
  { name: 'shared anonymous', support: 'contents, once for all who have it' },
  { name: 'memfd', support: 'contents, size, seals, mode and owner, huge pages; mapped, open, or both' },
  {
    name: 'System V segments',
    support:
      'contents, key and permissions, also of removed ones; of the IPC namespace of whoever saves them',
  },
  {
    name: 'address space',
    support:
      'bounds, brk, arguments and environment where they lie, auxiliary vector, executable, dumpable flag, THP switch',
  },
  {
    name: 'asynchronous I/O',
    support:
      'contexts by their ids, events that were not taken yet; operations on disks are waited for; not those that wait for pipes or sockets (IOCB_CMD_POLL)',
  },
  { name: 'vDSO', support: 'at its old address; another kernel’s is entered through the old one' },
  {
    name: 'refused',
    support: 'memfd_secret(2), uprobes, userfaultfd ranges, protection keys, device memory',
  },
];
