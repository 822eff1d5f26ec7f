import { AF_NETLINK } from '../../abi/socket.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_SOCK_DIAG, Netlink, NLM_F_DUMP } from '../../kernel/netlink/socket.js';

/** What sock_diag(7) says of a netlink socket: include/uapi/linux/netlink_diag.h, net/netlink/diag.c. */
export interface NetlinkDiag {
  /** NETLINK_CONNECTED 1. */
  readonly state: number;
  readonly port: number;
  readonly destinationPort: number;
  readonly destinationGroup: number;
  /** Bit n−1 of the whole: member of group n. */
  readonly groups: readonly number[];
  /** The kernel is still answering a question that has many answers. */
  readonly isAnswering: boolean;
}

const SOCK_DIAG_BY_FAMILY = 20;
const REQUEST_SIZE = 20;
const MESSAGE_SIZE = 28;
const ALL_PROTOCOLS = 255;
const NDIAG_SHOW = { groups: 2, flags: 8 } as const;
const NETLINK_DIAG = { groups: 1, flags: 4 } as const;
const CB_RUNNING = 1;

/** All netlink sockets of this network namespace that have a port or a group, by inode: one question. */
export function netlinkSockets(): ReadonlyMap<number, NetlinkDiag> {
  const request = new DataView(new ArrayBuffer(REQUEST_SIZE));
  request.setUint8(0, AF_NETLINK);
  request.setUint8(1, ALL_PROTOCOLS);
  request.setUint32(8, NDIAG_SHOW.groups | NDIAG_SHOW.flags, true);
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  const found = new Map<number, NetlinkDiag>();
  for (const { body } of netlink.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, new Uint8Array(request.buffer))) {
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    found.set(view.getUint32(16, true), parse(view, body));
  }
  return found;
}

function parse(view: DataView, body: Uint8Array): NetlinkDiag {
  const attributes = decodeAttributes(body.subarray(MESSAGE_SIZE));
  return {
    state: view.getUint8(3),
    port: view.getUint32(4, true),
    destinationPort: view.getUint32(8, true),
    destinationGroup: view.getUint32(12, true),
    groups: wordsOf(attributes.get(NETLINK_DIAG.groups)),
    isAnswering: ((wordsOf(attributes.get(NETLINK_DIAG.flags))[0] ?? 0) & CB_RUNNING) !== 0,
  };
}

/** Words of four bytes, without empty ones at the end. */
function wordsOf(bytes: Uint8Array | undefined): number[] {
  if (bytes === undefined) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const words = Array.from({ length: bytes.length >> 2 }, (_, index) => view.getUint32(index * 4, true));
  while (words.at(-1) === 0) words.pop();
  return words;
}
