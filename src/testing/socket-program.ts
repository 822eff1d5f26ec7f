import { Subject } from './subject.js';

/**
 * Sockets that are neither Unix nor TCP, with what CRIU's image has of them: UDP over IPv4 and IPv6, connected and not,
 * ICMP and raw ones, netlink with a port and a group, a packet socket with a membership, options, a filter.
 */
const SOCKETS = `
import ctypes, os, socket, struct, sys, time
def beat(n): os.write(1, b'beat %d\\n' % n)
def fail(*words): os.write(1, ('FAIL ' + ' '.join(map(str, words)) + chr(10)).encode())
def same(what, a, b):
  if a != b: fail(what, a, 'is not', b)
made = {}
four = made['four'] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); four.bind(('127.0.0.1', 0))
six = made['six'] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); six.bind(('::1', 0))
to4 = made['to4'] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); to4.connect(four.getsockname())
to6 = made['to6'] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); to6.connect(six.getsockname())
lite = made['lite'] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136); lite.bind(('127.0.0.1', 0))
bare = made['bare'] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link = made['link'] = socket.socket(16, 3, 0); link.bind((0, 0)); link.setsockopt(270, 1, 20)
packet = made['packet'] = socket.socket(17, 3, 0); packet.bind(('lo', 0x88b9))
packet.setsockopt(263, 1, struct.pack('iHH8s', 1, 2, 0, b''))
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *i) for i in ((0x20, 0, 0, 0), (6, 0, 0, 0xffffffff))))
four.setsockopt(1, 26, struct.pack('HxxxxxxQ', 2, ctypes.addressof(code)))
four.setsockopt(0, 1, 16); four.setsockopt(0, 8, 1); four.setsockopt(1, 12, 5); six.setsockopt(41, 49, 1); six.setsockopt(1, 8, 50000)
four.settimeout(5); six.settimeout(5)
def look(s):
  name = s.getsockname()
  options = [s.getsockopt(1, o) for o in (2, 6, 7, 8, 12, 15)]
  try: peer = s.getpeername()
  except OSError: peer = None
  return name, peer, options, os.get_blocking(s.fileno())
before = {name: look(s) for name, s in made.items()}
n = 1
while True:
  for name, s in made.items(): same(name, look(s), before[name])
  to4.send(b'%d' % n); same('IPv4', four.recvfrom(99), (b'%d' % n, to4.getsockname()))
  to6.send(b'%d' % n); same('IPv6', six.recvfrom(99)[0], b'%d' % n)
  four.sendto(b'lite?', four.getsockname()); same('itself', four.recv(99), b'lite?')
  same('options', [four.getsockopt(0, 1), four.getsockopt(0, 8), six.getsockopt(41, 49)], [16, 1, 1])
  beat(n); n += 1; time.sleep(0.02)
`;

export const SOCKET_PROGRAM = {
  name: 'sockets of UDP, netlink and packets',
  start: () => Subject.python(SOCKETS),
};
