import { createServer, type Server, type Socket } from 'node:net';

/** More than both queues of one connection take. */
const PILE = Buffer.alloc(256 * 1024, 'stasis');

/**
 * The other ends of a subject's TCP connections: in this process, so outside of the tree. Nobody reads here, and all
 * queues are full.
 */
export class Peers implements Disposable {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets: Socket[];

  private constructor(server: Server, port: number, sockets: Socket[]) {
    this.port = port;
    this.#server = server;
    this.#sockets = sockets;
  }

  /** Listens on a port of the loopback device that is free. */
  static async listen(connections: number): Promise<Peers> {
    const sockets: Socket[] = [];
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      sockets.push(socket);
      // The subject is killed in the end.
      socket.on('error', () => {});
      socket.write(PILE);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: '127.0.0.1', port: 0, backlog: connections }, resolve);
    });
    const address = server.address();
    if (address === null || typeof address === 'string') throw new TypeError('no port to listen on');
    return new Peers(server, address.port, sockets);
  }

  get connected(): number {
    return this.#sockets.length;
  }

  /** How many connections have ended here, which none may as long as the subject is there. */
  get lost(): number {
    return this.#sockets.filter(({ destroyed }) => destroyed).length;
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
