import { S_IFBLK, S_IFCHR, S_IFMT, S_IFSOCK } from '../../abi/fcntl.js';
import type { Descriptor, Refusal } from '../contract.js';
import { deviceNumbers } from '../description/calls.js';
import { refusalOf } from '../description/described.js';

/**
 * Open files that no kind recognises: what they are, why they cannot be saved, and what would help. Anonymous inodes are
 * told by the name that the kernel gives them (anon_inode_getfile), devices by their numbers (admin-guide/devices.txt).
 */
interface Known {
  readonly link: RegExp;
  readonly reason: string;
  readonly help: string;
}

const CLOSE = 'let the program close it';

const ANONYMOUS: readonly Known[] = [
  {
    link: /^anon_inode:\[userfaultfd\]$/,
    reason: 'it is a userfaultfd: which ranges it serves, and faults that wait, can be seen by nobody',
    help: 'let the fault handler unregister its ranges and close it',
  },
  {
    link: /^anon_inode:\[perf_event\]$/,
    reason: 'it is a perf event, whose counter nobody can set',
    help: 'stop the profiler',
  },
  {
    link: /^anon_inode:kvm-|^\/dev\/kvm$/,
    reason: 'it is of a virtual machine (KVM), which only its own monitor can save',
    help: "save the machine by its monitor's snapshot, and end it",
  },
  {
    link: /^anon_inode:\[vfio|^\/dev\/vfio\//,
    reason: 'it is a device that was handed to the program (VFIO)',
    help: 'detach the device',
  },
  {
    link: /^anon_inode:bpf-prog$/,
    reason: 'it is a BPF program: its source instructions and verifier state cannot be loaded back',
    help: 'pin it (bpftool prog pin) and let the program close it',
  },
  {
    link: /^anon_inode:(bpf_link|bpf-link|bpf_iter|btf|bpf-btf|bpf-token)/,
    reason: 'it is a BPF object that no image has room for',
    help: 'pin it (bpftool) and let the program close it',
  },
  {
    link: /^anon_inode:seccomp notify$/,
    reason: 'it listens for system calls of other tasks (seccomp), and those that wait cannot be put back',
    help: 'let the supervisor close it',
  },
  {
    link: /^anon_inode:\[?landlock-ruleset\]?$/,
    reason: 'it is a Landlock ruleset, whose rules nobody can read',
    help: 'let the program close it once it has restricted itself',
  },
  {
    link: /^anon_inode:\[(fscontext|mount)\]$/,
    reason: 'it is a mount that is just being configured (fsopen)',
    help: 'let the program finish its mount',
  },
  {
    link: /^\/dev\/fuse$/,
    reason: 'it is served by the program as a file system (FUSE)',
    help: 'unmount the file system',
  },
  {
    link: /^\/dev\/net\/tun$/,
    reason: 'it is a tun or tap device, which belongs to a network namespace',
    help: 'save the tree with its network namespace, or let the program close it',
  },
  {
    link: /^\/(dmabuf:|sync_file)|^anon_inode:(sync_file|\[?dma)/,
    reason: 'it is memory of a device',
    help: 'let the program give up the device',
  },
  {
    link: /^\/secretmem/,
    reason: 'it is secret memory (memfd_secret), which nobody else can read',
    help: CLOSE,
  },
];

/** Why a descriptor that nobody recognises cannot be saved. */
export function unknownFile(descriptor: Descriptor): Refusal {
  const { link, stat } = descriptor.info;
  const known = ANONYMOUS.find((each) => each.link.test(link));
  if (known !== undefined) return refusalOf(descriptor, known.reason, known.help);
  const anonymous = /^anon_inode:\[?([^\]]*)\]?$/.exec(link)?.[1];
  if (anonymous !== undefined)
    return refusalOf(descriptor, `it is an object of kind "${anonymous}", which cannot be saved`, CLOSE);
  const type = Number(stat.mode) & S_IFMT;
  if (type === S_IFCHR || type === S_IFBLK) {
    const { major, minor } = deviceNumbers(stat.rdev);
    const what = type === S_IFCHR ? 'character' : 'block';
    return refusalOf(
      descriptor,
      `it is ${what} device ${major}:${minor}, whose driver's state cannot be saved`,
      'let the program close it while it is saved',
    );
  }
  if (type === S_IFSOCK) return refusalOf(descriptor, 'sockets of this kind cannot be saved yet', CLOSE);
  return refusalOf(descriptor, 'files of this kind cannot be saved yet', CLOSE);
}
