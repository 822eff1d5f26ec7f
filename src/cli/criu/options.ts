import { type CgroupMode, CPU_CAP_DEFAULT, type CpuCap } from './values.js';

/** The options of `criu` as one record, after all sources were read. What an option does is in its manual's words. */
export interface CriuOptions {
  /** What was given and belongs to a later state of Stasis, by option name; see later.ts. */
  readonly given: Set<string>;

  tree: number | undefined;
  imagesDir: string | undefined;
  workDir: string | undefined;
  logFile: string | undefined;
  verbosity: number;
  logPid: boolean;
  pidfile: string | undefined;
  statusFd: number | undefined;
  displayStats: boolean;
  execCmd: boolean;
  closeFds: number[];
  /** The last one given runs first. */
  actionScripts: string[];

  finalState: 'default' | 'stopped' | 'running';
  restoreDetached: boolean;
  restoreSibling: boolean;
  timeout_s: number;
  freezeCgroup: string | undefined;
  cpuCap: CpuCap;
  unprivileged: boolean;
  mntnsCompatMode: boolean | undefined;

  external: string[];
  /** `net:PATH`, `net:PID`; other kinds of namespaces are refused later. */
  joinNs: string[];
  /** Directories to look for watched files in. */
  irmapScanPaths: string[];
  forceIrmap: boolean;
  inheritFds: Map<string, number>;
  shellJob: boolean;
  fileLocks: boolean;
  tcpEstablished: boolean;
  extUnixSk: boolean;
  tcpClose: boolean;
  skipInFlight: boolean;
  /** All but the last two are one to us: a table of nftables. */
  networkLock: 'iptables' | 'nftables' | 'skip' | 'none' | undefined;
  linkRemap: boolean;
  ghostLimit_bytes: number;
  manageCgroups: CgroupMode | undefined;

  trackMem: boolean;
  prevImagesDir: string | undefined;

  feature: string | undefined;
  extra: boolean;
  experimental: boolean;
}

const GHOST_LIMIT_BYTES = 2 ** 20;
const TIMEOUT_S = 10;
/** Errors and warnings. */
const VERBOSITY = 2;

export function defaultOptions(): CriuOptions {
  return {
    given: new Set(),
    tree: undefined,
    imagesDir: undefined,
    workDir: undefined,
    logFile: undefined,
    verbosity: VERBOSITY,
    logPid: false,
    pidfile: undefined,
    statusFd: undefined,
    displayStats: false,
    execCmd: false,
    closeFds: [],
    actionScripts: [],
    finalState: 'default',
    restoreDetached: false,
    restoreSibling: false,
    timeout_s: TIMEOUT_S,
    freezeCgroup: undefined,
    cpuCap: CPU_CAP_DEFAULT,
    unprivileged: false,
    mntnsCompatMode: undefined,
    external: [],
    joinNs: [],
    irmapScanPaths: [],
    forceIrmap: false,
    inheritFds: new Map(),
    shellJob: false,
    fileLocks: false,
    tcpEstablished: false,
    extUnixSk: false,
    tcpClose: false,
    skipInFlight: false,
    networkLock: undefined,
    linkRemap: false,
    ghostLimit_bytes: GHOST_LIMIT_BYTES,
    manageCgroups: undefined,
    trackMem: false,
    prevImagesDir: undefined,
    feature: undefined,
    extra: false,
    experimental: false,
  };
}
