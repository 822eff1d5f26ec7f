import { Getopt, type Occurrence, type OptionShape, UsageError } from './getopt.js';
import { type CriuOptions, defaultOptions } from './options.js';
import * as V from './values.js';

/**
 * Every option of `criu` 4.2, with what giving it does to the record. Options of states that Stasis does not handle
 * yet are read and checked like all others and noted in `given`; later.ts says which of them matter.
 */

interface Given {
  readonly value: string;
  readonly on: boolean;
}

interface CriuOption extends OptionShape {
  readonly apply: (options: CriuOptions, given: Given) => void;
}

type Keys<T> = {
  [K in keyof CriuOptions]-?: CriuOptions[K] extends T ? (T extends CriuOptions[K] ? K : never) : never;
}[keyof CriuOptions];
type Assignable<T> = { [K in Keys<T>]: T };

function flag(name: string, key: Keys<boolean>, short?: string): CriuOption {
  const apply: CriuOption['apply'] = (options, { on }) => {
    (options as Assignable<boolean>)[key] = on;
  };
  return { name, value: 'none', negatable: true, apply, ...(short === undefined ? {} : { short }) };
}

function text(name: string, key: Keys<string | undefined>, short?: string): CriuOption {
  const apply: CriuOption['apply'] = (options, { value }) => {
    (options as Assignable<string | undefined>)[key] = value;
  };
  return { name, value: 'required', apply, ...(short === undefined ? {} : { short }) };
}

function valued(
  name: string,
  apply: (options: CriuOptions, value: string) => void,
  short?: string,
): CriuOption {
  const option = {
    name,
    value: 'required',
    apply: (o: CriuOptions, { value }: Given) => apply(o, value),
  } as const;
  return short === undefined ? option : { ...option, short };
}

function note(name: string): CriuOption['apply'] {
  return (options, { on }) => {
    if (on) options.given.add(name);
    else options.given.delete(name);
  };
}

/** A boolean of a later state, with its twin `--no-NAME`. */
function laterFlag(name: string): CriuOption {
  return { name, value: 'none', negatable: true, apply: note(name) };
}

/** A value of a later state. */
function laterValue(
  name: string,
  check: (value: string) => unknown = () => true,
  short?: string,
): CriuOption {
  return valued(
    name,
    (options, value) => {
      check(value);
      options.given.add(name);
    },
    short,
  );
}

/** With inodes, those sockets are external; they may be given as one list. */
function applyExtUnixSk(options: CriuOptions, value: string): void {
  options.extUnixSk = true;
  if (value === '') return;
  for (const inode of value.split(',')) {
    if (!/^\d+$/.test(inode)) throw new UsageError(`invalid argument for --ext-unix-sk: ${value}`);
    options.external.push(`unix[${inode}]`);
  }
}

function plain(name: string, apply: (options: CriuOptions) => void, short?: string): CriuOption {
  return {
    name,
    value: 'none',
    apply: (options) => apply(options),
    ...(short === undefined ? {} : { short }),
  };
}

function positive(value: string, option: string): number {
  const number = V.leadingInteger(value);
  if (number <= 0) throw new UsageError(`invalid argument for ${option}: ${value}`);
  return number;
}

function verbosity(options: CriuOptions, value: string | undefined): void {
  if (value === undefined) options.verbosity += 1;
  else if (value.startsWith('v')) options.verbosity += value.length + 1;
  else options.verbosity = V.leadingInteger(value);
}

function pair(separator: string): (value: string) => void {
  return (value) => {
    if (!value.includes(separator)) throw new UsageError(`${value} has no "${separator}"`);
  };
}

const GENERAL: readonly CriuOption[] = [
  valued('tree', (o, value) => (o.tree = positive(value, '--tree')), 't'),
  text('images-dir', 'imagesDir', 'D'),
  text('work-dir', 'workDir', 'W'),
  text('log-file', 'logFile', 'o'),
  {
    name: 'verbosity',
    short: 'v',
    value: 'optional',
    apply: (o, { value }) => verbosity(o, value || undefined),
  },
  flag('log-pid', 'logPid'),
  text('pidfile', 'pidfile'),
  plain('help', (o) => o.given.add('help'), 'h'),
  plain('version', (o) => o.given.add('version'), 'V'),
  valued('status-fd', (o, value) => (o.statusFd = V.leadingInteger(value))),
  flag('display-stats', 'displayStats'),
  plain('exec-cmd', (o) => (o.execCmd = true)),
  valued('close', (o, value) => o.closeFds.push(V.leadingInteger(value))),
  valued('action-script', (o, value) => o.actionScripts.unshift(value)),
  valued('config', () => undefined),
  plain('no-default-config', () => undefined),
  plain('leave-stopped', (o) => (o.finalState = 'stopped'), 's'),
  plain('leave-running', (o) => (o.finalState = 'running'), 'R'),
  flag('restore-detached', 'restoreDetached', 'd'),
  flag('daemon', 'restoreDetached'),
  flag('restore-sibling', 'restoreSibling', 'S'),
  valued('timeout', (o, value) => (o.timeout_s = V.leadingInteger(value))),
  text('freeze-cgroup', 'freezeCgroup'),
  {
    name: 'cpu-cap',
    value: 'optional',
    apply: (o, { value }) => (o.cpuCap = V.parseCpuCap(value || undefined, o.cpuCap)),
  },
  flag('unprivileged', 'unprivileged'),
  {
    name: 'mntns-compat-mode',
    value: 'none',
    negatable: true,
    apply: (o, { on }) => (o.mntnsCompatMode = on),
  },
  laterValue('libdir', undefined, 'L'),
  laterFlag('stream'),
  laterFlag('deprecated'),
  laterFlag('allow-uprobes'),
];

const RESOURCES: readonly CriuOption[] = [
  valued('external', (o, value) => o.external.push(value)),
  valued('inherit-fd', (o, value) => {
    const { fd, key } = V.parseInheritFd(value);
    o.inheritFds.set(key, fd);
  }),
  flag('shell-job', 'shellJob', 'j'),
  flag('file-locks', 'fileLocks', 'l'),
  flag('link-remap', 'linkRemap'),
  valued('ghost-limit', (o, value) => (o.ghostLimit_bytes = V.parseSize(value))),
  laterFlag('ghost-fiemap'),
  laterFlag('evasive-devices'),
  flag('force-irmap', 'forceIrmap'),
  valued('irmap-scan-path', (o, value) => o.irmapScanPaths.push(value)),
  laterValue('file-validation', (value) => V.oneOf(V.FILE_VALIDATIONS, value, 'file-validation')),
  laterFlag('skip-file-rwx-check'),
  laterValue('lsm-profile', pair(':')),
  laterValue('lsm-mount-context'),
  flag('tcp-established', 'tcpEstablished'),
  flag('skip-in-flight', 'skipInFlight'),
  flag('tcp-close', 'tcpClose'),
  {
    name: 'ext-unix-sk',
    short: 'x',
    value: 'optional',
    apply: (o, { value }) => applyExtUnixSk(o, value),
  },
  valued('network-lock', (o, value) => (o.networkLock = V.oneOf(V.NETWORK_LOCKS, value, 'network-lock'))),
];

const NAMESPACES: readonly CriuOption[] = [
  laterValue('root', undefined, 'r'),
  valued('join-ns', (o, value) => o.joinNs.push(V.parseJoinNs(value)), 'J'),
  laterValue('empty-ns', (value) => V.oneOf(['net'], value, 'empty-ns')),
  laterValue('ext-mount-map', undefined, 'M'),
  laterValue('skip-mnt'),
  laterValue('enable-fs'),
  { name: 'enable-external-sharing', value: 'none', apply: note('enable-external-sharing') },
  { name: 'enable-external-masters', value: 'none', apply: note('enable-external-masters') },
  laterValue('veth-pair', pair('=')),
  laterFlag('weak-sysctls'),
  {
    name: 'manage-cgroups',
    value: 'optional',
    apply: (o, { value }) =>
      (o.manageCgroups = value === '' ? 'soft' : V.oneOf(V.CGROUP_MODES, value, 'manage-cgroups')),
  },
  laterValue('cgroup-root'),
  laterValue('cgroup-props'),
  laterValue('cgroup-props-file'),
  laterValue('cgroup-dump-controller'),
  laterValue('cgroup-yard'),
];

const MEMORY: readonly CriuOption[] = [
  flag('track-mem', 'trackMem'),
  text('prev-images-dir', 'prevImagesDir'),
  laterFlag('auto-dedup'),
  laterValue('pre-dump-mode', (value) => V.oneOf(V.PRE_DUMP_MODES, value, 'pre-dump-mode')),
  laterFlag('page-server'),
  laterValue('address'),
  laterValue('port', (value) => positive(value, '--port')),
  laterValue('ps-socket'),
  { name: 'lazy-pages', value: 'none', apply: note('lazy-pages') },
  laterFlag('tls'),
  laterValue('tls-cacert'),
  laterValue('tls-cacrl'),
  laterValue('tls-cert'),
  laterValue('tls-key'),
  { name: 'tls-no-cn-verify', value: 'none', apply: note('tls-no-cn-verify') },
];

const CHECK: readonly CriuOption[] = [
  text('feature', 'feature'),
  flag('extra', 'extra'),
  flag('experimental', 'experimental'),
  plain('all', (o) => {
    o.extra = true;
    o.experimental = true;
  }),
  plain('ms', () => {
    throw new UsageError('--ms is deprecated; a plain check leaves the optional features out');
  }),
];

const GETOPT = new Getopt<CriuOption>([...GENERAL, ...RESOURCES, ...NAMESPACES, ...MEMORY, ...CHECK]);

function apply(options: CriuOptions, { option, value, on }: Occurrence<CriuOption>): void {
  option.apply(options, { value: value ?? '', on });
}

/** Reads sources of words, earlier ones first, and answers the record and what is no option in the last of them. */
export function parseOptions(sources: readonly (readonly string[])[]): {
  options: CriuOptions;
  words: readonly string[];
} {
  const options = defaultOptions();
  let words: readonly string[] = [];
  for (const source of sources) {
    const line = GETOPT.parse(source);
    for (const occurrence of line.occurrences) apply(options, occurrence);
    words = line.words;
  }
  return { options, words };
}
