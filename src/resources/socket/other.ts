import * as S from '../../abi/socket.js';
import type { FileKind } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { identify, type SocketIdentity } from '../description/identify.js';

/**
 * Sockets that no other kind knows: the kernel has no way to read the state of these (AF_VSOCK, AF_ALG, AF_XDP, SCTP, …)
 * and to make it again. They are refused by what they are called in socket(2).
 */
export const otherSocket: FileKind = {
  name: 'sockets of other families and protocols',
  support: 'nothing: refused by name (AF_VSOCK, AF_ALG, AF_XDP, AF_CAN, SCTP, DCCP, …)',
  member: 'isk',
  restores: () => false,
  recognise: (descriptor) => identify(descriptor) !== undefined,
  check(descriptor, refuse) {
    const socket = identify(descriptor);
    if (socket !== undefined) refuse(refusalOf(descriptor, reasonOf(socket), 'close it'));
  },
  dump(descriptor, _id, _taken, context) {
    const socket = identify(descriptor);
    return refuseNow(
      context,
      descriptor,
      socket === undefined ? 'it is no socket any more' : reasonOf(socket),
    );
  },
  open() {
    throw new Error('there is no entry of files.img for such a socket');
  },
};

function reasonOf({ family, type, protocol }: SocketIdentity): string {
  const isIp = family === S.AF_INET || family === S.AF_INET6;
  const names = [nameOf('AF_', family), nameOf('SOCK_', type)];
  if (isIp) names.push(nameOf('IPPROTO_', protocol));
  return `sockets of this kind (${names.join(', ')}) cannot be saved`;
}

function nameOf(prefix: string, value: number): string {
  const found = Object.entries(S).find(([name, each]) => name.startsWith(prefix) && each === value);
  return found?.[0] ?? `${prefix}${value}`;
}
