/** Signatures of the calls on sockets. */
import { constants, dependent, fd, flagSet, flags, int, one, pointer, size } from './argument.js';
import * as socket from './socket.js';

const FAMILIES = constants(socket, /^AF_/);
const TYPES = constants(socket, /^SOCK_(?!NONBLOCK|CLOEXEC|TYPE_MASK)/);
const TYPE_FLAGS = flagSet(socket, /^SOCK_(NONBLOCK|CLOEXEC)$/);
const PROTOCOLS = constants(socket, /^IPPROTO_/);
const LEVELS = constants(socket, /^SOL_/);
const MESSAGE_FLAGS = flags('flags', flagSet(socket, /^MSG_/));
const create = [one('domain', FAMILIES), one('type', TYPES, TYPE_FLAGS), one('protocol', PROTOCOLS)] as const;
const addressIn = [fd('sockfd'), pointer('addr'), size('addrlen')] as const;
const addressOut = [fd('sockfd'), pointer('addr'), pointer('addrlen')] as const;
const buffer = [fd('sockfd'), pointer('buf'), size('len'), MESSAGE_FLAGS] as const;
/** By the level: SOL_IP and SOL_TCP have values of their own, as every protocol. */
const OPTION_NAME = dependent(int('optname'), 1, {
  [socket.SOL_SOCKET]: one('optname', constants(socket, /^SO_/)),
  [socket.SOL_IP]: one('optname', constants(socket, /^IP_/)),
  [socket.SOL_IPV6]: one('optname', constants(socket, /^IPV6_/)),
  [socket.SOL_TCP]: one(
    'optname',
    constants(socket, /^TCP_(?!REPAIR_O(N|FF)|\w+_QUEUE$)|^TCP_REPAIR_QUEUE$/),
  ),
});
const option = [fd('sockfd'), one('level', LEVELS), OPTION_NAME, pointer('optval')] as const;

export const SOCKET_SIGNATURES = {
  socket: create,
  socketpair: [...create, pointer('sv')],
  bind: addressIn,
  connect: addressIn,
  listen: [fd('sockfd'), int('backlog')],
  accept: addressOut,
  accept4: [...addressOut, flags('flags', TYPE_FLAGS)],
  getsockname: addressOut,
  getpeername: addressOut,
  setsockopt: [...option, size('optlen')],
  getsockopt: [...option, pointer('optlen')],
  sendto: [...buffer, pointer('dest_addr'), size('addrlen')],
  recvfrom: [...buffer, pointer('src_addr'), pointer('addrlen')],
  sendmsg: [fd('sockfd'), pointer('msg'), MESSAGE_FLAGS],
  recvmsg: [fd('sockfd'), pointer('msg'), MESSAGE_FLAGS],
  sendmmsg: [fd('sockfd'), pointer('msgvec'), size('vlen'), MESSAGE_FLAGS],
  recvmmsg: [fd('sockfd'), pointer('msgvec'), size('vlen'), MESSAGE_FLAGS, pointer('timeout')],
  shutdown: [fd('sockfd'), one('how', constants(socket, /^SHUT_/))],
} as const;
