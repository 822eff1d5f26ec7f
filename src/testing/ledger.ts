import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLIENT, end, survive } from './servers.js';
import { Subject } from './subject.js';

/**
 * For the integration suite: servers of our own, in the languages that people write servers in. All keep the same ledger.
 * A client sends lines of `HOW NAME WORD`; the server keeps, for each name, how many lines there were, and a digest over
 * all of them, and answers `NAME COUNT DIGEST`, where the digest is the SHA-256, in hexadecimal, of the digest before
 * (empty at first) and the word. Were one line lost, come twice or in another order, no answer after it would be right.
 * HOW says in what way the answer comes: `now`, or what the server offers besides (a timer, a child).
 */
const WRITER = `${CLIENT}
import hashlib, random
s = connect(sys.argv[1]); name = sys.argv[2].encode(); done = log(sys.argv[3]); ways = sys.argv[4].encode().split(b',')
answers = s.makefile('rb')
n = 0; digest = b''
while True:
  words = [os.urandom(random.choice((1, 100, 9000))).hex().encode() for _ in range(random.choice((1, 1, 8)))]
  s.sendall(b''.join(b'%s %s %s\\n' % (random.choice(ways), name, word) for word in words))
  for word in words:
    n += 1; digest = hashlib.sha256(digest + word).hexdigest().encode()
    answer = answers.readline()
    if answer != b'%s %d %s\\n' % (name, n, digest): fail(name, n, 'is answered', answer)
  acknowledge(done, n)
`;

export interface LedgerServer {
  /** It says "ready" when it listens. */
  readonly command: readonly string[];
  readonly directory: string;
  readonly port: number;
  /** In what ways it can be asked. */
  readonly ways: readonly string[];
}

const CLIENTS = ['u', 'v', 'w', 'x'];
const START_MS = 120_000;

/** The server is saved and brought back; its clients, over TCP, are not of its tree and never learn of it. */
export async function keepsItsLedger({ command, directory, port, ways }: LedgerServer): Promise<void> {
  const client = join(directory, 'client.py');
  writeFileSync(client, WRITER);
  using subject = Subject.start(command, directory);
  const others: Subject[] = [];
  try {
    await subject.expect(/ready/, START_MS);
    const log = (name: string) => join(directory, `acked-${name}`);
    for (const name of CLIENTS)
      others.push(
        Subject.start(['/usr/bin/python3', client, `127.0.0.1:${port}`, name, log(name), ways.join(',')]),
      );
    await survive(subject, { logs: CLIENTS.map(log), checkpoint: ['--tcp-established'], others });
    for (const { output } of others) assert.equal(output, '');
    assert.equal(subject.output, 'ready\n');
  } finally {
    await end(...others, subject);
  }
}
