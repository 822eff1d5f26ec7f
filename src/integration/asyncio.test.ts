import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keepsItsLedger } from '../testing/ledger.js';
import { SKIP_INTEGRATION } from '../testing/servers.js';

/**
 * Python's asyncio: one thread around an epoll, a socket pair that wakes it, timers, pipes from and to children, of which
 * one stays and others come and go, with a pidfd that tells when.
 */
const SERVER = `
import asyncio, hashlib, sys
LIMIT = 1 << 20
ledger = {}

async def child(word):
  process = await asyncio.create_subprocess_exec('/bin/cat', stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LIMIT)
  said, _ = await process.communicate(word)
  if process.returncode != 0: raise RuntimeError('cat ended with %d' % process.returncode)
  return said

class Worker:
  def __init__(self, process): self.process = process; self.lock = asyncio.Lock()
  async def ask(self, word):
    async with self.lock:
      self.process.stdin.write(word + b'\\n')
      return (await self.process.stdout.readline())[:-1]

async def serve(worker, reader, writer):
  try:
    while line := await reader.readline():
      how, name, word = line.split()
      if how == b'timer': await asyncio.sleep(0.005)
      elif how == b'child': word = await child(word)
      elif how == b'worker': word = await worker.ask(word)
      elif how == b'thread': word = await asyncio.to_thread(bytes, word)
      count, digest = ledger.get(name, (0, b''))
      digest = hashlib.sha256(digest + word).hexdigest().encode()
      ledger[name] = (count + 1, digest)
      writer.write(b'%s %d %s\\n' % (name, count + 1, digest)); await writer.drain()
  except Exception as error: print('FAIL', repr(error), flush=True)

async def main():
  worker = Worker(await asyncio.create_subprocess_exec('/bin/cat', stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LIMIT))
  server = await asyncio.start_server(lambda *ends: serve(worker, *ends), '127.0.0.1', int(sys.argv[1]), limit=LIMIT)
  print('ready', flush=True)
  await server.serve_forever()

# The default of Python 3.12 and later; threads before that.
if sys.version_info < (3, 12): asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
asyncio.run(main())
`;

const PORT = 9001;

test('An asyncio server under load, with children and timers', { skip: SKIP_INTEGRATION }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-asyncio-'));
  const file = join(directory, 'server.py');
  writeFileSync(file, SERVER);
  const command = ['/usr/bin/python3', file, String(PORT)];
  const ways = ['now', 'now', 'timer', 'worker', 'thread', 'child'];
  await keepsItsLedger({ command, directory, port: PORT, ways });
});
