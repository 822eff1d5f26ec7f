import assert from 'node:assert/strict';
import { openSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { KernelTypes } from './btf.js';
import { KernelMemory } from './kernel-memory.js';

test('types: members, members of members, of structures without a name, and bit fields', () => {
  const types = KernelTypes.ofKernel();
  assert.equal(types.offset('list_head', 'prev'), 8);
  assert.equal(types.size('list_head'), 16);
  assert.equal(
    types.offset('task_struct', 'tasks.prev'),
    types.offset('task_struct', 'tasks') + types.offset('list_head', 'prev'),
  );
  const { byte, bit } = types.flag('io_ring_ctx', 'restricted');
  assert.ok(byte < types.size('io_ring_ctx') && bit < 8);
  assert.throws(() => types.offset('task_struct', 'no_such_member'), /has no no_such_member/);
  assert.throws(() => types.size('no_such_struct'), /describes no struct no_such_struct/);
});

test('what is no BTF is refused', () => {
  assert.throws(() => new KernelTypes(Buffer.alloc(100)), /is no BTF/);
  assert.throws(() => new KernelTypes(Buffer.alloc(3)), /is no BTF/);
});

test('a task, its name, its files, a list, and addresses at which nothing is', () => {
  using memory = new KernelMemory();
  const task = memory.task(process.pid);
  const comm = memory.read(memory.member(task, 'task_struct', 'comm'), 16).toString('latin1');
  assert.equal(comm.replace(/\0.*/s, ''), readFileSync('/proc/self/comm', 'utf8').trim());
  const twice = [openSync('/dev/null', 'r'), openSync('/dev/null', 'r')] as const;
  const files = memory.files(task);
  assert.equal(memory.file(task, twice[0]), files[twice[0]]);
  assert.notEqual(files[twice[0]], files[twice[1]]);
  const whole = memory.read(task, memory.types.size('task_struct'));
  const at = memory.types.offset('task_struct', 'comm');
  assert.equal(whole.toString('latin1', at, at + comm.length), comm);
  // A list of one: the kernel's first word at the address of the name is no address.
  assert.throws(() => memory.listLength(8n), /cannot be followed/);
  assert.throws(() => memory.read(8n, 8), /nothing is to be read/);
  assert.throws(() => memory.task(0x7fff_fffe), /Invalid|No such|no task/);
});
