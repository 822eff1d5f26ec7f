import { __WALL } from '../../abi/process.js';
import * as S from '../../abi/socket.js';
import { words } from '../../kernel/words.js';
import { cloneArguments } from '../../tape/clone.js';
import type { Holder, Space } from '../contract.js';
import type { QueuedPacket } from './unix-model.js';

/** sendmsg(2) of one packet, with what is in flight in it. */
const MSGHDR = { size: 56, name: 0, nameLength: 8, iov: 16, iovCount: 24, control: 32, controlLength: 40 };
const CMSG_HEADER = 16;

export function send(
  fd: number,
  packet: QueuedPacket,
  to: readonly [Space, number] | undefined,
  holder: Holder,
): void {
  const { tape } = holder;
  const header = new Uint8Array(MSGHDR.size);
  const view = new DataView(header.buffer);
  const control = controlOf(packet, holder);
  view.setBigUint64(MSGHDR.iovCount, 1n, true);
  view.setUint32(MSGHDR.nameLength, to?.[1] ?? 0, true);
  view.setBigUint64(MSGHDR.controlLength, BigInt(control.length), true);
  const iov = new Uint8Array(16);
  new DataView(iov.buffer).setBigUint64(8, BigInt(packet.bytes.length), true);
  const [message, iovSpace] = [tape.space(header), tape.space(iov)];
  tape.pointer(message, MSGHDR.iov, iovSpace);
  tape.pointer(iovSpace, 0, tape.space(packet.bytes));
  if (to !== undefined) tape.pointer(message, MSGHDR.name, to[0]);
  if (control.length > 0) tape.pointer(message, MSGHDR.control, tape.space(control));
  const flags = S.MSG_DONTWAIT | S.MSG_NOSIGNAL;
  withSender(packet, holder, () => tape.call('sendmsg', [fd, message, flags], packet.bytes.length));
}

/** SCM_RIGHTS by the holder's own numbers, and SCM_CREDENTIALS, which only the privileged may make up. */
function controlOf({ rights, sender }: QueuedPacket, holder: Holder): Uint8Array {
  const parts: [type: number, values: readonly number[]][] = [];
  if (rights.length > 0) parts.push([S.SCM_RIGHTS, rights.map((id) => holder.slot(`file:${id}`))]);
  if (sender !== undefined && sender[0] > 0) parts.push([S.SCM_CREDENTIALS, sender]);
  const sizes = parts.map(([, values]) => CMSG_HEADER + ((values.length * 4 + 7) & ~7));
  const bytes = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  parts.forEach(([type, values], index) => {
    view.setBigUint64(at, BigInt(CMSG_HEADER + values.length * 4), true);
    view.setInt32(at + 8, S.SOL_SOCKET, true);
    view.setInt32(at + 12, type, true);
    bytes.set(words(values), at + CMSG_HEADER);
    at += sizes[index] ?? 0;
  });
  return bytes;
}

/**
 * The pid of credentials has to be somebody's (net/core/scm.c __scm_send). Who is gone is there once more while it is
 * sent: a child that has ended, and is not waited for yet. Where the pid is taken, that will do.
 */
function withSender({ sender }: QueuedPacket, holder: Holder, act: () => void): void {
  if (sender === undefined || sender[0] <= 0) {
    act();
    return;
  }
  const { tape } = holder;
  tape.clone(cloneArguments(tape, 0, { tid: sender[0] }), () => undefined, 'any');
  act();
  tape.call('wait4', [sender[0], 0, __WALL, 0], 'any');
}
