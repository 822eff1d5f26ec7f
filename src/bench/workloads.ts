/** What is measured: the workloads of the project's targets. */
export interface Workload {
  readonly name: string;
  readonly what: string;
  /** Private memory in MiB, besides what Python has itself (about 7 MiB resident). */
  readonly memory_mib: number;
  /** Processes and threads besides the one that looks at the clock. */
  readonly processes: number;
  readonly threads: number;
  readonly descriptors: number;
  /** Eventfds that one epoll waits for, half of which have other numbers by now. */
  readonly epoll_entries: number;
  /** TCP connections with full queues, whose other ends are the bench's. */
  readonly connections: number;
}

const BARE = {
  memory_mib: 1,
  processes: 0,
  threads: 0,
  descriptors: 0,
  epoll_entries: 0,
  connections: 0,
} as const;

export const WORKLOADS: readonly Workload[] = [
  { ...BARE, name: '1-process', what: '1 process, 1 MiB' },
  { ...BARE, name: '256-mib', what: '1 process, 256 MiB', memory_mib: 256 },
  { ...BARE, name: '1-gib', what: '1 process, 1 GiB', memory_mib: 1024 },
  { ...BARE, name: '100-processes', what: '100 processes', processes: 99 },
  { ...BARE, name: '200-threads', what: '1 process, 200 threads', threads: 199 },
  { ...BARE, name: '900-descriptors', what: '1 process, 900 descriptors', descriptors: 900 },
  { ...BARE, name: '10000-descriptors', what: '1 process, 10,000 descriptors', descriptors: 10_000 },
  { ...BARE, name: '1000-epoll-entries', what: '1 process, an epoll of 1,000 eventfds', epoll_entries: 1000 },
  { ...BARE, name: '1000-connections', what: '1 process, 1,000 TCP connections', connections: 1000 },
];

/**
 * The subject. Its first process does nothing but look at the clock, and notes the longest time between two
 * looks in words of 8 bytes that it shares with the bench through a file: [0] the period that the bench asks for, [1]
 * the period that it is in, [2] the longest gap of the period before, in ns. Everybody else sleeps. The clock is that of the
 * day: CRIU restores into a time namespace, in which the monotonic clock does not show how long the process was away.
 */
export const SUBJECT = `
import json, mmap, os, resource, select, signal, socket, sys, threading, time

os.closerange(3, 65536)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
spec = json.loads(sys.argv[1])
board = memoryview(mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)).cast("Q")
size = spec["memory_mib"] << 20
memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block = os.urandom(1 << 20)
for at in range(0, size, len(block)):
    memory[at:at + len(block)] = block
kept = []
for number in range(spec["descriptors"] // 6):
    kept.append(os.open(sys.argv[2] + "-%d" % number, os.O_RDWR | os.O_CREAT, 0o600))
    kept.append(os.open("/etc/passwd", os.O_RDONLY))
    kept.append(os.eventfd(number))
    kept.append(os.eventfd(0, os.EFD_NONBLOCK))
    kept.extend(os.pipe())
if spec["epoll_entries"] > 0:
    epoll = select.epoll()
    targets = [os.eventfd(number) for number in range(spec["epoll_entries"])]
    for target in targets:
        epoll.register(target, select.EPOLLIN)
    for target in targets[::2]:
        os.dup2(target, target + 2 * len(targets))
        os.close(target)
for _ in range(spec["connections"]):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", spec["port"]))
    connection.setblocking(False)
    kept.append(connection)
for connection in kept[len(kept) - spec["connections"]:]:
    try:
        while True:
            connection.send(block[:65536])
    except BlockingIOError:
        pass
event = threading.Event()
threading.stack_size(128 * 1024)
for _ in range(spec["threads"]):
    threading.Thread(target=event.wait, daemon=True).start()
for _ in range(spec["processes"]):
    if os.fork() == 0:
        while True:
            signal.pause()

def watch(board, now):
    period = longest = 0
    last = now()
    while True:
        time = now()
        if time - last > longest:
            longest = time - last
        last = time
        if board[0] != period:
            period = board[0]
            board[2] = longest
            board[1] = period
            longest = 0
            last = now()

watch(board, time.time_ns)
`;
