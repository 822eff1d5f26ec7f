import * as S from '../../abi/socket.js';
import type { inet_sk_entry, MessageOf } from '../../image/index.js';
import { words } from '../../kernel/words.js';
import type { Holder, Result, Tape } from '../contract.js';
import { restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { bindInet, type InetAddress, imageAddress, isAny } from './inet-address.js';
import { restoreIpOptions } from './ip-options.js';
import { unlockImage } from './lock-restore.js';
import { restoreEarlyMore, restoreLateMore } from './more-options.js';
import { setNumber } from './option-bytes.js';
import { restoreEarlyOptions, restoreLateOptions } from './options.js';
import { openConnection, openReset, streamOf } from './tcp-connection.js';
import { TCP } from './tcp-diag.js';
import { readExtras, restoreExtra } from './tcp-extra.js';
import { isConnected } from './tcp-silence.js';

/** TCP sockets on the holder's tape; connections are made by tcp-connection.ts. */
export function openTcp(socket: inet_sk_entry, holder: Holder): Result {
  const { tape } = holder;
  const { family, id } = socket;
  const fd = tape.call('socket', [family, S.SOCK_STREAM | S.SOCK_CLOEXEC, socket.proto]);
  restoreEarlyMore(holder, id, fd);
  const local = imageAddress(family, socket.srcPort, socket.srcAddr, id);
  if (Object.hasOwn(socket, 'v6only')) setNumber(tape, fd, S.SOL_IPV6, S.IPV6_V6ONLY, Number(socket.v6only));
  if (socket.ipOpts !== undefined) restoreIpOptions(tape, fd, family, socket.ipOpts);
  if (socket.opts !== undefined) restoreEarlyOptions(tape, fd, socket.opts);
  if (isConnected(socket.state)) unlockImage(holder);
  const stream = staysConnected(socket, holder) ? streamOf(socket, holder) : undefined;
  if (stream !== undefined) {
    openConnection(socket, local, stream, fd, holder);
    if (socket.shutdown === 1) tape.call('shutdown', [fd, S.SHUT_RD]);
  } else if (socket.state === TCP.close || isConnected(socket.state)) openClosed(socket, local, fd, holder);
  else openListener(socket, local, fd, holder);
  restoreTcpOptions(socket, stream?.message, fd, tape);
  restoreExtra(tape, fd, extras(holder).get(id));
  if (socket.opts !== undefined) restoreLateOptions(tape, fd, socket.opts);
  restoreLateMore(holder, id, fd);
  setStatusFlags(tape, fd, socket.flags);
  restoreOwner(`file:${id}`, socket.fown, holder);
  return fd;
}

const extras = perRestore(({ reader }) => readExtras(reader));

/** Asked for it, the socket tells its error once. */
function forgetError(fd: Result, tape: Tape): void {
  const value = tape.space(words([0]));
  tape.call('getsockopt', [fd, S.SOL_SOCKET, S.SO_ERROR, value, tape.space(words([4]))]);
}

function staysConnected({ state }: inet_sk_entry, holder: Holder): boolean {
  return isConnected(state) && holder.options.tcpClose !== true && !wasCut(holder);
}

/** Was the image made without its connections? */
const wasCut = perRestore(({ reader }) => reader.readOptional('inventory')?.[0]?.tcpClose === true);

/** Sockets of one port may be bound in any order if all allow it; what each wants comes when all are. */
function bindShared(socket: inet_sk_entry, local: InetAddress, fd: Result, holder: Holder): void {
  const { tape } = holder;
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_REUSEADDR, 1);
  if (sharesPort(socket, holder)) setNumber(tape, fd, S.SOL_SOCKET, S.SO_REUSEPORT, 1);
  bindInet(tape, fd, local, socket.ipOpts?.freebind === true);
}

function openListener(socket: inet_sk_entry, local: InetAddress, fd: Result, holder: Holder): void {
  bindShared(socket, local, fd, holder);
  holder.tape.call('listen', [fd, socket.backlog]);
}

/**
 * A socket that was connected has no port any more, though it remembers it, and both directions are shut down. So has one
 * whose connection is left out.
 */
function openClosed(socket: inet_sk_entry, local: InetAddress, fd: Result, holder: Holder): void {
  const { tape } = holder;
  if (isConnected(socket.state) || socket.shutdown !== 0) {
    const stream = socket.state === TCP.close ? streamOf(socket, holder) : undefined;
    const extra = extras(holder).get(socket.id);
    const { family, id } = socket;
    if (extra?.local !== undefined && (stream !== undefined || extra.hasError === true)) {
      const old = imageAddress(family, extra.local.port, extra.local.words, id);
      openReset(socket, old, stream, fd, holder);
      if (extra.hasError !== true) forgetError(fd, tape);
    }
    // It says ENOTCONN, and does it (net/ipv4/af_inet.c inet_shutdown).
    else tape.call('shutdown', [fd, isConnected(socket.state) ? S.SHUT_RDWR : socket.shutdown - 1], 'any');
  } else if (local.port !== 0 || !isAny(local.words)) bindShared(socket, local, fd, holder);
}

/** When all are bound: the last words on the sharing of ports. Connections lose SO_REUSEADDR once more with repair mode. */
export function settleTcp(socket: inet_sk_entry, holder: Holder): void {
  if (staysConnected(socket, holder)) return;
  const { tape } = holder;
  const slot = holder.slot(`file:${socket.id}`);
  setNumber(tape, slot, S.SOL_SOCKET, S.SO_REUSEADDR, socket.opts?.reuseaddr === true ? 1 : 0);
  if (sharesPort(socket, holder) && socket.opts?.soReuseport !== true)
    setNumber(tape, slot, S.SOL_SOCKET, S.SO_REUSEPORT, 0);
}

/** Ports that several listeners, or sockets that may become such, have. */
const sharedPorts = perRestore(({ reader }) => {
  const once = new Set<number>();
  const shared = new Set<number>();
  for (const { isk } of reader.read('files')) {
    if (isk === undefined || isk.proto !== S.IPPROTO_TCP || isk.srcPort === 0 || isConnected(isk.state))
      continue;
    if (once.has(isk.srcPort)) shared.add(isk.srcPort);
    once.add(isk.srcPort);
  }
  return shared;
});

function sharesPort({ srcPort, state }: inet_sk_entry, holder: Holder): boolean {
  return !isConnected(state) && sharedPorts(holder).has(srcPort);
}

function restoreTcpOptions(
  socket: inet_sk_entry,
  stream: MessageOf<'tcp-stream'> | undefined,
  fd: Result,
  tape: Tape,
): void {
  const { tcpOpts } = socket;
  const set = (option: number, value: number): void => setNumber(tape, fd, S.SOL_TCP, option, value);
  if (tcpOpts !== undefined) {
    if (Object.hasOwn(tcpOpts, 'keepcnt')) set(S.TCP_KEEPCNT, tcpOpts.keepcnt);
    if (Object.hasOwn(tcpOpts, 'keepidle')) set(S.TCP_KEEPIDLE, tcpOpts.keepidle);
    if (Object.hasOwn(tcpOpts, 'keepintvl')) set(S.TCP_KEEPINTVL, tcpOpts.keepintvl);
  }
  if (tcpOpts?.nodelay === true || stream?.nodelay === true) set(S.TCP_NODELAY, 1);
  if (tcpOpts?.cork === true || stream?.cork === true) set(S.TCP_CORK, 1);
}
