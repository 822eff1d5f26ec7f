import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENT, end, SKIP_INTEGRATION, survive } from '../testing/servers.js';
import { Subject } from '../testing/subject.js';

/**
 * OpenSSH's server with open sessions: a listener, a process for each session, a shell in a terminal whose master is
 * sshd's, a shell at the end of pipes. The clients, over TCP, are not of its tree; they exchange keys anew all the time.
 */
const TYPIST = `${CLIENT}
import random, re, subprocess
terminal, done, ssh = sys.argv[1] == 'terminal', log(sys.argv[2]), sys.argv[3:]
# No prompt, no echo, no lines that are edited: what comes back is what the commands say.
p = subprocess.Popen(ssh + ['-tt' if terminal else '-T', '127.0.0.1', 'exec bash --norc --noprofile --noediting' + (' -i' if terminal else ' 2>&1')], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
def type(text): p.stdin.write(text.encode() + b'\\n')
seen = ''
# Said when the wait is too long.
signal.signal(signal.SIGALRM, lambda *_: fail('write', n, 'waits for', wanted, 'and sees', repr(seen)))
def shows(pattern):
  global seen, wanted
  wanted = pattern
  while not (found := re.search(pattern, seen)):
    more = os.read(p.stdout.fileno(), 65536)
    if not more: fail('the session has ended after', seen)
    seen += more.decode()
  seen = seen[found.end():]; return found
if terminal: type("PS1= PS2=; stty -echo -onlcr rows 33 cols 111; sleep 1000000 &")
type('echo be''gin; x=0'); shows('begin')
if terminal: type('tty'); mine = shows('(/dev/pts/\\\\d+)\\\\n')[1]
n = 0
while True:
  n += 1
  word = os.urandom(random.choice((1, 100, 500))).hex()
  type('x=$((x+1)); echo "<$x:%s>"' % word)
  answer = shows('<(\\\\d+):([0-9a-f]*)>')
  if answer[1] != str(n) or answer[2] != word: fail(n, word, 'is answered', answer[0])
  if n % 5 == 0:
    type("seq 1 5000 | tr '\\\\n' ,; echo .")
    if shows('([0-9,]+)\\\\.')[1] != ''.join('%d,' % i for i in range(1, 5001)): fail('another sequence')
  if terminal and n % 5 == 1:
    type('stty size; tty; jobs -r')
    if shows('(\\\\d+ \\\\d+)\\\\n')[1] != '33 111': fail('another size')
    if shows('(/dev/pts/\\\\d+)\\\\n')[1] != mine: fail('another terminal')
    shows('Running +sleep 1000000')
  if terminal and n % 5 == 2:
    # A job of the foreground, which the keyboard interrupts. It says by itself that it has begun: what SIGINT does to a
    # shell that is about to execute something is to be forgotten.
    type('cat'); type('job'); shows('job'); type('\\x03'); type('echo "status $?."'); shows('status 130\\\\.')
  acknowledge(done, n)
`;

const CLIENTS = { a: 'terminal', b: 'terminal', c: 'pipes' };
const PORT = 2222;

/** Keys of its own for both ends; answers the words of a client's command. */
function setUp(directory: string): readonly string[] {
  for (const name of ['host', 'user'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(directory, name)]);
  copyFileSync(join(directory, 'user.pub'), join(directory, 'authorized'));
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const config = {
    Port: PORT,
    ListenAddress: '127.0.0.1',
    HostKey: `${directory}/host`,
    AuthorizedKeysFile: `${directory}/authorized`,
    PidFile: `${directory}/pid`,
    // It lies below /tmp, which is everybody's.
    StrictModes: 'no',
    UsePAM: 'no',
    PermitRootLogin: 'yes',
    PrintMotd: 'no',
    PrintLastLog: 'no',
    RekeyLimit: '1M',
  };
  const lines = Object.entries(config).map(([name, value]) => `${name} ${value}\n`);
  writeFileSync(join(directory, 'config'), lines.join(''));
  writeFileSync(join(directory, 'client.py'), TYPIST);
  const options = {
    IdentitiesOnly: 'yes',
    UserKnownHostsFile: '/dev/null',
    StrictHostKeyChecking: 'no',
    LogLevel: 'ERROR',
    RekeyLimit: '1M',
  };
  return [
    'ssh',
    '-F',
    '/dev/null',
    '-l',
    'root',
    '-p',
    String(PORT),
    '-i',
    join(directory, 'user'),
    ...Object.entries(options).map(([name, value]) => `-o${name}=${value}`),
  ];
}

test('sshd with open sessions', { skip: SKIP_INTEGRATION }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-sshd-'));
  const ssh = setUp(directory);
  using subject = Subject.start(['/usr/sbin/sshd', '-D', '-e', '-f', join(directory, 'config')], directory);
  const others: Subject[] = [];
  try {
    await subject.expect(/listening on/, 60_000);
    for (const [name, kind] of Object.entries(CLIENTS)) {
      const log = join(directory, `acked-${name}`);
      others.push(Subject.start(['/usr/bin/python3', join(directory, 'client.py'), kind, log, ...ssh]));
    }
    const logs = Object.keys(CLIENTS).map((name) => join(directory, `acked-${name}`));
    await survive(subject, { logs, checkpoint: ['--tcp-established'], others });
    for (const { output } of others) assert.equal(output, '');
  } finally {
    await end(...others, subject);
  }
});
