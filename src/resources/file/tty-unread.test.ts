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

test('what waited in a terminal is back, and its settings are, although taking it has failed', () => {
  const { O_RDWR, O_NOCTTY } = constants;
  using master = new OwnedFd(openSync('/dev/ptmx', O_RDWR | O_NOCTTY));
  scratch.view.setInt32(0, 0, true);
  syscall('ioctl', [master.fd, TIOCSPTLCK, scratch.address]);
  using slave = new OwnedFd(syscall('ioctl', [master.fd, TIOCGPTPEER, O_RDWR | O_NOCTTY]));
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
  let duties = 0;
  // The guardian is killed when the pair has been emptied into the pipes.
  const undo = () => {
    duties++;
    if (duties === 2) throw new Error('no guardian');
    return { [Symbol.dispose]: () => undefined };
  };
  const pair = { name: 'a pair', master: master.fd, slave: slave.fd };
  assert.throws(() => takeUnread(pair, { undo } as unknown as DumpContext), /no guardian/);
  assert.deepEqual(readTermios(slave.fd), before);
  assert.equal(buffer.toString('latin1', 0, readSync(slave.fd, buffer)), 'line\n');
  assert.match(heard('output'), /^output/);
});
