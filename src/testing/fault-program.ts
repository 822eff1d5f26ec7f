/**
 * The program of the fault tests, in Python: raw calls by ctypes (its own wrappers would repeat a call that returns
 * EINTR, and hide it), and three pieces of machine code. The root has threads in quick and in hour-long waits, one
 * that watches its registers, two that talk to children over pipes with sequence numbers, a real-time timer, handlers
 * that must never run, a datagram queue; its children are one that makes calls and answers, one that is confined by
 * seccomp, one stopped, and one zombie.
 */
const REGISTERS = [
  '53554154415541564157f30f6f02f30f6f4a10f30f6f5220f30f6f5a30f30f6f6240f30f6f6a50f30f6f7260f30f6f7a',
  '70f3440f6f8280000000f3440f6f8a90000000f3440f6f92a0000000f3440f6f9ab0000000f3440f6fa2c0000000f344',
  '0f6faad0000000f3440f6fb2e000000048bb111111111111111148bd222222222222222249b8888888888888888849b9',
  '999999999999999949baaaaaaaaaaaaaaaaa49bbbbbbbbbbbbbbbbbb49bccccccccccccccccc49bddddddddddddddddd',
  '49beeeeeeeeeeeeeeeee49bfefcdab89674523014c897c24f84c897424c04c896c248048b811111111111111114839d8',
  '0f857102000048b822222222222222224839e80f855e02000048b888888888888888884c39c00f854b02000048b89999',
  '9999999999994c39c80f853802000048b8aaaaaaaaaaaaaaaa4c39d00f852502000048b8bbbbbbbbbbbbbbbb4c39d80f',
  '851202000048b8cccccccccccccccc4c39e00f85ff01000048b8dddddddddddddddd4c39e80f85ec01000048b8eeeeee',
  'eeeeeeeeee4c39f00f85d901000048b8efcdab89674523014c39f80f85c60100004c397c24f80f85bb0100004c397424',
  'c00f85b00100004c396c24800f85a5010000f3440f6f3a66440f74f866410fd7c73dffff00000f858b010000f3440f6f',
  '7a1066440f74f966410fd7c73dffff00000f8570010000f3440f6f7a2066440f74fa66410fd7c73dffff00000f855501',
  '0000f3440f6f7a3066440f74fb66410fd7c73dffff00000f853a010000f3440f6f7a4066440f74fc66410fd7c73dffff',
  '00000f851f010000f3440f6f7a5066440f74fd66410fd7c73dffff00000f8504010000f3440f6f7a6066440f74fe6641',
  '0fd7c73dffff00000f85e9000000f3440f6f7a7066440f74ff66410fd7c73dffff00000f85ce000000f3440f6fba8000',
  '000066450f74f866410fd7c73dffff00000f85b0000000f3440f6fba9000000066450f74f966410fd7c73dffff00000f',
  '8592000000f3440f6fbaa000000066450f74fa66410fd7c73dffff00007578f3440f6fbab000000066450f74fb66410f',
  'd7c73dffff0000755ef3440f6fbac000000066450f74fc66410fd7c73dffff00007544f3440f6fbad000000066450f74',
  'fd66410fd7c73dffff0000752af3440f6fbae000000066450f74fe66410fd7c73dffff0000751048ff0748ffce0f8580',
  'fdffff31c0eb05b801000000415f415e415d415c5d5bc3',
].join('');

const CALLS = [
  '535541544155415641574989fc4989f54989d64989cf48bb111111111111111148bd222222222222222249b888888888',
  '8888888849baaaaaaaaaaaaaaaaa4c89f00f054c39f8754948b811111111111111114839d8753a48b822222222222222',
  '224839e8752b48b888888888888888884c39c0751c48b8aaaaaaaaaaaaaaaa4c39d0750d49ff042449ffcd75b131c0eb',
  '05b801000000415f415e415d415c5d5bc3',
].join('');

const PONG = [
  '5756578b7c24104889e6ba0800000031c00f054883f80875198b7c24084889e6ba08000000b8010000000f054883f808',
  '74d1bf03000000b83c0000000f05',
].join('');

const PROGRAM = String.raw`
import ctypes, mmap, os, select, signal, socket, struct, sys, threading, time, zlib
libc = ctypes.CDLL(None, use_errno=True)
state = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)
os.close(3)
confinement, small, deaf, continued = sys.argv[2], *(word in sys.argv[3:] for word in ('small', 'deaf', 'continued'))
COUNTER = {name: 64 + 8 * i for i, name in enumerate(
  'main registers ping nanosleep poll epoll_wait futex calls alarms confined'.split())}
base = ctypes.addressof(ctypes.c_char.from_buffer(state))
def at(name): return base + COUNTER[name]
def count(name):
  ctypes.c_uint64.from_address(at(name)).value += 1
def fail(text):
  errors = ctypes.c_uint64.from_address(base + 8)
  errors.value += 1
  said = b'' if errors.value == 1 else state[2048:4095].split(b'\0')[0] + b'; '
  state[2048:4096] = (said + f'pid {os.getpid()}: {text}'.encode())[:2000].ljust(2048, b'\0')

code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code_at = ctypes.addressof(ctypes.c_char.from_buffer(code))
def machine(offset, text, *types):
  code[offset:offset + len(text) // 2] = bytes.fromhex(text)
  return ctypes.CFUNCTYPE(ctypes.c_long, *types)(code_at + offset)
U = ctypes.c_uint64
# Pattern in fifteen vector registers, all general ones and the red zone, looked at again and again.
registers = machine(0, REGS, U, U, U)
# One system call after the other, with its answer and the registers it must not touch.
calls = machine(1024, CALLS, U, U, U, U)
# read(2) eight bytes, write(2) them: all that strict seccomp lets a task do. Counts by itself.
pong = machine(2048, PONG, U, U)

def syscall(number, *args):
  result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args])
  return -ctypes.get_errno() if result == -1 else result

# As a libc makes its calls: the number as a constant before the instruction.
wrappers = {}
def wrapped(number, *args):
  return wrappers[number](*args, *[0] * (6 - len(args)))
for number in (35, 7, 232, 202):
  text = 'b8' + struct.pack('<I', number).hex() + '4989ca0f05c3'
  wrappers[number] = machine(3072 + 16 * len(wrappers), text, U, U, U, U, U, U)

SLICE = 0.02
# What any stop does to epoll_wait, until it is cured: signal(7).
def interrupted(name, result):
  if name != 'epoll_wait' or result != -4: return False
  ctypes.c_uint64.from_address(base + 16).value += 1
  return True
def quick(name, call, expected):
  while True:
    start = time.monotonic()
    result = call()
    if interrupted(name, result): continue
    if result != expected: fail(f'{name} returned {result} and not {expected} after {time.monotonic() - start:.4f} s')
    elif time.monotonic() - start < SLICE - 0.0005: fail(f'{name} returned after {time.monotonic() - start:.4f} s')
    count(name)
def slow(name, call):
  result = call()
  while interrupted(name, result): result = call()
  fail(f'{name} that was to take an hour returned {result}')

class Timespec(ctypes.Structure): _fields_ = [('s', ctypes.c_long), ('n', ctypes.c_long)]
def spec(seconds): return ctypes.addressof(keep(Timespec(int(seconds), int(seconds % 1 * 1e9))))
kept = []
def keep(thing): kept.append(thing); return thing
HOUR, ETIMEDOUT = 3600, -110
word = keep(ctypes.c_uint32(0)); word_at = ctypes.addressof(word)
events = ctypes.addressof(keep(ctypes.create_string_buffer(12)))
short, hour = spec(SLICE), spec(HOUR)

def settings():
  altstack, mask, action = (ctypes.create_string_buffer(n) for n in (24, 8, 32))
  found = [syscall(131, 0, ctypes.addressof(altstack)), altstack.raw,
           syscall(14, 0, 0, ctypes.addressof(mask), 8), mask.raw]
  for number in range(1, 65):
    found.append((syscall(13, number, 0, ctypes.addressof(action), 8), action.raw))
  word = ctypes.create_string_buffer(8)
  for option in (2, 37, 40):
    found.append((option, syscall(157, option, ctypes.addressof(word)), word.raw))
  for option in (3, 7, 8, 21, 23, 27, 30, 39, 42): found.append((option, syscall(157, option, 0, 0, 0, 0)))
  found.append([s.getsockopt(socket.SOL_SOCKET, 42) for s in sockets])
  found.append((os.getpgid(0), os.getsid(0), os.getpriority(0, 0), os.getcwd(), os.umask(0o22)))
  found.append((tuple(signals.items()), os.sched_getaffinity(0)))
  return found

# Strictly confined tasks are held by a SIGSTOP when the dump dies; their parent hears of that. Restored ones are stopped anew.
told = [] if deaf or continued or confinement in ('harsh', 'strict') else [signal.SIGCHLD]
# What is left stopped is continued by a SIGCONT, and its parent hears of both; a handler ends epoll_wait in the thread it runs in.
signals = {number: 0 for number in [*told, *([] if continued else [signal.SIGCONT]), signal.SIGURG, signal.SIGUSR1]}
def on_signal(number, frame): signals[number] += 1

def child(body):
  pid = os.fork()
  if pid == 0:
    try: body()
    finally: os._exit(9)
  return pid

def thread(body, *args): threading.Thread(target=body, args=args, daemon=True).start()

def calling(parent):
  while True:
    if calls(at('calls'), 300, 110, parent) != 0: fail('a register or an answer changed around getppid')
    time.sleep(0.002)
def answering(source, sink, others):
  for fd in others: os.close(fd)
  parent = os.getppid()
  thread(calling, parent)
  pong(source, sink)
def confined(source, sink, others):
  for fd in others: os.close(fd)
  allowed = {'harsh': [0, 1, 60, 15], 'mild': [0, 1, 60, 15, 11, 3, 234]}.get(confinement)
  if allowed is not None:
    default = 0x80000000 if confinement == 'harsh' else 0x00050001
    program = [struct.pack('HBBI', 0x20, 0, 0, 0)]
    for i, number in enumerate(allowed): program.append(struct.pack('HBBI', 0x15, len(allowed) - i, 0, number))
    program += [struct.pack('HBBI', 6, 0, 0, default), struct.pack('HBBI', 6, 0, 0, 0x7fff0000)]
    text = ctypes.create_string_buffer(b''.join(program))
    prog = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(program), ctypes.addressof(text)))
    if syscall(157, 38, 1, 0, 0, 0) != 0 or syscall(157, 22, 2, ctypes.addressof(prog), 0, 0) != 0: fail('no filter')
  if confinement == 'strict' and syscall(157, 22, 1, 0, 0, 0) != 0: fail('no strict mode')
  pong(source, sink)
def stopped(others):
  for fd in others: os.close(fd)
  os.kill(os.getpid(), signal.SIGSTOP)
  time.sleep(1e6)

to_child, from_parent, to_parent, from_child = 0, 0, 0, 0
def pipes():
  r1, w1 = os.pipe(); r2, w2 = os.pipe()
  return r1, w1, r2, w2
a, b = pipes(), pipes()
sockets = []
first = child(lambda: answering(a[0], a[3], [a[1], a[2], *b]))
second = child(lambda: confined(b[0], b[3], [b[1], b[2], *a]))
if not small:
  third = child(lambda: stopped([*a, *b]))
  os.waitpid(third, os.WUNTRACED)
  fourth = child(lambda: os._exit(7))
  os.waitid(os.P_PID, fourth, os.WEXITED | os.WNOWAIT)
for fd in (a[0], a[3], b[0], b[3]): os.close(fd)

sockets = list(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
for packet in (b'one', b'two'): sockets[0].send(packet)
for number in signals: signal.signal(number, on_signal)
event, poller = os.eventfd(3, os.EFD_CLOEXEC) if hasattr(os, 'eventfd') else syscall(290, 3, 0), syscall(291, 0)
quiet = os.pipe()
empty = select.epoll.fromfd(poller); empty.register(quiet[0], select.EPOLLIN)

def ping(name, sink, source):
  number = 0
  sent, got = ctypes.c_uint64(0), ctypes.c_uint64(0)
  while True:
    number += 1
    sent.value = number
    if syscall(1, sink, ctypes.addressof(sent), 8) != 8: fail(f'{name}: write failed')
    result = syscall(0, source, ctypes.addressof(got), 8)
    if result != 8 or got.value != number: fail(f'{name}: {result} bytes, {got.value} and not {number}')
    count(name)
    time.sleep(0.002)
def spinning():
  table = keep(ctypes.create_string_buffer(bytes(range(1, 241))))
  while True:
    if registers(at('registers'), 3000, ctypes.addressof(table)) != 0: fail('a register or the red zone changed')
    time.sleep(0.002)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
thread(spinning)
thread(ping, 'ping', a[1], a[2])
thread(ping, 'confined', b[1], b[2])
thread(quick, 'epoll_wait', lambda: wrapped(232, poller, events, 1, int(SLICE * 1000)), 0)
thread(slow, 'futex', lambda: wrapped(202, word_at, 128, 0, 0, 0, 0))
if not small:
  thread(quick, 'nanosleep', lambda: wrapped(35, short, 0), 0)
  thread(quick, 'poll', lambda: wrapped(7, 0, 0, int(SLICE * 1000)), 0)
  thread(quick, 'futex', lambda: wrapped(202, word_at, 128, 0, short, 0, 0), ETIMEDOUT)
  thread(slow, 'nanosleep', lambda: wrapped(35, hour, 0))
  thread(slow, 'poll', lambda: wrapped(7, 0, 0, HOUR * 1000))
  thread(slow, 'epoll_wait', lambda: wrapped(232, poller, events, 1, HOUR * 1000))
def on_alarm(number, frame): count('alarms')
signal.signal(signal.SIGALRM, on_alarm)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
signal.setitimer(signal.ITIMER_REAL, 0.007, 0.007)

chunk = mmap.mmap(-1, 1 << 18)
chunk.write(bytes(i * 7 & 255 for i in range(1 << 18)))
expected = zlib.crc32(chunk)
for i in range(3): settings(); time.sleep(0.01)
was = settings()
print('ready', flush=True)
while True:
  if zlib.crc32(chunk) != expected: fail('memory changed')
  now = settings()
  if now != was: fail(f'settings changed: {[(x, y) for x, y in zip(was, now) if x != y]}'); was = now
  count('main')
  time.sleep(0.01)
`;

export const FAULT_PROGRAM = PROGRAM.replace('REGS', () => `'${REGISTERS}'`)
  .replace('CALLS', () => `'${CALLS}'`)
  .replace('PONG', () => `'${PONG}'`);
