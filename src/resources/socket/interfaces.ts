import { SIOCGIFINDEX, SIOCGIFNAME } from '../../abi/ioctl.js';
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from '../../abi/socket.js';
import { fromCString } from '../../kernel/c-string.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';

/** netdevice(7): numbers of interfaces are only of one boot of one network namespace; images have their names. */
const IFNAMSIZ = 16;
const IFREQ_SIZE = 40;

/** "eth0"; undefined where there is no such interface (any more). */
export function interfaceName(index: number): string | undefined {
  scratch.bytes.fill(0, 0, IFREQ_SIZE);
  scratch.view.setInt32(IFNAMSIZ, index, true);
  if (ask(SIOCGIFNAME) < 0) return undefined;
  return fromCString(scratch.bytes.subarray(0, IFNAMSIZ));
}

/** Undefined where this network namespace has none of that name. */
export function interfaceIndex(name: string): number | undefined {
  scratch.bytes.fill(0, 0, IFREQ_SIZE);
  scratch.bytes.set(Buffer.from(name).subarray(0, IFNAMSIZ - 1));
  return ask(SIOCGIFINDEX) < 0 ? undefined : scratch.view.getInt32(IFNAMSIZ, true);
}

function ask(request: number): number {
  using socket = new OwnedFd(syscall('socket', [AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0]));
  return attempt('ioctl', [socket.fd, request, scratch.address]);
}

/** As `interfaceIndex`, for an image. Throws Error with what would help. */
export function mustHaveInterface(name: string, whose: string): number {
  const index = interfaceIndex(name);
  if (index !== undefined) return index;
  throw new Error(`${whose} needs an interface ${name}, which this network namespace does not have`);
}
