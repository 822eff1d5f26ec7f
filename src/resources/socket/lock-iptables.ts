import { spawnSync } from 'node:child_process';
import { AF_INET } from '../../abi/socket.js';
import { type InetAddress, printAddress } from './inet-address.js';
import { type Connection, RESTORE_MARK, wireAddress } from './lock-table.js';

/**
 * The rules by which CRIU's --network-lock iptables makes a connection silent, one each way. Only its own program knows
 * how to remove a rule of iptables among others; images of ours never need it. Rules that are not there are no error.
 */
export function removeCriuRules(connections: readonly Connection[]): void {
  for (const connection of connections) {
    const [local, remote] = [wireAddress(connection.local), wireAddress(connection.remote)];
    const program = local.family === AF_INET ? 'iptables' : 'ip6tables';
    for (const [chain, from, to] of [
      ['INPUT', remote, local],
      ['OUTPUT', local, remote],
    ] as const)
      run(program, ['-D', chain, ...matchOf(from, to), '-j', 'DROP'], TIMEOUT_MS);
  }
}

/** Those by which it makes a whole network namespace silent: a chain that everything goes through. */
export function removeCriuChains(timeout_ms = TIMEOUT_MS): void {
  for (const program of ['iptables', 'ip6tables']) {
    for (const chain of ['INPUT', 'OUTPUT']) run(program, ['-D', chain, '-j', CRIU_CHAIN], timeout_ms);
    for (const verb of ['-F', '-X']) run(program, [verb, CRIU_CHAIN], timeout_ms);
  }
}

const CRIU_CHAIN = 'CRIU';

/**
 * In the network namespace that this thread is in. It waits for others who change rules. Where there is no such program,
 * nobody has made rules by it.
 */
function run(program: string, words: readonly string[], timeout_ms: number): void {
  const command = ['-w', '-t', 'filter', ...words];
  const { signal } = spawnSync(program, command, {
    stdio: 'ignore',
    timeout: timeout_ms,
    killSignal: 'SIGKILL',
  });
  if (signal !== null)
    throw new Error(
      `\`${program} ${command.join(' ')}\`, which lets go of what CRIU has locked, was not done within ${timeout_ms / 1000} s: ` +
        'end whoever changes packet filters all the time (holds /run/xtables.lock)',
    );
}

const TIMEOUT_MS = 30_000;

function matchOf(from: InetAddress, to: InetAddress): string[] {
  const mark = `0x${RESTORE_MARK.toString(16)}`;
  return [
    ...['--protocol', 'tcp', '-m', 'mark', '!', '--mark', mark],
    ...['--source', hostOf(from), '--sport', String(from.port)],
    ...['--destination', hostOf(to), '--dport', String(to.port)],
  ];
}

function hostOf(address: InetAddress): string {
  return printAddress(address).replace(/:\d+$/, '').replace(/[[\]]/g, '');
}
