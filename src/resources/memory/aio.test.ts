import test from 'node:test';
import { inPidNamespace, roundTrip } from './testing/trial.js';

const AIO = `
import struct, tempfile
def call(*args):
  r = libc.syscall(*[ctypes.c_ulong(a) if isinstance(a, int) else a for a in args])
  if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return r
def setup(n):
  ctx = ctypes.c_ulong(0); call(206, n, ctypes.byref(ctx)); return ctx.value
name = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), 'file')
fd = os.open(name, os.O_RDWR|os.O_CREAT); os.write(fd, b'0123456789')
data = ctypes.create_string_buffer(16)
def submit(ctx, *tags):
  for tag in tags:
    iocb = ctypes.create_string_buffer(struct.pack('<QIiHhIQQqQII', tag, 0, 0, 0, 0, fd, ctypes.addressof(data), 1 + tag % 7, 0, 0, 0, 0))
    block = ctypes.c_void_p(ctypes.addressof(iocb))
    assert call(209, ctx, 1, ctypes.byref(block)) == 1
def events(ctx, least, most):
  room = ctypes.create_string_buffer(32 * most)
  n = call(208, ctx, least, most, room, ctypes.create_string_buffer(16))
  return [(tag, res) for tag, _, res, _ in struct.iter_unpack('<QQqq', room.raw[:n * 32])]
def ring(ctx): return struct.unpack('<8I', get(ctx, 32))[1:4]
`;

if (inPidNamespace(import.meta.url)) {
  test('rings that are empty, part full, and have gone round', async () => {
    await roundTrip({
      build: `${AIO}
fresh = setup(1)
full = setup(40); submit(full, *range(30)); assert len(events(full, 7, 7)) == 7
size = ring(full)[0]
round_ = setup(3)
for i in range(2 * ring(round_)[0] + 5): submit(round_, i); events(round_, 1, 1)
for i in range(100, 100 + ring(round_)[0] // 2): submit(round_, i)
gone = setup(5); call(207, gone)
big = setup(5000); submit(big, *range(2600)); assert len(events(big, 2500, 2500)) == 2500
before = [ring(c) for c in (fresh, full, round_, big)]`,
      check: `
assert [ring(c) for c in (fresh, full, round_, big)] == before, (before, [ring(c) for c in (fresh, full, round_, big)])
assert events(fresh, 0, 1) == []
assert events(full, 23, 40) == [(n, min(1 + n % 7, 10)) for n in range(7, 30)]
assert [tag for tag, _ in events(round_, 1, 1000)] == list(range(100, 100 + ring(round_)[0] // 2))
assert [tag for tag, _ in events(big, 1, 1000)] == list(range(2500, 2600))
for ctx in (fresh, full, round_, big):
  for i in range(3 * ring(ctx)[0] // 2 if ctx != big else 10):
    submit(ctx, 7); assert events(ctx, 1, 2) == [(7, 1)]
try: events(gone, 0, 1); assert False
except OSError: pass`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('a ring that a child has without its context', async () => {
    await roundTrip({
      build: `${AIO}
ctx = setup(10); submit(ctx, 1, 2, 3)
r, w = os.pipe()
child = os.fork()
if child == 0:
  os.read(r, 1)
  try: events(ctx, 0, 1); os._exit(1)
  except OSError: os._exit(0 if ring(ctx)[2] == 3 else 2)`,
      check: `
os.write(w, b'x'); assert os.waitpid(child, 0)[1] == 0
assert [tag for tag, _ in events(ctx, 1, 9)] == [1, 2, 3]`,
      anyContents: true,
    });
  });
}
