import { createHash, randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { DisprovedError } from './witness.js';

const ANSWER_BYTES = 40;
const REQUEST_BYTES_MAX = 16 * 1024;
/** Requests that a client has under way. */
const DEPTH = 4;

/** A client that asks without pause, over one connection, and checks every answer. */
export class Client {
  /** Answers that were right. */
  answers = 0;
  /** The longest time between two answers since `forget`. */
  gap_ms = 0;
  readonly #socket: Socket;
  readonly #pid: number;
  #bytes = Buffer.alloc(0);
  #state = Buffer.alloc(32);
  /** What each answer must be, in order. */
  readonly #expected: Buffer[] = [];
  #last = performance.now();
  #failure: Error | undefined;
  #isOver = false;

  private constructor(socket: Socket, pid: number) {
    this.#socket = socket;
    this.#pid = pid;
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('error', (error) => this.#fail(new DisprovedError(`a connection broke: ${error.message}`)));
    socket.on('close', () => {
      if (!this.#isOver) this.#fail(new DisprovedError('a connection was closed'));
    });
    for (let index = 0; index < DEPTH; index++) this.#ask();
  }

  static start(address: string, port: number, pid: number): Promise<Client> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: address, port, noDelay: true });
      socket.once('connect', () => resolve(new Client(socket, pid)));
      socket.once('error', reject);
    });
  }

  /** @throws DisprovedError as soon as anything was wrong */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  forget(): void {
    this.gap_ms = 0;
    this.#last = performance.now();
  }

  end(): void {
    this.#isOver = true;
    this.#socket.destroy();
  }

  #ask(): void {
    const request = randomBytes(1 + Math.floor(Math.random() * REQUEST_BYTES_MAX));
    const head = Buffer.alloc(4);
    head.writeUInt32LE(request.length);
    this.#state = createHash('sha256').update(this.#state).update(request).digest();
    this.#expected.push(this.#state);
    this.#socket.write(Buffer.concat([head, request]));
  }

  #take(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    for (; this.#bytes.length >= ANSWER_BYTES; this.#bytes = this.#bytes.subarray(ANSWER_BYTES))
      this.#hear(this.#bytes.subarray(0, ANSWER_BYTES));
  }

  #hear(answer: Buffer): void {
    const now = performance.now();
    this.gap_ms = Math.max(this.gap_ms, now - this.#last);
    this.#last = now;
    const number = answer.readUInt32LE();
    const pid = answer.readUInt32LE(4);
    const expected = this.#expected.shift();
    if (number !== this.answers + 1)
      this.#fail(new DisprovedError(`answer ${number} came after ${this.answers}`));
    else if (pid !== this.#pid) this.#fail(new DisprovedError(`process ${pid} answered, not ${this.#pid}`));
    else if (expected === undefined || !expected.equals(answer.subarray(8)))
      this.#fail(new DisprovedError(`answer ${number} is wrong`));
    this.answers++;
    if (this.#failure === undefined && !this.#isOver) this.#ask();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
  }
}
