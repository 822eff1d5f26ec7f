/** rtnetlink(7): include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, fib_rules.h, neighbour.h. */
export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_GETROUTE = 26;
export const RTM_GETNEIGH = 30;
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;
export const RTM_GETQDISC = 38;

/** Sizes of the headers before the attributes. */
export const IFINFOMSG_SIZE = 16;
export const IFADDRMSG_SIZE = 8;
export const RTMSG_SIZE = 12;
export const NDMSG_SIZE = 12;
export const TCMSG_SIZE = 20;

export const IFF_UP = 1;
export const IFF_LOOPBACK = 8;

export const IFLA_IFNAME = 3;
export const IFLA_MTU = 4;
export const IFLA_STATS = 7;
export const IFLA_OPERSTATE = 16;
export const IFLA_LINKINFO = 18;
export const IFLA_INFO_KIND = 1;
export const IFLA_STATS64 = 23;
export const IFLA_AF_SPEC = 26;
export const IFLA_CARRIER_CHANGES = 35;
export const IFLA_CARRIER_UP_COUNT = 47;
export const IFLA_CARRIER_DOWN_COUNT = 48;

export const IFA_ADDRESS = 1;
export const IFA_CACHEINFO = 6;
/** In the third byte of a struct ifaddrmsg. */
export const IFA_F_TENTATIVE = 0x40;

export const RTA_DST = 1;
export const RTA_CACHEINFO = 12;
export const RTPROT_KERNEL = 2;
export const RTM_F_CLONED = 0x200;

export const NDA_DST = 1;
export const NUD_PERMANENT = 0x80;

export const TCA_KIND = 1;
export const TCA_STATS = 3;
export const TCA_XSTATS = 4;
export const TCA_STATS2 = 7;
