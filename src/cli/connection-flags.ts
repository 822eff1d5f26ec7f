import { type Command, Option } from 'commander';

/** Flags about TCP connections, which several verbs share. */
export interface ConnectionFlags {
  readonly tcpEstablished?: true;
  readonly tcpClose?: true;
  readonly skipInFlight?: true;
  readonly networkLock: 'nftables' | 'skip';
}

export function addConnectionFlags(command: Command): Command {
  return command
    .option('--tcp-established', 'save TCP connections; they are silent until they are restored')
    .addOption(
      new Option('--tcp-close', 'save TCP connections as closed sockets').conflicts('tcpEstablished'),
    )
    .option('--skip-in-flight', 'leave out connections that nobody has accepted yet')
    .addOption(networkLock());
}

export function networkLock(): Option {
  return new Option('--network-lock <how>', 'what makes connections silent: nftables, or the caller (skip)')
    .choices(['nftables', 'skip'])
    .default('nftables');
}

export function connectionOptions(flags: ConnectionFlags) {
  return {
    tcp_established: flags.tcpEstablished === true,
    tcp_close: flags.tcpClose === true,
    skip_in_flight: flags.skipInFlight === true,
    network_lock: flags.networkLock,
  };
}
