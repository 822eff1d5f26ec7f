import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { CAP_CHOWN, CAP_NET_RAW, CAP_SETUID } from '../../abi/capability.js';
import { SECBIT_KEEP_CAPS, SECBIT_NO_CAP_AMBIENT_RAISE } from '../../abi/prctl.js';
import * as P from '../../abi/process.js';
import { PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP } from '../../abi/ptrace.js';
import { SECCOMP_MODE_FILTER } from '../../abi/seccomp.js';
import * as S from '../../abi/signal.js';
import { createMessage } from '../../image/codec.js';
import { ImageReader } from '../../image/reader.js';
import {
  type core_entry,
  core_entrySchema,
  type task_core_entrySchema,
  type thread_core_entrySchema,
} from '../../image/schema/index.js';
import { ImageWriter } from '../../image/writer.js';
import * as ptrace from '../../kernel/ptrace.js';
import type { Actor } from '../../tape/play.js';
import { startStem } from '../../tape/stem.js';
import { extrasFor } from './extras.js';
import type { TaskExtras } from './extras-codec.js';
import { ACTION_SIGNALS } from './signal-actions.js';
import { isInside, lookAtProcess, recordFrozen, restoreStates, runInside, TaskImage } from './testing.js';

const BASE = 0x6000_0000n;
const SIZE = 0x100000n;
/** Memory of the stem that no tape uses. */
const FREE = BASE + SIZE - 0x8000n;
const STOP_SIGNAL = 23;
const EVERY = 0xffff_ffff_ffff_ffffn;

function newStem(): Actor {
  const actor = startStem({ workspace: { address: BASE, size: SIZE }, sliceSize: 0x80000, name: 'test' });
  ptrace.setOptions(actor.tid, PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP);
  ptrace.setSignalMask(actor.tid, EVERY & ~S.signalBit(STOP_SIGNAL));
  return actor;
}

type Task = Extract<MessageInitShape<typeof task_core_entrySchema>, { $typeName?: never }>;
type OfThread = Extract<MessageInitShape<typeof thread_core_entrySchema>, { $typeName?: never }>;

interface Wanted {
  readonly tc?: Task;
  readonly threadCore?: OfThread;
  readonly filters?: readonly { filter: Uint8Array; prev?: number; flags?: number }[];
  readonly extras?: TaskExtras;
}

/** Restore the wanted state on a stem and read back what it then has. */
function roundTrip(wanted: Wanted): { core: core_entry; extras: TaskExtras; image: TaskImage } {
  const actor = newStem();
  const directory = mkdtempSync(path.join(tmpdir(), 'stasis-wanted-'));
  try {
    using writer = ImageWriter.create(directory);
    const pid = actor.tid;
    const core = coreOf(wanted);
    writer.write('core', pid, [core]);
    writer.write('pstree', null, [
      createMessage('pstree', { pid, ppid: 0, pgid: pid, sid: pid, threads: [pid] }),
    ]);
    writer.write('seccomp', null, [
      createMessage('seccomp', { seccompFilters: [...(wanted.filters ?? [])] }),
    ]);
    const tasks = { version: 1, tasks: { [pid]: wanted.extras ?? {} } };
    writer.writeBytes('stasis-tasks.json', [Buffer.from(JSON.stringify(tasks))]);
    writer.commit(createMessage('inventory', { imgVersion: 2 }), { durable: false });
    using reader = ImageReader.open(directory);
    restoreStates({ pid, tid: pid, isLeader: true, core, leaderCore: core, reader, name: 'test' }, actor);
    const found = lookAtProcess(pid);
    recordFrozen(found.leader);
    const image = new TaskImage([{ process: found, actors: new Map([[found.leader, actor]]) }]);
    return { core: image.task(pid).core, extras: extrasFor(image.reader, pid) ?? {}, image };
  } finally {
    rmSync(directory, { recursive: true });
    process.kill(actor.tid, 'SIGKILL');
  }
}

const ROOT_CAPS = [0xfeff_ffff, 0x1ff];
const NO_CAPS = [0, 0];
const ROOT = {
  uid: 0, gid: 0, euid: 0, egid: 0, suid: 0, sgid: 0, fsuid: 0, fsgid: 0, secbits: 0, groups: [],
  capInh: NO_CAPS, capPrm: ROOT_CAPS, capEff: ROOT_CAPS, capBnd: ROOT_CAPS, capAmb: NO_CAPS,
}; // biome-ignore format: a record a line

function coreOf({ tc, threadCore }: Wanted): core_entry {
  return create(core_entrySchema, {
    mtype: 1,
    threadInfo: createMessage('core', { mtype: 1 }).threadInfo,
    tc: { taskState: 1, exitCode: 0, personality: 0, flags: 0, blkSigset: 0n, comm: 'test', ...tc },
    threadCore: { futexRla: 0n, futexRlaLen: 0, comm: 'test', creds: ROOT, ...threadCore },
  });
}

/** What was wanted of a message, as the image read back has it. */
function assertHolds(actual: unknown, wanted: unknown, where: string): void {
  if (Array.isArray(wanted)) {
    assert.ok(Array.isArray(actual), where);
    assert.equal(actual.length, wanted.length, `${where}: length`);
    for (const [index, item] of wanted.entries()) assertHolds(actual[index], item, `${where}[${index}]`);
  } else if (wanted instanceof Uint8Array)
    assert.deepEqual(Buffer.from(actual as Uint8Array), Buffer.from(wanted), where);
  else if (typeof wanted === 'object' && wanted !== null) {
    const record = actual as Record<string, unknown>;
    for (const [key, value] of Object.entries(wanted)) assertHolds(record[key], value, `${where}.${key}`);
  } else assert.equal(actual, wanted, where);
}

function holds(wanted: Wanted): { core: core_entry; extras: TaskExtras; image: TaskImage } {
  const result = roundTrip(wanted);
  if (wanted.tc !== undefined) assertHolds(result.core.tc, wanted.tc, 'tc');
  if (wanted.threadCore !== undefined) assertHolds(result.core.threadCore, wanted.threadCore, 'thread_core');
  if (wanted.extras !== undefined) assertHolds(result.extras, wanted.extras, 'extras');
  result.image[Symbol.dispose]();
  return result;
}

function siginfo(signal: number, code: number, value: bigint): { siginfo: Uint8Array } {
  const bytes = new Uint8Array(S.SIGINFO_SIZE);
  const view = new DataView(bytes.buffer);
  view.setInt32(S.SIGINFO_OFFSET_SIGNO, signal, true);
  view.setInt32(S.SIGINFO_OFFSET_CODE, code, true);
  view.setInt32(S.SIGINFO_OFFSET_PID, 4711, true);
  view.setUint32(S.SIGINFO_OFFSET_UID, 12, true);
  view.setBigUint64(S.SIGINFO_OFFSET_VALUE, value, true);
  return { siginfo: bytes };
}

const itimer = (vsec: bigint, isec = 0n) => ({ isec, iusec: 0n, vsec, vusec: 0n });
const OFF = itimer(0n);

/** ld [nr]; jeq 500, errno EPERM; allow */
const FILTER = Uint8Array.from([
  0x20, 0, 0, 0, 0, 0, 0, 0, 0x15, 0, 0, 1, 0xf4, 1, 0, 0, 0x06, 0, 0, 0, 1, 0, 5, 0, 0x06, 0, 0, 0, 0, 0,
  0xff, 0x7f,
]);
const ALLOW = Uint8Array.from([0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]);

if (!isInside()) {
  test('task states on stems, in a pid namespace', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
} else {
  test('names, personality, subreaper, OOM score, core dump filter', () => {
    holds({
      tc: { personality: P.ADDR_NO_RANDOMIZE, comm: 'a name', childSubreaper: true, oomScoreAdj: 321 },
      threadCore: { comm: 'a name', pdeathSig: S.SIGUSR2 },
      extras: { coredump_filter: 0x7b },
    });
  });

  test('robust list, rseq, membarrier', () => {
    holds({
      tc: {
        membarrierRegistrationMask:
          P.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | P.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
      },
      threadCore: {
        futexRla: FREE,
        futexRlaLen: 24,
        rseqEntry: { rseqAbiPointer: FREE + 64n, rseqAbiSize: 32, signature: 0x53053053 },
      },
    });
  });

  test('signal actions, alternate stack', () => {
    const sigactions = ACTION_SIGNALS.map((signal) => ({
      sigaction: signal % 3 === 0 ? BigInt(signal % 2) : BigInt(0x1000 + signal),
      flags: BigInt(S.SA_RESTORER | (signal % 2 === 0 ? S.SA_RESTART : S.SA_SIGINFO)),
      restorer: BigInt(0x2000 + signal),
      mask: 1n << BigInt(20 + (signal % 40)),
      compatSigaction: false,
    }));
    holds({
      tc: { sigactions },
      threadCore: { sas: { ssSp: FREE, ssSize: 0x4000n, ssFlags: S.SS_AUTODISARM } },
    });
  });

  test('pending signals keep their order and siginfo; those that are ignored stay pending too', () => {
    const shared = [
      siginfo(S.SIGCHLD, S.CLD_EXITED, 3n),
      ...[1n, 2n, 3n].map((value) => siginfo(40, S.SI_QUEUE, value)),
      siginfo(S.SIGALRM, S.SI_KERNEL, 0n),
    ];
    const own = [
      siginfo(S.SIGUSR1, S.SI_TKILL, 0n),
      ...[9n, 8n].map((value) => siginfo(50, S.SI_TIMER, value)),
    ];
    holds({ tc: { signalsS: { signals: shared } }, threadCore: { signalsP: { signals: own } } });
  });

  test('interval timers', () => {
    const { core } = roundTrip({ tc: { timers: { real: itimer(1000n, 7n), virt: itimer(50n), prof: OFF } } });
    const timers = core.tc?.timers;
    assert.equal(timers?.real?.isec, 7n);
    assert.ok(timers?.real?.vsec === 999n || timers?.real?.vsec === 1000n);
    assert.ok(timers?.virt?.vsec === 49n || timers?.virt?.vsec === 50n);
    assert.equal(timers?.prof?.vsec, 0n);
  });

  test('POSIX timers get their ids back', () => {
    const clocks = [P.CLOCK_MONOTONIC, P.CLOCK_REALTIME, -6 >>> 0, P.CLOCK_BOOTTIME];
    const posix = [2, 9, 700, 5].map((itId, index) => ({
      itId,
      clockId: clocks[index] ?? 0,
      siSigno: 40 + index,
      itSigevNotify: index === 3 ? S.SIGEV_NONE : S.SIGEV_SIGNAL,
      sivalPtr: 0xabcd_0000_0000n + BigInt(index),
      overrun: 0,
      isec: BigInt(index),
      insec: 5n,
      vsec: index === 1 ? 0n : 500n,
      vnsec: 0n,
    }));
    const { core } = roundTrip({ tc: { timers: { real: OFF, virt: OFF, prof: OFF, posix } } });
    const restored = core.tc?.timers?.posix ?? [];
    assert.deepEqual(
      restored.map(({ itId }) => itId).sort((a, b) => a - b),
      [2, 5, 9, 700],
    );
    for (const wanted of posix) {
      const found = restored.find(({ itId }) => itId === wanted.itId);
      const { vsec, vnsec, isec, insec, ...same } = wanted;
      assertHolds(found, same, `timer ${wanted.itId}`);
      assert.ok(vsec === 0n ? found?.vsec === 0n : (found?.vsec ?? 0n) >= 498n);
      if (vsec !== 0n) assert.deepEqual([found?.isec, found?.insec], [isec, insec]);
      assert.equal(vnsec, 0n);
    }
  });

  test('scheduling, affinity, I/O priority, timer slack', () => {
    holds({
      threadCore: { schedNice: 7, schedPolicy: P.SCHED_BATCH },
      extras: { affinity: '1', ioprio: 0x4003, timer_slack: 1234 },
    });
    holds({
      threadCore: { schedNice: -3, schedPolicy: P.SCHED_RR, schedPrio: 4 },
      extras: { affinity: 'all' },
    });
    holds({ threadCore: { schedNice: 0, schedPolicy: P.SCHED_IDLE } });
  });

  test('resource limits', () => {
    const { core } = roundTrip({});
    const inherited = core.tc?.rlimits?.rlimits ?? [];
    assert.equal(inherited.length, 16);
    const rlimits = inherited.map(({ cur, max }, index) =>
      index === P.RLIMIT_NOFILE
        ? { cur: 77n, max: 100n }
        : index === P.RLIMIT_SIGPENDING
          ? { cur: 0n, max: 0n }
          : { cur, max },
    );
    const signals = [siginfo(40, S.SI_QUEUE, 1n), siginfo(40, S.SI_QUEUE, 2n)];
    holds({ tc: { rlimits: { rlimits }, signalsS: { signals } } });
  });

  test('credentials of an ordinary user', () => {
    const ids = {
      uid: 1000,
      euid: 1001,
      suid: 1002,
      fsuid: 1003,
      gid: 2000,
      egid: 2001,
      sgid: 2002,
      fsgid: 2003,
    };
    const creds = { ...ROOT, ...ids, groups: [5, 7, 70000], capPrm: NO_CAPS, capEff: NO_CAPS, noNewPrivs: 1 };
    holds({ threadCore: { creds, pdeathSig: 10 } });
  });

  test('credentials with odd capabilities and securebits', () => {
    const bits = (...caps: number[]) => [caps.reduce((sum, cap) => sum | (1 << cap), 0) >>> 0, 0];
    const creds = {
      ...ROOT,
      uid: 1000, euid: 1000, suid: 1000, fsuid: 1000,
      capBnd: bits(CAP_CHOWN, CAP_SETUID),
      capPrm: bits(CAP_CHOWN, CAP_NET_RAW),
      capEff: bits(CAP_CHOWN),
      capInh: bits(CAP_NET_RAW, CAP_SETUID),
      capAmb: bits(CAP_NET_RAW),
      secbits: SECBIT_KEEP_CAPS | SECBIT_NO_CAP_AMBIENT_RAISE,
    }; // biome-ignore format: a record a line
    holds({ threadCore: { creds } });
  });

  test('a bounding set that this host cannot give is refused by name', () => {
    const creds = { ...ROOT, capBnd: [0xffff_ffff, 0x1ff] };
    assert.throws(() => roundTrip({ threadCore: { creds } }), /CAPBSET_READ.*= 0/);
  });

  test('seccomp filters', () => {
    const filters = [{ filter: ALLOW }, { filter: FILTER, prev: 0 }];
    const result = roundTrip({
      threadCore: {
        seccompMode: SECCOMP_MODE_FILTER,
        seccompFilter: 1,
        creds: { ...ROOT, uid: 1000, euid: 1000, capPrm: NO_CAPS, capEff: NO_CAPS },
      },
      filters,
    });
    assert.equal(result.core.threadCore?.seccompMode, SECCOMP_MODE_FILTER);
    const [first, second] = result.image.reader.readOne('seccomp').seccompFilters;
    assert.deepEqual(Buffer.from(first?.filter ?? []), Buffer.from(ALLOW));
    assert.deepEqual(Buffer.from(second?.filter ?? []), Buffer.from(FILTER));
    assert.equal(second?.prev, 0);
    assert.equal(result.core.threadCore?.seccompFilter, 1);
    result.image[Symbol.dispose]();
  });

  test('strict seccomp', () => {
    holds({ threadCore: { seccompMode: 1 } });
  });
}
