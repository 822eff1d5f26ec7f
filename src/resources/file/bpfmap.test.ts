import assert from 'node:assert/strict';
import test from 'node:test';
import * as B from '../../abi/bpf.js';
import { fileKinds } from '../../engine/registry.js';
import { scratch } from '../../kernel/memory.js';
import { readFdinfo } from '../../kernel/procfs/fdinfo.js';
import { attempt } from '../../kernel/syscall.js';
import { inNamespace, options, Program, QUIET, roundTrip } from '../../testing/descriptors.js';
import type { Refusal } from '../contract.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { descriptorsOf } from '../description/open.js';
import { checkFiles } from './check.js';

const BPF = `import ctypes,struct
libc=ctypes.CDLL(None,use_errno=True)
def bpf(cmd,attr):
  room=ctypes.create_string_buffer(attr.ljust(72,b'\\0'),72)
  r=libc.syscall(321,cmd,room,72)
  assert r>=0, os.strerror(ctypes.get_errno())
  return r
def new(t,k,v,n,flags=0,name=b''): return bpf(0,struct.pack('5I2i16s',t,k,v,n,flags,0,0,name))
def put(fd,key,value):
  k,v=ctypes.create_string_buffer(key,len(key)),ctypes.create_string_buffer(value,len(value))
  bpf(2,struct.pack('I4xQQQ',fd,ctypes.addressof(k),ctypes.addressof(v),0))
`;

if (inNamespace(import.meta.url)) {
  test('BPF maps: hash and array, contents, name, frozen, two descriptors of one', async () => {
    await roundTrip(
      `${BPF}h=new(1,4,12,3000,1,b'table')
for n in range(2500): put(h,struct.pack('I',n),b'value %06d'%n)
a=new(2,4,8,5); put(a,struct.pack('I',3),b'abcdefgh'); bpf(22,struct.pack('I',a))
e=new(1,8,8,4); os.dup(h)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const shape = (of: number, fd: number) => {
          const { fields } = readFdinfo(of, fd);
          return ['map_type', 'key_size', 'value_size', 'max_entries', 'map_flags', 'frozen'].map((key) =>
            fields.get(key),
          );
        };
        for (const fd of [3, 4, 5]) assert.deepEqual(shape(tid, fd), shape(pid, fd));
        assert.equal(lookup(tid, 3, 2499, 12), 'value 002499');
        assert.equal(lookup(tid, 3, 0, 12), 'value 000000');
        assert.equal(lookup(tid, 4, 3, 8), 'abcdefgh');
        assert.equal(readFdinfo(tid, 6).fields.get('map_id'), readFdinfo(tid, 3).fields.get('map_id'));
      },
    );
  });

  test('what no kind recognises is refused with its name, a reason and what would help', async () => {
    using program = await Program.start(
      `${QUIET}${BPF}call=lambda *a: libc.syscall(*a)
new(6,4,8,4)
params=ctypes.create_string_buffer(struct.pack('III',0,0,2),120); call(425,8,params)
call(323,1)
call(298,struct.pack('II',1,128)+b'\\0'*120,0,-1,-1,0)
call(430,b'tmpfs',0)
call(444,ctypes.create_string_buffer(struct.pack('Q',1),8),8,0)
os.open('/dev/fuse',os.O_RDWR) if os.path.exists('/dev/fuse') else os.open('/dev/hwrng',os.O_RDONLY)
os.open('/dev/loop-control',os.O_RDWR) if os.path.exists('/dev/loop-control') else None`,
    );
    const found: Refusal[] = [];
    checkFiles(program.processes, fileKinds, (refusal) => found.push(refusal), options);
    const [root] = program.processes;
    const open = root === undefined ? [] : descriptorsOf(root).filter(({ fd }) => fd > 2);
    assert.equal(found.length, open.length);
    for (const { task, object, reason, help } of found) {
      assert.match(task, /^pid \d+ \(python3\)$/);
      assert.match(object, /^descriptor \d+ \(.+\)$/);
      assert.doesNotMatch(reason, /yet/);
      assert.ok((help ?? '').length > 10, object);
    }
    const reasons = found.map(({ reason }) => reason).join('\n');
    for (const word of ['BPF map of type 6', 'IORING_SETUP_SQPOLL', 'userfaultfd', 'perf event', 'fsopen'])
      assert.match(reasons, new RegExp(word));
  });
}

function lookup(pid: number, fd: number, key: number, length: number): string {
  using process = openPidfd(pid);
  using taken = takeDescriptor(process.fd, fd, 'test');
  const { bytes, view, address } = scratch;
  bytes.fill(0, 0, 256);
  view.setInt32(0, taken.fd, true);
  view.setBigUint64(8, address + 100n, true);
  view.setBigUint64(16, address + 128n, true);
  view.setUint32(100, key, true);
  const BPF_MAP_LOOKUP_ELEM = 1;
  assert.equal(attempt('bpf', [BPF_MAP_LOOKUP_ELEM, address, B.BPF_MAP_CREATE_SIZE]), 0);
  return Buffer.from(bytes.subarray(128, 128 + length)).toString();
}
