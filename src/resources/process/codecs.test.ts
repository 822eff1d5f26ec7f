import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { core_entrySchema, user_x86_fpregs_entrySchema } from '../../image/schema/index.js';
import { cpuid } from '../../kernel/ffi.js';
import { NativeMemory } from '../../kernel/memory.js';
import type { Refusal, Thread } from '../contract.js';
import { decodeExtras } from './extras-codec.js';
import { obstacles } from './obstacles.js';
import { decodeCriticalSection, isInside } from './rseq.js';
import { parseCpuList } from './scheduling.js';
import { wantsListener } from './seccomp.js';
import { pendingIn } from './signal-queue.js';
import { decodeFpregs, encodeFpregs, extraComponents, layoutOf } from './xstate.js';

/** An xsave area as this machine's kernel gives it: CPUID leaf 13 has the features and the size. */
function hostArea(): Uint8Array {
  using memory = new NativeMemory(16);
  cpuid(13, 0, memory.address);
  const features = BigInt(memory.view.getUint32(0, true)) | (BigInt(memory.view.getUint32(12, true)) << 32n);
  const area = new Uint8Array(memory.view.getUint32(8, true));
  new DataView(area.buffer).setBigUint64(464, features, true);
  return area;
}

test('every component of the extended state survives the image', () => {
  const host = hostArea();
  const view = new DataView(host.buffer);
  const { features, offsets } = layoutOf(host);
  const area = host.map((_, index) => (index * 7 + 1) & 0xff);
  const areaView = new DataView(area.buffer);
  area.fill(0, 416, 576);
  areaView.setBigUint64(464, features, true);
  areaView.setBigUint64(512, features, true);
  const extra = extraComponents(area);
  const back = decodeFpregs(encodeFpregs(area), extra, host, 'pid 1 (test)');
  for (const [feature, offset] of Object.entries(offsets))
    assert.deepEqual(
      Buffer.from(back.subarray(offset, offset + 8)),
      Buffer.from(area.subarray(offset, offset + 8)),
      feature,
    );
  assert.deepEqual(Buffer.from(back.subarray(0, 416)), Buffer.from(area.subarray(0, 416)));
  assert.equal(view.getBigUint64(464, true), features);
});

test('state that this processor lacks is refused by name', () => {
  const host = hostArea();
  const image = (xstateBv: bigint) =>
    create(user_x86_fpregs_entrySchema, { stSpace: [], xmmSpace: [], xsave: { xstateBv, opmaskReg: [1n] } });
  const without = host.slice();
  const view = new DataView(without.buffer);
  view.setBigUint64(464, view.getBigUint64(464, true) & ~0x20n, true);
  assert.throws(
    () => decodeFpregs(image(0x20n), new Map(), without, 'pid 7 (x)'),
    /pid 7 \(x\) uses AVX-512 opmask/,
  );
  assert.throws(() => decodeFpregs(image(1n << 62n), new Map(), without, 'pid 7 (x)'), /xsave component 62/);
  assert.throws(() => layoutOf(new Uint8Array(100)), /no xsave header/);
});

test('stasis-tasks.json', () => {
  const valid = {
    affinity: 'all',
    ioprio: 3,
    restart: -514,
    accounting: { utime: 1 },
    xstate: { 18: 'AQI=' },
    later: [],
  };
  const decoded = decodeExtras({ version: 1, tasks: { 12: valid } }).get(12);
  assert.deepEqual(decoded?.xstate?.get(18), new Uint8Array([1, 2]));
  assert.equal(decoded?.affinity, 'all');
  assert.equal(Object.hasOwn(decoded ?? {}, 'later'), false);
  const invalid: [unknown, RegExp][] = [
    [[], /version/],
    [{ version: 2, tasks: {} }, /version/],
    [{ version: 1, tasks: [] }, /version/],
    [{ version: 1, tasks: { x: {} } }, /task x/],
    [{ version: 1, tasks: { 1: 5 } }, /task 1/],
    [{ version: 1, tasks: { 1: { affinity: 'z' } } }, /affinity/],
    [{ version: 1, tasks: { 1: { timer_slack: '5' } } }, /timer_slack/],
    [{ version: 1, tasks: { 1: { scheduling: { flags: 0 } } } }, /scheduling/],
    [{ version: 1, tasks: { 1: { speculation: [1, 2, 3, 4] } } }, /speculation/],
    [{ version: 1, tasks: { 1: { xstate: { 18: 4 } } } }, /xstate 18/],
  ];
  for (const [content, message] of invalid) assert.throws(() => decodeExtras(content), message);
});

test('lists of CPUs', () => {
  assert.equal(parseCpuList('0-3,8\n'), 0x10fn);
  assert.equal(parseCpuList('0'), 1n);
  assert.throws(() => parseCpuList('none'));
});

test('critical sections', () => {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  [0x1000n, 0x10n, 0x2000n].forEach((value, index) => {
    view.setBigUint64(8 + index * 8, value, true);
  });
  const section = decodeCriticalSection(bytes);
  assert.deepEqual(
    [0xfffn, 0x1000n, 0x100fn, 0x1010n].map((ip) => isInside(section, ip)),
    [false, true, true, false],
  );
});

test('filters with a listener', () => {
  const ret = (value: number) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setUint16(0, 6, true);
    new DataView(bytes.buffer).setUint32(4, value, true);
    return bytes;
  };
  assert.equal(wantsListener(ret(0x7fc0_0000)), true);
  assert.equal(wantsListener(ret(0x7fff_0000)), false);
  assert.equal(wantsListener(ret(0x8000_0000)), false);
});

test('pending signals of an image', () => {
  const siginfo = (signal: number) => ({
    siginfo: Uint8Array.from({ length: 128 }, (_, i) => (i === 0 ? signal : 0)),
  });
  const leader = create(core_entrySchema, {
    mtype: 1,
    tc: {
      taskState: 1,
      exitCode: 0,
      personality: 0,
      flags: 0,
      blkSigset: 0n,
      comm: '',
      signalsS: { signals: [siginfo(23)] },
    },
  });
  const thread = create(core_entrySchema, {
    mtype: 1,
    threadCore: { futexRla: 0n, futexRlaLen: 0, signalsP: { signals: [siginfo(1), siginfo(64)] } },
  });
  assert.equal(pendingIn(thread, leader), (1n << 22n) | 1n | (1n << 63n));
});

test('obstacles name the task and what would help', () => {
  const refusals: Refusal[] = [];
  const thread = {
    isLeader: false,
    insideTid: 5,
    process: { insidePid: 4, stat: { comm: 'x' } },
    status: { name: 'x', tracerPid: 99, raw: new Map([['x86_Thread_features', 'shstk wrss']]) },
  } as unknown as Thread;
  obstacles.check?.(thread, (refusal) => refusals.push(refusal), undefined as never);
  assert.deepEqual(
    refusals.map(({ object }) => object),
    ['tracer pid 99', 'shadow stack'],
  );
  assert.ok(refusals.every(({ task, help }) => task === 'pid 4 thread 5 (x)' && help !== undefined));
});
