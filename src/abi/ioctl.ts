/** ioctl(2) request numbers: asm-generic/ioctls.h, linux/fs.h, sockios.h, nsfs.h, if_tun.h, and more. */
export * from './pagemap.js';
export * from './userfaultfd.js';

// Terminals: modem lines of TIOCMGET first, then requests.
export const TIOCM_LE = 1;
export const TIOCM_DTR = 2;
export const TIOCM_RTS = 4;
export const TIOCM_ST = 0x8;
export const TIOCM_SR = 0x10;
export const TIOCM_CTS = 0x20;
export const TIOCM_CAR = 0x40;
export const TIOCM_CD = 0x40;
export const TIOCM_RNG = 0x80;
export const TIOCM_RI = 0x80;
export const TIOCM_DSR = 0x100;
export const TIOCM_OUT1 = 0x2000;
export const TIOCM_OUT2 = 0x4000;
export const TCGETS = 0x5401;
export const TCSETS = 0x5402;
export const TCSETSW = 0x5403;
export const TCSETSF = 0x5404;
export const TCSBRK = 0x5409;
export const TCXONC = 0x540a;
export const TCFLSH = 0x540b;
export const TIOCEXCL = 0x540c;
export const TIOCNXCL = 0x540d;
export const TIOCSCTTY = 0x540e;
export const TIOCGPGRP = 0x540f;
export const TIOCSPGRP = 0x5410;
export const TIOCOUTQ = 0x5411;
export const TIOCSTI = 0x5412;
export const TIOCGWINSZ = 0x5413;
export const TIOCSWINSZ = 0x5414;
export const TIOCMGET = 0x5415;
export const TIOCMBIS = 0x5416;
export const TIOCMBIC = 0x5417;
export const TIOCMSET = 0x5418;
export const TIOCGSOFTCAR = 0x5419;
export const TIOCSSOFTCAR = 0x541a;
export const TIOCINQ = 0x541b;
export const TIOCCONS = 0x541d;
export const TIOCGSERIAL = 0x541e;
export const TIOCSSERIAL = 0x541f;
export const TIOCPKT = 0x5420;
export const TIOCNOTTY = 0x5422;
export const TIOCSETD = 0x5423;
export const TIOCGETD = 0x5424;
export const TCSBRKP = 0x5425;
export const TIOCSBRK = 0x5427;
export const TIOCCBRK = 0x5428;
export const TIOCGSID = 0x5429;
export const TCGETX = 0x5432;
export const TCSETX = 0x5433;
export const TCSETXF = 0x5434;
export const TCSETXW = 0x5435;
export const TIOCVHANGUP = 0x5437;
export const TIOCGPTPEER = 0x5441;
export const TIOCGLCKTRMIOS = 0x5456;
export const TIOCSLCKTRMIOS = 0x5457;
export const TIOCMIWAIT = 0x545c;
export const TIOCGICOUNT = 0x545d;
export const TIOCM_LOOP = 0x8000;
export const TIOCSPTLCK = 0x40045431;
export const TIOCSIG = 0x40045436;
export const TCSETS2 = 0x402c542b;
export const TCSETSW2 = 0x402c542c;
export const TCSETSF2 = 0x402c542d;
export const TIOCGPTN = 0x80045430;
export const TIOCGDEV = 0x80045432;
export const TIOCGPKT = 0x80045438;
export const TIOCGPTLCK = 0x80045439;
export const TIOCGEXCL = 0x80045440;
export const TCGETS2 = 0x802c542a;

// TIOCPKT: state bits.
export const TIOCPKT_IOCTL = 0x40;
export const TIOCPKT_STOP = 4;
export const TIOCPKT_NOSTOP = 0x10;
export const TIOCPKT_DOSTOP = 0x20;
export const TIOCPKT_START = 0x8;
export const TIOCPKT_DATA = 0;
export const TIOCPKT_FLUSHREAD = 1;
export const TIOCPKT_FLUSHWRITE = 2;

// TCFLSH, TCXONC: arguments.
export const TCIFLUSH = 0;
export const TCOFLUSH = 1;
export const TCIOFLUSH = 2;
export const TCOOFF = 0;
export const TCOON = 1;
export const TCIOFF = 2;
export const TCION = 3;

// Any file.
export const FIONCLEX = 0x5450;
export const FIOCLEX = 0x5451;
export const FIOASYNC = 0x5452;
export const FIONBIO = 0x5421;
export const FIONREAD = 0x541b;
export const FIOQSIZE = 0x5460;
export const FIGETBSZ = 2;
export const FIBMAP = 1;
export const FIFREEZE = 0xc0045877;
export const FITHAW = 0xc0045878;
export const FITRIM = 0xc0185879;
export const FICLONE = 0x40049409;
export const FICLONERANGE = 0x4020940d;
export const FIDEDUPERANGE = 0xc0189436;

// File systems.
export const BLKSSZGET = 0x1268;
export const FS_IOC_SETFLAGS = 0x40086602;
export const FS_IOC_SETVERSION = 0x40087602;
export const FS_IOC_FSSETXATTR = 0x401c5820;
export const FS_IOC_SETFSLABEL = 0x41009432;
export const BLKGETSIZE64 = 0x80081272;
export const FS_IOC_GETFLAGS = 0x80086601;
export const FS_IOC_GETVERSION = 0x80087601;
export const FS_IOC_FSGETXATTR = 0x801c581f;
export const FS_IOC_GETFSLABEL = 0x81009431;
export const FS_IOC_FIEMAP = 0xc020660b;

// FS_IOC_GETFLAGS: inode flags.
export const FS_SYNC_FL = 0x8;
export const FS_IMMUTABLE_FL = 0x10;
export const FS_APPEND_FL = 0x20;
export const FS_NODUMP_FL = 0x40;
export const FS_NOATIME_FL = 0x80;
export const FS_NOCOW_FL = 0x800000;
export const FS_PROJINHERIT_FL = 0x20000000;

// Sockets.
export const SIOCINQ = 0x541b;
export const SIOCOUTQ = 0x5411;
export const SIOCOUTQNSD = 0x894b;
export const SIOCATMARK = 0x8905;
export const SIOCGPGRP = 0x8904;
export const SIOCSPGRP = 0x8902;
export const FIOSETOWN = 0x8901;
export const FIOGETOWN = 0x8903;
export const SIOCGIFNAME = 0x8910;
export const SIOCGIFFLAGS = 0x8913;
export const SIOCSIFFLAGS = 0x8914;
export const SIOCGIFINDEX = 0x8933;
export const SIOCUNIXFILE = 0x89e0;
export const SIOCGSKNS = 0x894c;

// Namespaces and pidfds.
export const NS_GET_USERNS = 0xb701;
export const NS_GET_PARENT = 0xb702;
export const NS_GET_NSTYPE = 0xb703;
export const NS_GET_OWNER_UID = 0xb704;
export const NS_GET_MNTNS_ID = 0x8008b705;
export const NS_GET_PID_FROM_PIDNS = 0x8004b706;
export const NS_GET_TGID_FROM_PIDNS = 0x8004b707;
export const NS_GET_PID_IN_PIDNS = 0x8004b708;
export const NS_GET_TGID_IN_PIDNS = 0x8004b709;
export const PIDFD_GET_INFO = 0xc040ff0b;

// tun and tap.
export const TUNSETIFF = 0x400454ca;
export const TUNGETIFF = 0x800454d2;
export const TUNSETPERSIST = 0x400454cb;
export const TUNSETOWNER = 0x400454cc;
export const TUNSETGROUP = 0x400454ce;
export const TUNSETOFFLOAD = 0x400454d0;
export const TUNGETFEATURES = 0x800454cf;
export const TUNGETSNDBUF = 0x800454d3;
export const TUNSETSNDBUF = 0x400454d4;
export const TUNGETVNETHDRSZ = 0x800454d7;
export const TUNSETVNETHDRSZ = 0x400454d8;
export const TUNATTACHFILTER = 0x401054d5;
export const TUNDETACHFILTER = 0x401054d6;
export const TUNGETFILTER = 0x801054db;
export const TUNSETQUEUE = 0x400454d9;
export const TUNSETIFINDEX = 0x400454da;
export const TUNSETCARRIER = 0x400454e2;

// timerfd, seccomp listeners, perf, watch queues, epoll.
export const TFD_IOC_SET_TICKS = 0x40085400;
export const SECCOMP_IOCTL_NOTIF_RECV = 0xc0502100;
export const SECCOMP_IOCTL_NOTIF_SEND = 0xc0182101;
export const SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102;
export const SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103;
export const PERF_EVENT_IOC_ENABLE = 0x2400;
export const PERF_EVENT_IOC_DISABLE = 0x2401;
export const PERF_EVENT_IOC_RESET = 0x2403;
export const EPIOCSPARAMS = 0x40088a01;
export const EPIOCGPARAMS = 0x80088a02;
export const INOTIFY_IOC_SETNEXTWD = 0x40044900;
