import { closeSync, openSync, readSync } from 'node:fs';
import { PF_KTHREAD } from '../../abi/process.js';
import { PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, PTRACE_SUD_CONFIG } from '../../abi/ptrace.js';
import { readLsmLabel } from '../../kernel/procfs/scalars.js';
import {
  type Answers,
  type DumpContext,
  nameOf,
  type Refuse,
  type TaskState,
  type Thread,
} from '../contract.js';

/** What tasks can have that no image holds; refused before anything is frozen where it shows then. */
export const obstacles: TaskState = {
  name: 'obstacles',
  scope: 'thread',
  support:
    'refused: tracers, 32-bit tasks, kernel threads, shadow stacks, syscall user dispatch, key rings of threads and processes, confinement by a security module',

  check(thread, refuse) {
    checkTracer(thread, refuse);
    checkShadowStack(thread, refuse);
    if (!thread.isLeader) return;
    checkKind(thread, refuse);
    checkLabel(thread, refuse);
  },

  inquiry: {
    room: PTRACE_SUD_CONFIG.size,
    put(ask, { tid }, at) {
      ask('ptrace', PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, PTRACE_SUD_CONFIG.size, at);
    },
    read: checkDispatch,
  },

  ask(tape) {
    const rings = KEYRINGS.map(([id, name]) => ({
      name,
      answer: tape.call('keyctl', [KEYCTL_GET_KEYRING_ID, id, 0], 'any'),
    }));
    return (played, thread, context) => {
      for (const { name, answer } of rings)
        if (played.result(answer) > 0n)
          context.refuse({ task: nameOf(thread), object: name, reason: 'its keys cannot be saved' });
    };
  },

  kernel: { members: ['cred', 'real_cred'] },
};

function checkTracer(thread: Thread, refuse: Refuse): void {
  const { tracerPid } = thread.status;
  if (tracerPid === 0) return;
  refuse({
    task: nameOf(thread),
    object: `tracer pid ${tracerPid}`,
    reason: 'a task can have only one tracer, and the freeze needs to be it',
    help: 'detach the debugger or strace',
  });
}

function checkShadowStack(thread: Thread, refuse: Refuse): void {
  if (!/\bshstk\b/.test(thread.status.raw.get('x86_Thread_features') ?? '')) return;
  refuse({
    task: nameOf(thread),
    object: 'shadow stack',
    reason: 'this release cannot rebuild one',
    help: 'start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off',
  });
}

const ELF_CLASS = 4;
const ELFCLASS32 = 1;

function checkKind(thread: Thread, refuse: Refuse): void {
  const { pid, stat } = thread.process;
  const task = nameOf(thread);
  if ((stat.flags & PF_KTHREAD) !== 0)
    refuse({ task, object: 'the task', reason: 'it is a thread of the kernel' });
  else if (elfClass(pid) === ELFCLASS32)
    refuse({ task, object: 'the task', reason: 'it is a 32-bit program', help: 'run a 64-bit build of it' });
}

/** Of the executable; undefined where that cannot be read. */
function elfClass(pid: number): number | undefined {
  const head = Buffer.alloc(ELF_CLASS + 1);
  try {
    const fd = openSync(`/proc/${pid}/exe`, 'r');
    try {
      return readSync(fd, head, 0, head.length, 0) === head.length ? head[ELF_CLASS] : undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

/** AppArmor's word for no confinement. */
const UNCONFINED = /^unconfined\s*$/;

function checkLabel(thread: Thread, refuse: Refuse): void {
  const label = readLsmLabel(thread.process.pid);
  if (label === undefined || label === '' || UNCONFINED.test(label)) return;
  if (label === readLsmLabel(process.pid)) return;
  refuse({
    task: nameOf(thread),
    object: `security label ${label.trim()}`,
    reason: 'this release does not restore labels other than the restorer’s own',
  });
}

/** Interception of its own system calls by a task (Wine): visible only while it is stopped. */
function checkDispatch({ results: [result = 0], view }: Answers, thread: Thread, context: DumpContext): void {
  // EINVAL or EIO: a kernel before 6.4, or without it.
  if (result < 0 || view.getBigUint64(PTRACE_SUD_CONFIG.mode, true) === 0n) return;
  context.refuse({
    task: nameOf(thread),
    object: 'syscall user dispatch (PR_SET_SYSCALL_USER_DISPATCH)',
    reason: 'the task intercepts its own system calls, so it cannot be asked anything',
  });
}

/** keyctl(2): the id of a keyring, without making one. A session keyring comes from the login and is the restorer's. */
const KEYCTL_GET_KEYRING_ID = 0;
const KEYRINGS = [
  [-1, 'thread keyring'],
  [-2, 'process keyring'],
] as const;
