import * as N from '../../abi/netlink.js';
import * as P from '../../abi/packet.js';
import * as S from '../../abi/socket.js';
import type { SocketIdentity } from '../description/identify.js';

/**
 * Every option with a getter and a setter that CRIU's image has no field for: net/core/sock.c sk_getsockopt,
 * net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c, net/ipv4/udp.c, net/ipv6/raw.c, net/netlink/af_netlink.c,
 * net/packet/af_packet.c. Adding one is one line. Options that have no getter cannot be known: SO_BUSY_POLL_BUDGET,
 * SO_ATTACH_REUSEPORT_*, IP_XFRM_POLICY, IP_ROUTER_ALERT, IP_MULTICAST_IF by index alone, IPV6_PKTINFO, IPV6_MTU.
 */
export interface OptionSpec {
  /** As in the kernel's headers; the key in the image. */
  readonly name: string;
  readonly level: number;
  readonly option: number;
  /** The most bytes it can have. */
  readonly length: number;
  /** Which sockets have it. */
  readonly of: (socket: SocketIdentity) => boolean;
  /** Set before the socket gets its address, and its device: some are not taken any more then. */
  readonly isEarly?: true;
  /** Only a hint, or not to be set on every host: a failure is no obstacle. */
  readonly isHint?: true;
  /** Number of an interface, in the host's order or the network's; the image has its name. */
  readonly device?: 'host' | 'network';
  /** It can be read, but not set to what it was: such a socket is refused. */
  readonly refused?: string;
}

type More = Omit<Partial<OptionSpec>, 'name' | 'level' | 'option' | 'of'>;
type Row = readonly [name: string, option: number, more?: More];

const EARLY: More = { isEarly: true };
const bytes = (length: number, more: More = {}): More => ({ length, ...more });

function rows(level: number, of: OptionSpec['of'], table: readonly Row[]): OptionSpec[] {
  return table.map(([name, option, more]) => ({ name, level, option, of, length: 4, ...more }));
}

const isAny = (): boolean => true;
const isV4 = ({ family }: SocketIdentity): boolean => family === S.AF_INET;
const isV6 = ({ family }: SocketIdentity): boolean => family === S.AF_INET6;
/** Sockets of IPv6 take options of IPv4, for peers with mapped addresses; not so raw ones. */
const takesV4 = (socket: SocketIdentity): boolean =>
  isV4(socket) || (isV6(socket) && socket.type !== S.SOCK_RAW);
/** Streams know nothing of these. */
const isDatagram = ({ type }: SocketIdentity): boolean => type !== S.SOCK_STREAM;
const isUdp = ({ type, protocol }: SocketIdentity): boolean =>
  type === S.SOCK_DGRAM && (protocol === S.IPPROTO_UDP || protocol === S.IPPROTO_UDPLITE);
const isUdpLite = (socket: SocketIdentity): boolean => isUdp(socket) && socket.protocol === S.IPPROTO_UDPLITE;
const isRaw6 = (socket: SocketIdentity): boolean => isV6(socket) && socket.type === S.SOCK_RAW;

const SOCKET_ROWS = rows(S.SOL_SOCKET, isAny, [
  ['SO_DEBUG', S.SO_DEBUG],
  ['SO_TIMESTAMP', S.SO_TIMESTAMP],
  ['SO_TIMESTAMPNS', S.SO_TIMESTAMPNS],
  ['SO_TIMESTAMP_NEW', S.SO_TIMESTAMP_NEW],
  ['SO_TIMESTAMPNS_NEW', S.SO_TIMESTAMPNS_NEW],
  ['SO_TIMESTAMPING', S.SO_TIMESTAMPING, bytes(8)],
  ['SO_RXQ_OVFL', S.SO_RXQ_OVFL],
  ['SO_WIFI_STATUS', S.SO_WIFI_STATUS],
  ['SO_NOFCS', S.SO_NOFCS],
  ['SO_SELECT_ERR_QUEUE', S.SO_SELECT_ERR_QUEUE],
  ['SO_BUSY_POLL', S.SO_BUSY_POLL],
  ['SO_PREFER_BUSY_POLL', S.SO_PREFER_BUSY_POLL],
  ['SO_MAX_PACING_RATE', S.SO_MAX_PACING_RATE, bytes(8)],
  ['SO_INCOMING_CPU', S.SO_INCOMING_CPU],
  ['SO_ZEROCOPY', S.SO_ZEROCOPY, { isHint: true }],
  ['SO_TXTIME', S.SO_TXTIME, bytes(8)],
  ['SO_RESERVE_MEM', S.SO_RESERVE_MEM, { isHint: true }],
  ['SO_TXREHASH', S.SO_TXREHASH, { isHint: true }],
  ['SO_RCVMARK', S.SO_RCVMARK],
  ['SO_RCVPRIORITY', S.SO_RCVPRIORITY],
  ['SO_PASSPIDFD', S.SO_PASSPIDFD],
  ['SO_PASSRIGHTS', S.SO_PASSRIGHTS],
]);

const V4_ROWS = rows(S.SOL_IP, takesV4, [
  ['IP_TRANSPARENT', S.IP_TRANSPARENT, EARLY],
  ['IP_BIND_ADDRESS_NO_PORT', S.IP_BIND_ADDRESS_NO_PORT, EARLY],
  ['IP_LOCAL_PORT_RANGE', S.IP_LOCAL_PORT_RANGE, EARLY],
  ['IP_OPTIONS', S.IP_OPTIONS, bytes(40)],
  ['IP_RECVOPTS', S.IP_RECVOPTS],
  ['IP_RETOPTS', S.IP_RETOPTS],
  ['IP_RECVTTL', S.IP_RECVTTL],
  ['IP_RECVTOS', S.IP_RECVTOS],
  ['IP_PASSSEC', S.IP_PASSSEC],
  ['IP_RECVORIGDSTADDR', S.IP_RECVORIGDSTADDR],
  ['IP_CHECKSUM', S.IP_CHECKSUM],
  ['IP_RECVFRAGSIZE', S.IP_RECVFRAGSIZE],
  ['IP_MTU_DISCOVER', S.IP_MTU_DISCOVER],
  ['IP_RECVERR', S.IP_RECVERR],
  ['IP_RECVERR_RFC4884', S.IP_RECVERR_RFC4884],
  ['IP_MINTTL', S.IP_MINTTL],
  ['IP_UNICAST_IF', S.IP_UNICAST_IF, { device: 'network', isEarly: true }],
]);

const MULTICAST_ROWS = [
  ...rows(S.SOL_IP, (socket) => takesV4(socket) && isDatagram(socket), [
    ['IP_MULTICAST_TTL', S.IP_MULTICAST_TTL],
    ['IP_MULTICAST_LOOP', S.IP_MULTICAST_LOOP],
    ['IP_MULTICAST_ALL', S.IP_MULTICAST_ALL],
    ['IP_MULTICAST_IF', S.IP_MULTICAST_IF, EARLY],
  ]),
  ...rows(S.SOL_IPV6, (socket) => isV6(socket) && isDatagram(socket), [
    ['IPV6_MULTICAST_IF', S.IPV6_MULTICAST_IF, { device: 'host', isEarly: true }],
    ['IPV6_MULTICAST_HOPS', S.IPV6_MULTICAST_HOPS],
    ['IPV6_MULTICAST_LOOP', S.IPV6_MULTICAST_LOOP],
    ['IPV6_MULTICAST_ALL', S.IPV6_MULTICAST_ALL],
  ]),
];

/** Those of IPv4 that CRIU's image has for sockets of IPv4 only. */
const MAPPED_ROWS = rows(S.SOL_IP, (socket) => isV6(socket) && takesV4(socket), [
  ['IP_PKTINFO', S.IP_PKTINFO],
  ['IP_TOS', S.IP_TOS],
  ['IP_TTL', S.IP_TTL],
]);

/** The kernel limits sticky headers to this, together (net/ipv6/exthdrs.c). */
const HEADER_MAX = 2048;

const V6_ROWS = rows(S.SOL_IPV6, isV6, [
  ['IPV6_2292PKTINFO', S.IPV6_2292PKTINFO],
  ['IPV6_2292HOPOPTS', S.IPV6_2292HOPOPTS],
  ['IPV6_2292DSTOPTS', S.IPV6_2292DSTOPTS],
  ['IPV6_2292RTHDR', S.IPV6_2292RTHDR],
  ['IPV6_2292HOPLIMIT', S.IPV6_2292HOPLIMIT],
  ['IPV6_FLOWINFO', S.IPV6_FLOWINFO],
  ['IPV6_FLOWINFO_SEND', S.IPV6_FLOWINFO_SEND],
  ['IPV6_UNICAST_HOPS', S.IPV6_UNICAST_HOPS],
  ['IPV6_UNICAST_IF', S.IPV6_UNICAST_IF, { device: 'network', isEarly: true }],
  [
    'IPV6_ROUTER_ALERT',
    S.IPV6_ROUTER_ALERT,
    { refused: 'it takes router alerts (IPV6_ROUTER_ALERT), and which ones the kernel does not show' },
  ],
  ['IPV6_ROUTER_ALERT_ISOLATE', S.IPV6_ROUTER_ALERT_ISOLATE],
  ['IPV6_MTU_DISCOVER', S.IPV6_MTU_DISCOVER],
  ['IPV6_RECVERR', S.IPV6_RECVERR],
  ['IPV6_RECVERR_RFC4884', S.IPV6_RECVERR_RFC4884],
  ['IPV6_RECVHOPLIMIT', S.IPV6_RECVHOPLIMIT],
  ['IPV6_RECVHOPOPTS', S.IPV6_RECVHOPOPTS],
  ['IPV6_RECVRTHDR', S.IPV6_RECVRTHDR],
  ['IPV6_RECVDSTOPTS', S.IPV6_RECVDSTOPTS],
  ['IPV6_RECVPATHMTU', S.IPV6_RECVPATHMTU],
  ['IPV6_RECVTCLASS', S.IPV6_RECVTCLASS],
  ['IPV6_RECVORIGDSTADDR', S.IPV6_RECVORIGDSTADDR],
  ['IPV6_RECVFRAGSIZE', S.IPV6_RECVFRAGSIZE],
  ['IPV6_HOPOPTS', S.IPV6_HOPOPTS, bytes(HEADER_MAX)],
  ['IPV6_RTHDRDSTOPTS', S.IPV6_RTHDRDSTOPTS, bytes(HEADER_MAX)],
  ['IPV6_RTHDR', S.IPV6_RTHDR, bytes(HEADER_MAX)],
  ['IPV6_DSTOPTS', S.IPV6_DSTOPTS, bytes(HEADER_MAX)],
  ['IPV6_DONTFRAG', S.IPV6_DONTFRAG],
  ['IPV6_TCLASS', S.IPV6_TCLASS],
  ['IPV6_AUTOFLOWLABEL', S.IPV6_AUTOFLOWLABEL],
  ['IPV6_ADDR_PREFERENCES', S.IPV6_ADDR_PREFERENCES],
  ['IPV6_MINHOPCOUNT', S.IPV6_MINHOPCOUNT],
]);

const UDP_ROWS = [
  ...rows(S.SOL_UDP, isUdp, [
    ['UDP_CORK', S.UDP_CORK],
    ['UDP_ENCAP', S.UDP_ENCAP],
    ['UDP_NO_CHECK6_TX', S.UDP_NO_CHECK6_TX],
    ['UDP_NO_CHECK6_RX', S.UDP_NO_CHECK6_RX],
    ['UDP_SEGMENT', S.UDP_SEGMENT],
    ['UDP_GRO', S.UDP_GRO],
  ]),
  ...rows(S.SOL_UDPLITE, isUdpLite, [
    ['UDPLITE_SEND_CSCOV', S.UDPLITE_SEND_CSCOV],
    ['UDPLITE_RECV_CSCOV', S.UDPLITE_RECV_CSCOV],
  ]),
  ...rows(S.SOL_RAW, isRaw6, [['IPV6_CHECKSUM', S.IPV6_CHECKSUM]]),
];

const isNetlink = ({ family }: SocketIdentity): boolean => family === S.AF_NETLINK;
const isPacket = ({ family }: SocketIdentity): boolean => family === S.AF_PACKET;

const NETLINK_ROWS = rows(S.SOL_NETLINK, isNetlink, [
  ['NETLINK_PKTINFO', N.NETLINK_PKTINFO],
  ['NETLINK_BROADCAST_ERROR', N.NETLINK_BROADCAST_ERROR],
  ['NETLINK_NO_ENOBUFS', N.NETLINK_NO_ENOBUFS],
  ['NETLINK_LISTEN_ALL_NSID', N.NETLINK_LISTEN_ALL_NSID],
  ['NETLINK_CAP_ACK', N.NETLINK_CAP_ACK],
  ['NETLINK_EXT_ACK', N.NETLINK_EXT_ACK],
  ['NETLINK_GET_STRICT_CHK', N.NETLINK_GET_STRICT_CHK],
]);

/** Before the rings are there, which most of them are not taken after. */
const PACKET_ROWS = rows(S.SOL_PACKET, isPacket, [
  ['PACKET_VNET_HDR_SZ', P.PACKET_VNET_HDR_SZ, EARLY],
  ['PACKET_TX_HAS_OFF', P.PACKET_TX_HAS_OFF, EARLY],
  ['PACKET_QDISC_BYPASS', P.PACKET_QDISC_BYPASS, EARLY],
  ['PACKET_IGNORE_OUTGOING', P.PACKET_IGNORE_OUTGOING, EARLY],
]);

/** What would keep other settings out, or looks at the queue as it is in the end. */
const LAST_ROWS = [
  ...rows(S.SOL_SOCKET, isUdp, [['SO_PEEK_OFF', S.SO_PEEK_OFF]]),
  ...rows(S.SOL_SOCKET, isAny, [['SO_LOCK_FILTER', S.SO_LOCK_FILTER]]),
];

/** In the order in which they are set. */
export const OPTIONS: readonly OptionSpec[] = [
  ...SOCKET_ROWS,
  ...V4_ROWS,
  ...MULTICAST_ROWS,
  ...MAPPED_ROWS,
  ...V6_ROWS,
  ...UDP_ROWS,
  ...NETLINK_ROWS,
  ...PACKET_ROWS,
  ...LAST_ROWS,
];

export const OPTION_BY_NAME: ReadonlyMap<string, OptionSpec> = new Map(
  OPTIONS.map((spec) => [spec.name, spec]),
);
