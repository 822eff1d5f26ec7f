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
      spawnSync(program, ['-w', '-t', 'filter', '-D', chain, ...matchOf(from, to), '-j', 'DROP'], {
        stdio: 'ignore',
      });
  }
}

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
