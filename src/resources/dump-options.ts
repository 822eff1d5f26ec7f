/** Options that resources look at; names are those of `criu dump`. */
export interface DumpOptions {
  readonly shellJob: boolean;
  readonly linkRemap: boolean;
  /** Largest deleted file that is copied into the image, in bytes. */
  readonly ghostLimit: number;
  /** `file[mnt_id:inode]`, `tty[rdev:dev]`, `net[inode]:KEY`, … */
  readonly external: readonly string[];
  /** As `criu`: any network namespace that outlives the tree is one to join at restore, without `net[…]` being said. */
  readonly joinable?: boolean;
  /** Accept pipes whose other end is outside the tree: at restore they are given by --inherit-fd, or have no other end. */
  readonly outsidePipes?: boolean;
  readonly leaveRunning: boolean;
  readonly fileLocks: boolean;
  readonly tcpEstablished: boolean;
  /** As `criu`: unread events of inotify and fanotify are lost; otherwise a tree that has some is not saved. */
  readonly dropEvents?: boolean;
  /** Directories to look for watched files in, whose file system has no handles (inotify, fanotify). */
  readonly irmapScanPaths?: readonly string[];
  /** Look for them even where a handle would do. */
  readonly forceIrmap?: boolean;
  /** Accept datagram sockets connected to named ones outside of the tree, which are connected to again at restore. */
  readonly extUnixSk?: boolean;
  /** As `criu`: what raw, ICMP and packet sockets have not read is lost; otherwise a tree that has some is not saved. */
  readonly dropPackets?: boolean;
  /** Save connections as closed sockets. */
  readonly tcpClose?: boolean;
  /** Leave out connections that nobody has accepted yet: their clients get a reset. */
  readonly skipInFlight?: boolean;
  /** `skip`: whoever calls sees to it that connections are silent until they are restored. */
  readonly networkLock?: 'nftables' | 'skip';
}
