import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';

/**
 * The server that moves: a plain program with clients connected over TCP. It answers every request by a state that all
 * requests of that connection before have gone into, so an answer that is lost, repeated or out of turn shows at once.
 * A request is a length (u32) and bytes, an answer the number of the request (u32), the server's pid (u32) and 32 bytes.
 */
const [address = '', port = '', ready = ''] = process.argv.slice(2);

/** Counted in memory only: 1 as long as this is the process that was started. */
let starts = 0;
starts++;

class Connection {
  readonly #socket: Socket;
  #bytes = Buffer.alloc(0);
  #number = 0;
  #state = Buffer.alloc(32);

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('error', () => socket.destroy());
  }

  #take(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    while (this.#bytes.length >= 4 && this.#bytes.length >= 4 + this.#bytes.readUInt32LE()) {
      const end = 4 + this.#bytes.readUInt32LE();
      this.#answer(this.#bytes.subarray(4, end));
      this.#bytes = this.#bytes.subarray(end);
    }
  }

  #answer(request: Buffer): void {
    this.#state = createHash('sha256').update(this.#state).update(request).digest();
    const head = Buffer.alloc(8);
    head.writeUInt32LE(++this.#number);
    head.writeUInt32LE(process.pid * starts, 4);
    this.#socket.write(Buffer.concat([head, this.#state]));
  }
}

createServer({ noDelay: true }, (socket) => new Connection(socket)).listen(Number(port), address, () =>
  writeFileSync(ready, String(process.pid)),
);
