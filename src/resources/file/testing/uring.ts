/** For tests: an io_uring in Python, by system calls; behind what `started` of memory's trials defines. */
export const URING = `
import struct, tempfile, time
def call(*args):
  r = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
  if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return r
IOPOLL, SQPOLL, R_DISABLED, SUBMIT_ALL, COOP, TASKFLAG, SQE128, CQE32, SINGLE, DEFER, NO_SQARRAY, MIXED = (
  1 << n for n in (0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 16, 18))
NOP, READ, WRITE, POLL, TIMEOUT, MSG = 0, 22, 23, 6, 11, 40
SKIP, FIXED, ASYNC = 64, 1, 16
def u32(at): return ctypes.c_uint32.from_address(at)
class Ring:
  def __init__(self, entries, flags=0, cq=None, more=()):
    p = bytearray(120)
    struct.pack_into('<III', p, 0, 0, cq or 0, flags | (8 if cq else 0))
    b = (ctypes.c_uint8 * 120).from_buffer(p)
    self.fd = call(425, entries, b)
    self.flags = flags
    self.n, self.cn = struct.unpack_from('<II', p, 0)
    sq, cq = struct.unpack_from('<7I', p, 40), struct.unpack_from('<7I', p, 80)
    self.step, self.cstep = 128 if flags & SQE128 else 64, 32 if flags & CQE32 else 16
    size = max(cq[5] + self.cn * self.cstep, sq[6] + self.n * 4)
    self.ring = ok(libc.mmap(None, size, R|W, SHARED, self.fd, 0))
    self.sqes = ok(libc.mmap(None, self.n * self.step, R|W, SHARED, self.fd, 0x10000000))
    self.shead, self.stail, self.array = (self.ring + sq[i] for i in (0, 1, 6))
    self.head, self.tail, self.cqes = (self.ring + cq[i] for i in (0, 1, 5))
  def put(self, op=NOP, fd=-1, at=0, length=0, off=0, tag=0, flags=0, op_flags=0, ioprio=0, more=0):
    tail = u32(self.stail).value
    assert tail - u32(self.shead).value < self.n
    index = tail % self.n
    put(self.sqes + index * self.step, struct.pack('<BBHiQQIIQQQQ', op, flags, ioprio, fd, off, at, length, op_flags, tag, more, 0, 0))
    if not self.flags & NO_SQARRAY: u32(self.array + 4 * index).value = index
    u32(self.stail).value = tail + 1
  def enter(self, count, wait=0): return call(426, self.fd, count, wait, 1 if wait else 0, 0, 0)
  def take(self):
    head, tail = u32(self.head).value, u32(self.tail).value
    got = []
    while head != tail:
      tag, res, _ = struct.unpack('<QiI', get(self.cqes + head % self.cn * self.cstep, 16))
      got.append((tag, res)); head = (head + 1) & 0xffffffff
    u32(self.head).value = head
    return got
  def many(self, count, flags=0):
    while count:
      k = min(count, self.n)
      for i in range(k): self.put(tag=i, flags=flags)
      assert self.enter(k) == k
      self.take(); count -= k
  def words(self): return [u32(a).value for a in (self.shead, self.stail, self.head, self.tail)]
name = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), 'file')
fd = os.open(name, os.O_RDWR|os.O_CREAT); os.write(fd, b'0123456789')
data = ctypes.create_string_buffer(64); at = ctypes.addressof(data)
def reads(ring, tag):
  ring.put(READ, fd, at, 4, tag % 6, tag); assert ring.enter(1, 1) == 1
  assert ring.take() == [(tag, 4)], 'a read'
  assert data.raw[:4] == b'0123456789'[tag % 6:tag % 6 + 4]
def works(ring):
  for i in range(2 * ring.n + 3): reads(ring, i)
`;
