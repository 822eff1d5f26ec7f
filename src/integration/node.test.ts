import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENT, end, SKIP_INTEGRATION, survive } from '../testing/servers.js';
import { Subject } from '../testing/subject.js';

/**
 * Node: V8's threads, code that is written while it runs, an epoll inside an epoll, eventfds. It talks with its clients by
 * websockets (RFC 6455); each message has a sequence number in either direction, and a timer says something of its own.
 */
const SERVER = `
const { createHash, pbkdf2 } = require('node:crypto');
const { createServer } = require('node:http');

const sockets = new Set();


function frame(text) {
  const body = Buffer.from(text);
  const head = body.length < 126 ? Buffer.from([0x81, body.length]) : Buffer.from([0x81, 126, body.length >> 8, body.length & 255]);
  return Buffer.concat([head, body]);
}

// One whole message of a client, which is masked, and what comes after it.
function unframe(data) {
  if (data.length < 6) return undefined;
  let length = data[1] & 127;
  let at = 2;
  if (length === 126) { length = data.readUInt16BE(2); at = 4; }
  if (data.length < at + 4 + length) return undefined;
  const mask = data.subarray(at, at + 4);
  const body = Buffer.from(data.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < length; i++) body[i] ^= mask[i & 3];
  return { text: body.toString(), rest: data.subarray(at + 4 + length) };
}

const server = createServer((_, response) => response.end('no websocket'));
server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = createHash('sha1').update(key).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n');
  let data = Buffer.alloc(0);
  let count = 0;
  socket.said = 0;
  sockets.add(socket);
  socket.on('data', (chunk) => {
    data = Buffer.concat([data, chunk]);
    for (let message; (message = unframe(data)) !== undefined; data = message.rest) {
      const [number, word] = message.text.split(' ');
      count++;
      if (Number(number) !== count) console.log('FAIL: message ' + number + ' comes as the ' + count + 'th');
      const answer = () => socket.write(frame('answer ' + number + ' ' + word));
      // By the pool of threads, or at once.
      if (count % 10 === 0) pbkdf2(word, '', 1, 8, 'sha1', answer);
      else answer();
    }
  });
  socket.on('error', (error) => console.log('FAIL: ' + error));
  socket.on('close', () => console.log('FAIL: a client is gone'));
});
setInterval(() => {

  for (const socket of sockets) socket.write(frame('time ' + ++socket.said));
}, 50);
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
`;

const CONNECTIONS = 60;

/** Many connections in one process, all of them busy at once. */
const WRITER = `${CLIENT}
import base64, hashlib, random
host, done = sys.argv[1], log(sys.argv[2])
class Websocket:
  def __init__(self):
    self.s = connect(host); self.count = 0; self.time = 0; self.words = {}
    key = base64.b64encode(os.urandom(16))
    self.s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: ' + key + b'\\r\\n\\r\\n')
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'): head += exactly(self.s, 1)
    accept = base64.b64encode(hashlib.sha1(key + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest())
    if not head.startswith(b'HTTP/1.1 101 ') or accept not in head: fail(head)
  def send(self):
    self.count += 1
    word = self.words[self.count] = os.urandom(random.choice((1, 40, 3000))).hex()
    body = b'%d %s' % (self.count, word.encode())
    mask = os.urandom(4)
    head = struct.pack('!BB', 0x81, 0x80 | len(body)) if len(body) < 126 else struct.pack('!BBH', 0x81, 0x80 | 126, len(body))
    key = (mask * (len(body) // 4 + 1))[:len(body)]
    self.s.sendall(head + mask + (int.from_bytes(body, 'big') ^ int.from_bytes(key, 'big')).to_bytes(len(body), 'big'))
  def receive(self):
    head = exactly(self.s, 2)
    length = head[1] if head[1] < 126 else struct.unpack('!H', exactly(self.s, 2))[0]
    words = exactly(self.s, length).decode().split(' ')
    if words[0] == 'time':
      self.time += 1
      if int(words[1]) != self.time: fail('the time is', words[1], 'instead of', self.time)
    elif self.words.pop(int(words[1]), None) != words[2]: fail('another answer to', words[1])
all = [Websocket() for _ in range(${CONNECTIONS})]
n = 0
while True:
  n += 1
  for one in all: one.send(); one.send()
  for one in all:
    while one.words: one.receive()
    # Every so often, the timer has to speak.
    time_before = one.time
    while n % 20 == 0 and one.time == time_before: one.receive()
  acknowledge(done, n)
`;

const CLIENTS = ['u', 'v'];
const PORT = 9004;

test('Node under load, with websockets', { skip: SKIP_INTEGRATION }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-node-'));
  const client = join(directory, 'client.py');
  writeFileSync(client, WRITER);
  writeFileSync(join(directory, 'server.cjs'), SERVER);
  using subject = Subject.start([process.execPath, join(directory, 'server.cjs'), String(PORT)], directory);
  const others: Subject[] = [];
  try {
    await subject.expect(/ready/, 60_000);
    const logs = CLIENTS.map((name) => join(directory, `acked-${name}`));
    for (const log of logs)
      others.push(Subject.start(['/usr/bin/python3', client, `127.0.0.1:${PORT}`, log]));
    await survive(subject, { logs, checkpoint: ['--tcp-established'], others });
    for (const { output } of [subject, ...others]) assert.doesNotMatch(output, /FAIL/);
  } finally {
    await end(...others, subject);
  }
});
