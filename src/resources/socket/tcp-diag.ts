import { AF_INET, AF_INET6, IPPROTO_TCP } from '../../abi/socket.js';
import { fromCString } from '../../kernel/c-string.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_SOCK_DIAG, Netlink, NLM_F_DUMP } from '../../kernel/netlink/socket.js';
import type { InetAddress } from './inet-address.js';
import type { Connection } from './lock-table.js';

/**
 * What sock_diag(7) says of the TCP sockets of this network namespace, all at once: include/uapi/linux/inet_diag.h,
 * net/ipv4/inet_diag.c. Sockets that are neither bound nor connected are not in it.
 */
export interface TcpDiag extends Connection {
  readonly family: number;
  readonly state: number;
  /** 0 for connections that nobody has a descriptor of: not yet accepted, or already closed. */
  readonly inode: number;
  /** Of a listener: connections that wait to be accepted. */
  readonly receiveQueue: number;
  /** Of a listener: how many may wait. Of others: bytes that their peers have not said to have. */
  readonly sendQueue: number;
  /** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
  readonly shutdown: number;
  readonly v6only: boolean;
  readonly congestion: string;
  readonly hasMd5: boolean;
  /** What has been put on top of TCP: "tls", "mptcp". */
  readonly upperLayer: string | undefined;
}

/** include/net/tcp_states.h */
export const TCP = {
  established: 1,
  synSent: 2,
  synReceived: 3,
  finWait1: 4,
  finWait2: 5,
  timeWait: 6,
  close: 7,
  closeWait: 8,
  lastAck: 9,
  listen: 10,
  closing: 11,
  newSynReceived: 12,
} as const;

const SOCK_DIAG_BY_FAMILY = 20;
const REQUEST_SIZE = 56;
const MESSAGE_SIZE = 72;
const ATTRIBUTE = { congestion: 4, shutdown: 8, v6only: 11, md5: 18, upperLayer: 19 } as const;
const ULP_NAME = 1;
const EXTENSIONS = (1 << (ATTRIBUTE.congestion - 1)) | (1 << (ATTRIBUTE.shutdown - 1));
const ALL_STATES = 0xffff_ffff;

export function tcpDiags(): TcpDiag[] {
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  return [AF_INET, AF_INET6].flatMap((family) => {
    const request = new DataView(new ArrayBuffer(REQUEST_SIZE));
    request.setUint8(0, family);
    request.setUint8(1, IPPROTO_TCP);
    request.setUint8(2, EXTENSIONS);
    request.setUint32(4, ALL_STATES, true);
    const answers = netlink.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, new Uint8Array(request.buffer));
    return answers.map(({ body }) => parse(body));
  });
}

function parse(body: Uint8Array): TcpDiag {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const family = view.getUint8(0);
  const addressAt = (port: number, at: number): InetAddress => {
    const words = family === AF_INET ? [at] : [at, at + 4, at + 8, at + 12];
    const scope = family === AF_INET ? 0 : view.getUint32(40, true);
    return { family, port, words: words.map((word) => view.getUint32(word, true)), scope };
  };
  const attributes = decodeAttributes(body.subarray(MESSAGE_SIZE));
  const upper = attributes.get(ATTRIBUTE.upperLayer);
  return {
    family,
    state: view.getUint8(1),
    local: addressAt(view.getUint16(4, false), 8),
    remote: addressAt(view.getUint16(6, false), 24),
    receiveQueue: view.getUint32(56, true),
    sendQueue: view.getUint32(60, true),
    inode: view.getUint32(68, true),
    shutdown: attributes.get(ATTRIBUTE.shutdown)?.[0] ?? 0,
    v6only: (attributes.get(ATTRIBUTE.v6only)?.[0] ?? 0) !== 0,
    congestion: fromCString(attributes.get(ATTRIBUTE.congestion)),
    hasMd5: (attributes.get(ATTRIBUTE.md5)?.length ?? 0) > 0,
    upperLayer: upper === undefined ? undefined : fromCString(decodeAttributes(upper).get(ULP_NAME)),
  };
}
