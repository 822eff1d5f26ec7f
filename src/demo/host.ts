import { type ChildProcess, type StdioOptions, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/**
 * Two "hosts" on this machine: each has pid, mount and network namespaces of its own, and a cable (veth) that leads to
 * a bridge here, where their clients are.
 */
const BRIDGE = 'stasis0';
const CLIENT_ADDRESS = '10.97.0.1';
/** The address that the clients know: it goes with the server. */
export const SERVICE_ADDRESS = '10.97.0.100';
const PREFIX = 24;
/** Pids of programs begin here, so that those of one host are free on the other. */
const FIRST_PIDS = { a: 20_000, b: 10_000 } as const;
export type HostName = keyof typeof FIRST_PIDS;

/** Run to its end. @throws Error with what it said */
function run(command: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

export function makeBridge(): void {
  run('ip', ['link', 'set', 'lo', 'up']);
  run('ip', ['link', 'add', 'name', BRIDGE, 'type', 'bridge']);
  run('ip', ['address', 'add', `${CLIENT_ADDRESS}/${PREFIX}`, 'dev', BRIDGE]);
  run('ip', ['link', 'set', BRIDGE, 'up']);
}

export class Host implements Disposable {
  readonly name: HostName;
  readonly #child: ChildProcess;
  readonly #init: number;

  private constructor(name: HostName, child: ChildProcess, init: number) {
    this.name = name;
    this.#child = child;
    this.#init = init;
  }

  static async start(name: HostName): Promise<Host> {
    const namespaces = ['--pid', '--mount', '--net', '--fork', '--kill-child', '--mount-proc'];
    // Its init says when it is there, and collects orphans.
    const script = 'echo up; while :; do sleep 1000 & wait $!; done';
    const child = spawn('unshare', [...namespaces, 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once('data', () => resolve());
      child.once('exit', () => reject(new Error(`host ${name} did not come up`)));
    });
    const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8');
    const host = new Host(name, child, Number(children.split(' ')[0]));
    host.#plugIn();
    return host;
  }

  /** A cable to the bridge. Nothing asks for its address yet, nor answers for it. */
  #plugIn(): void {
    const cable = `stasis-${this.name}`;
    const far = ['peer', 'name', 'eth0', 'netns', String(this.#init)];
    run('ip', ['link', 'add', 'name', cable, 'type', 'veth', ...far]);
    run('ip', ['link', 'set', cable, 'master', BRIDGE, 'up']);
    this.run('ip', ['link', 'set', 'lo', 'up']);
    this.run('ip', ['link', 'set', 'eth0', 'up']);
    this.set('net/ipv4/conf/eth0/arp_notify', '1');
    this.set('kernel/ns_last_pid', String(FIRST_PIDS[this.name]));
  }

  set(key: string, value: string): void {
    this.run('sh', ['-c', `echo ${value} > /proc/sys/${key}`]);
  }

  /** The command that runs another one on this host. */
  command(command: string, args: readonly string[]): readonly [string, string[]] {
    return ['nsenter', ['-t', String(this.#init), '-p', '-m', '-n', command, ...args]];
  }

  run(command: string, args: readonly string[]): string {
    return run(...this.command(command, args));
  }

  spawn(command: string, args: readonly string[], stdio: StdioOptions): ChildProcess {
    return spawn(...this.command(command, args), { stdio });
  }

  /**
   * Have the service's address. `quietly` is for a host that only prepares: its kernel answers nobody who asks for the
   * address (arp_ignore 8), so the other host still has all that is sent to it.
   */
  takeAddress(quietly: boolean): void {
    this.set('net/ipv4/conf/all/arp_ignore', quietly ? '8' : '0');
    this.run('ip', ['address', 'add', `${SERVICE_ADDRESS}/${PREFIX}`, 'dev', 'eth0']);
  }

  dropAddress(): void {
    this.run('ip', ['address', 'del', `${SERVICE_ADDRESS}/${PREFIX}`, 'dev', 'eth0']);
  }

  /** Answer for the address, and tell everybody: with arp_notify a link whose own address is set sends a gratuitous ARP. */
  announceAddress(): void {
    this.set('net/ipv4/conf/all/arp_ignore', '0');
    const address = this.run('cat', ['/sys/class/net/eth0/address']).trim();
    this.run('ip', ['link', 'set', 'eth0', 'address', address]);
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}
