/**
 * The other program of the fault tests, in Python: what it holds open is what a dump cannot look at without changing it for
 * a while. Each kind is a queue that a thread turns round: it takes the first message out, which must be the next in order,
 * and puts a new one in at the end. What is lost, comes twice, or comes in another order is an error, and so is a queue
 * that stands still. A child shares all descriptors, and waits.
 */
export const HOLDINGS = ['tcp', 'tty', 'udp', 'mqueue', 'flight', 'remap'] as const;
export type Holding = (typeof HOLDINGS)[number];

export const HOLDING_PROGRAM = String.raw`
import array, ctypes, fcntl, mmap, os, signal, socket, struct, sys, termios, threading, time
rt = ctypes.CDLL(None, use_errno=True)
state = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)
os.close(3)
port, kinds = int(sys.argv[2]), sys.argv[3:]
NAMES = ['main', 'tcp', 'tty', 'udp', 'mqueue', 'flight', 'remap']
COUNTER = {name: 64 + 8 * (0 if name == 'main' else 9 + i) for i, name in enumerate(NAMES)}
base = ctypes.addressof(ctypes.c_char.from_buffer(state))
def count(name): ctypes.c_uint64.from_address(base + COUNTER[name]).value += 1
def fail(text):
  errors = ctypes.c_uint64.from_address(base + 8)
  errors.value += 1
  said = b'' if errors.value == 1 else state[2048:4095].split(b'\0')[0] + b'; '
  state[2048:4096] = (said + f'pid {os.getpid()}: {text}'.encode())[:2000].ljust(2048, b'\0')

DEPTH, PACE = 5, 0.02
def must(name, got, number):
  if got != number: fail(f'{name}: {got!r} and not {number!r}')
def word(number): return b'%08d' % number
def exactly(read, length):
  got = b''
  while len(got) < length:
    more = read(length - len(got))
    if more == b'': return got
    got += more
  return got

def tcp():
  sock = socket.create_connection(('127.0.0.1', port))
  return lambda n: sock.sendall(word(n)), lambda: exactly(sock.recv, 8), word

def tty():
  master, slave = os.openpty()
  settings = termios.tcgetattr(slave)
  settings[1] &= ~termios.OPOST
  settings[3] &= ~termios.ECHO
  termios.tcsetattr(slave, termios.TCSANOW, settings)
  was = termios.tcgetattr(slave)
  os.write(master, b'first')
  def put(n):
    # There is always a line that is not complete.
    os.write(master, b'\n' + word(n)); os.write(slave, word(n))
  seen = [b'first\n']
  def take():
    if termios.tcgetattr(slave) != was: fail('tty: other settings')
    line, out = os.read(slave, 100), exactly(lambda length: os.read(master, length), 8)
    expected, seen[0] = seen[0], out + b'\n'
    must('tty line', line, expected)
    return out
  return put, take, word

def udp():
  sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  sock.bind(('127.0.0.1', 0))
  here = sock.getsockname()
  return lambda n: sock.sendto(word(n), here), lambda: sock.recv(100), word

class Attributes(ctypes.Structure):
  _fields_ = [('flags', ctypes.c_long), ('most', ctypes.c_long), ('size', ctypes.c_long), ('pad', ctypes.c_long * 5)]
def mqueue():
  name = b'/stasis-fault'
  rt.mq_unlink(name)
  queue = rt.mq_open(name, os.O_RDWR | os.O_CREAT, 0o600, ctypes.byref(Attributes(0, 10, 64)))
  if queue < 0: fail('no queue')
  room, priority = ctypes.create_string_buffer(64), ctypes.c_uint()
  def put(n):
    while rt.mq_send(queue, word(n), 8, 7) != 0:
      if ctypes.get_errno() != 4: fail(f'mq_send: {ctypes.get_errno()}'); return
  def take():
    while True:
      length = rt.mq_receive(queue, room, 64, ctypes.byref(priority))
      if length >= 0: break
      if ctypes.get_errno() != 4: return f'mq_receive: {ctypes.get_errno()}'
    must('priority', priority.value, 7)
    return room.raw[:length]
  return put, take, word

def flight():
  near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
  source, sink = os.pipe()
  inode = os.fstat(source).st_ino
  def put(n): near.sendmsg([word(n)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [source]))])
  def take():
    data, ancillary, _, _ = far.recvmsg(100, socket.CMSG_SPACE(4))
    if len(ancillary) != 1: return data, 'no descriptor'
    fd, = struct.unpack('i', ancillary[0][2])
    there = os.fstat(fd).st_ino
    os.close(fd)
    return data, there
  return put, take, lambda n: (word(n), inode)

def remap():
  # Of its two names the one that it was opened by is gone.
  for name in ('first', 'second'):
    if os.path.exists(name): os.unlink(name)
  fd = os.open('first', os.O_RDWR | os.O_CREAT)
  os.link('first', 'second'); os.unlink('first')
  def put(n): os.pwrite(fd, word(n), 8 * (n % 64))
  taken = [0]
  def take():
    n = taken[0]; taken[0] += 1
    return os.pread(fd, 8, 8 * (n % 64))
  return put, take, word

def turn(name, put, take, expected):
  number = 0
  while True:
    put(number + DEPTH)
    got = take()
    must(name, got, expected(number))
    count(name)
    number += 1
    time.sleep(PACE)

os.chdir(os.path.dirname(sys.argv[1]))
for name, make in {'tcp': tcp, 'tty': tty, 'udp': udp, 'mqueue': mqueue, 'flight': flight, 'remap': remap}.items():
  if name not in kinds: continue
  put, take, expected = make()
  for number in range(DEPTH): put(number)
  threading.Thread(target=turn, args=(name, put, take, expected), daemon=True).start()
if os.fork() == 0:
  while True: signal.pause()
print('ready', flush=True)
while True:
  count('main')
  time.sleep(0.01)
`;
