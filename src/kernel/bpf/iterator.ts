import * as B from '../../abi/bpf.js';
import { cString } from '../c-string.js';
import { OwnedFd } from '../fd.js';
import { scratch } from '../memory.js';
import { syscall } from '../syscall.js';
import type { KernelTypes } from './btf.js';
import type { Program } from './program.js';

/** Programs that are run once for each of some tasks, and write what is to be read (Documentation/bpf/bpf_iterators.rst). */

/** Who may use the program; the kernel gives its memory only to those under a licence that the GPL is compatible with. */
const LICENSE = 'Dual BSD/GPL';

/**
 * The beginning of each: register 7 is the task, and 8 where to write, which is done by what is returned: so many bytes from
 * a place in the stack. Jumps to `end` for no task.
 */
export function beginIterator(program: Program, types: KernelTypes): (at: number, length: number) => void {
  program.load(7, 1, types.offset('bpf_iter__task', 'task'));
  // Once more at the end, for no task.
  program.jump('equal', 'end', 7, 0);
  program.load(8, 1, types.offset('bpf_iter__task', 'meta'));
  program.load(8, 8, types.offset('bpf_iter_meta', 'seq'));
  return (at, length) => {
    program.move(1, 8);
    program.move(2, 10);
    program.add(2, at);
    program.set(3, length);
    program.call(B.BPF_FUNC_seq_write);
  };
}

export function loadIterator(types: KernelTypes, { bytes: program }: Program): OwnedFd {
  const { bytes, view, address } = scratch;
  bytes.fill(0, 0, B.BPF_PROG_LOAD_SIZE);
  view.setUint32(0, B.BPF_PROG_TYPE_TRACING, true);
  view.setUint32(4, program.length / 8, true);
  view.setBigUint64(8, address + 256n, true);
  view.setBigUint64(16, address + 128n, true);
  view.setUint32(68, B.BPF_TRACE_ITER, true);
  view.setUint32(108, types.id('FUNC', 'bpf_iter_task'), true);
  bytes.set(cString(LICENSE), 128);
  bytes.set(program, 256);
  return new OwnedFd(syscall('bpf', [B.BPF_PROG_LOAD, address, B.BPF_PROG_LOAD_SIZE], 'a program to look'));
}

/** Run a program for one task, or (Linux 6.1) for all threads of a process, by their ids here; answers what it wrote. */
export function runIterator(program: number, whom: { tid: number } | { pid: number }): Buffer {
  const { bytes, view, address } = scratch;
  bytes.fill(0, 0, 64);
  view.setUint32(0, program, true);
  view.setUint32(8, B.BPF_TRACE_ITER, true);
  view.setBigUint64(16, address + 32n, true);
  view.setUint32(24, B.BPF_ITER_LINK_INFO_SIZE, true);
  if ('tid' in whom) view.setUint32(32, whom.tid, true);
  else view.setUint32(36, whom.pid, true);
  const name = 'tid' in whom ? `task ${whom.tid}` : `the threads of pid ${whom.pid}`;
  const link = [B.BPF_LINK_CREATE, address, B.BPF_LINK_CREATE_SIZE];
  using linked = new OwnedFd(syscall('bpf', link, `an iterator over ${name}`));
  bytes.fill(0, 0, B.BPF_ITER_CREATE_SIZE);
  view.setUint32(0, linked.fd, true);
  using iterator = new OwnedFd(syscall('bpf', [B.BPF_ITER_CREATE, address, B.BPF_ITER_CREATE_SIZE]));
  const parts: Buffer[] = [];
  for (;;) {
    const count = syscall('read', [iterator.fd, address, scratch.length], 'an iterator of BPF');
    if (count === 0) return Buffer.concat(parts);
    parts.push(Buffer.from(bytes.subarray(0, count)));
  }
}
