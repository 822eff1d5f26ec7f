import assert from 'node:assert/strict';
import { constants, openSync, readSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { TIOCGPTPEER, TIOCSPTLCK } from '../../abi/ioctl.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';
import type { DumpContext } from '../contract.js';
import { readTermios } from './tty-settings.js';
import { takeUnread } from './tty-unread.js';

function openPair(): { readonly master: OwnedFd; readonly slave: OwnedFd } & Disposable {
  const { O_RDWR, O_NOCTTY } = constants;
  const master = new OwnedFd(openSync('/dev/ptmx', O_RDWR | O_NOCTTY));
  scratch.view.setInt32(0, 0, true);
  syscall('ioctl', [master.fd, TIOCSPTLCK, scratch.address]);
  const slave = new OwnedFd(syscall('ioctl', [master.fd, TIOCGPTPEER, O_RDWR | O_NOCTTY]));
  return {
    master,
    slave,
    [Symbol.dispose]() {
      slave[Symbol.dispose]();
      master[Symbol.dispose]();
    },
  };
}

/** The guardian is killed when it is told of its duty of this number: the second time the pair is in the pipes. */
function failAt(number: number, { master, slave }: ReturnType<typeof openPair>): void {
  let duties = 0;
  const undo = () => {
    duties++;
    if (duties === number) throw new Error('no guardian');
    return { [Symbol.dispose]: () => undefined };
  };
  const pair = { name: 'a pair', master: master.fd, slave: slave.fd };
  assert.throws(() => takeUnread(pair, { undo } as unknown as DumpContext), /no guardian/);
}

test('ends of files that were typed are ends of files again', () => {
  using ends = openPair();
  const { master, slave } = ends;
  const typed = 'one\n\x04two\x04\x01\x16\x04\n\x04\x04xy\nz\x04';
  writeSync(master.fd, `${typed}last\n`);
  const echo = Buffer.alloc(1000);
  for (let all = ''; !all.includes('last\r\n'); )
    all += echo.toString('latin1', 0, readSync(master.fd, echo));
  failAt(2, ends);
  const buffer = Buffer.alloc(100);
  const lines: string[] = [];
  while (lines.at(-1) !== 'last\n') lines.push(buffer.toString('latin1', 0, readSync(slave.fd, buffer)));
  assert.deepEqual(lines, ['one\n', '', 'two', '\x01\x04\n', '', '', 'xy\n', 'z', 'last\n']);
});

test('what waited in a terminal is back, and its settings are, although taking it has failed', () => {
  using ends = openPair();
  const { master, slave } = ends;
  const before = readTermios(slave.fd);
  writeSync(master.fd, 'line\n');
  const buffer = Buffer.alloc(100);
  const heard = (end: string): string => {
    let all = '';
    while (!all.includes(end)) all += buffer.toString('latin1', 0, readSync(master.fd, buffer));
    return all;
  };
  // The echo says that the line discipline has it.
  assert.equal(heard('line\r\n'), 'line\r\n');
  writeSync(slave.fd, 'output');
  failAt(2, ends);
  assert.deepEqual(readTermios(slave.fd), before);
  assert.equal(buffer.toString('latin1', 0, readSync(slave.fd, buffer)), 'line\n');
  assert.match(heard('output'), /^output/);
});
