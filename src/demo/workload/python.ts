/**
 * The Python pair: a parent that is woken by signals, and its child that it talks with by pipes. The child's memory is
 * shared with the parent (anonymous, MAP_SHARED); a deleted file in memory, descriptor 3, is shared with the server.
 * Of that mailbox: at 0 the beat that is asked for, at 8 the beat that was answered, at 32 signals handled, pid and
 * child's pid, at 64 the state, at 128 the hash of the memory. Arguments: seed, number of pages.
 */
export const MAILBOX = {
  beat: 0,
  answered: 8,
  handled: 32,
  pid: 36,
  child: 40,
  state: 64,
  hash: 128,
} as const;
export const MAILBOX_BYTES = 4096;
/** Asked for instead of a beat: the hash of the memory. */
export const HASH_REQUEST = 0xffff_ffff;

export const PYTHON_PROGRAM = `
import hashlib, mmap, os, signal, struct, sys

PAGE = 4096
seed, pages = sys.argv[1], int(sys.argv[2])
mailbox = mmap.mmap(3, ${MAILBOX_BYTES})
ballast = mmap.mmap(-1, pages * PAGE)
ballast[:] = hashlib.shake_256((seed + ":python").encode()).digest(pages * PAGE)
ask_read, ask_write = os.pipe()
answer_read, answer_write = os.pipe()

def exactly(fd, length):
    data = b""
    while len(data) < length:
        more = os.read(fd, length - len(data))
        if not more:
            os._exit(0)
        data += more
    return data

def calculate():
    state = bytes(32)
    while True:
        number = exactly(ask_read, 4)
        beat, = struct.unpack("<I", number)
        if beat == ${HASH_REQUEST}:
            os.write(answer_write, hashlib.sha256(ballast).digest())
            continue
        start = beat % pages * PAGE
        state = hashlib.sha256(state + number + ballast[start:start + PAGE]).digest()
        ballast[start:start + len(state)] = state
        os.write(answer_write, state)

# Blocked before anybody can send one: it waits until sigwait asks for it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
child = os.fork()
if child == 0:
    os.close(ask_write)
    os.close(answer_read)
    calculate()
os.close(ask_read)
os.close(answer_write)
handled = 0
mailbox[${MAILBOX.pid}:${MAILBOX.pid + 8}] = struct.pack("<II", os.getpid(), child)
os.kill(os.getppid(), signal.SIGUSR2)
while True:
    signal.sigwait({signal.SIGUSR1})
    handled += 1
    number = mailbox[${MAILBOX.beat}:${MAILBOX.beat + 4}]
    os.write(ask_write, number)
    answer = exactly(answer_read, 32)
    at = ${MAILBOX.hash} if struct.unpack("<I", number)[0] == ${HASH_REQUEST} else ${MAILBOX.state}
    mailbox[at:at + 32] = answer
    mailbox[${MAILBOX.handled}:${MAILBOX.handled + 4}] = struct.pack("<I", handled)
    mailbox[${MAILBOX.answered}:${MAILBOX.answered + 4}] = number
    os.kill(os.getppid(), signal.SIGUSR2)
`;
