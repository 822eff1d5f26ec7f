import { AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW } from '../../abi/socket.js';
import { SyscallError } from '../errors.js';
import { OwnedFd } from '../fd.js';
import { NativeMemory } from '../memory.js';
import { syscall } from '../syscall.js';
import { concatenate } from './attributes.js';
import { encodeMessage, listMessages, type NetlinkMessage } from './message.js';

export const NETLINK_SOCK_DIAG = 4;
export const NETLINK_NETFILTER = 12;

const NLM_F_REQUEST = 1;
export const NLM_F_ACK = 4;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
/** NLM_F_ROOT | NLM_F_MATCH: everything there is. */
export const NLM_F_DUMP = 0x300;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_MULTI = 2;
const NLM_F_DUMP_INTR = 0x10;
const ATTEMPTS = 10;
/** The kernel fills at most 32 KiB at once for a dump (net/netlink/af_netlink.c netlink_dump). */
const RECEIVE_SIZE = 1 << 18;

/**
 * netlink(7): a socket of one family, in the network namespace of this process. What the kernel makes for its sake
 * (tables with an owner) goes when it is closed.
 */
export class Netlink implements Disposable {
  readonly #socket: OwnedFd;
  readonly #memory = new NativeMemory(RECEIVE_SIZE);
  readonly #name: string;
  #sequence = 0;

  constructor(family: number, name: string) {
    this.#name = name;
    this.#socket = new OwnedFd(syscall('socket', [AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family], name));
  }

  get fd(): number {
    return this.#socket.fd;
  }

  /** Ask, and answer all that comes back: one message, or those of a dump (NLM_F_DUMP). Throws SyscallError. */
  request(type: number, flags: number, body: Uint8Array): NetlinkMessage[] {
    for (let attempt = 1; ; attempt++) {
      this.#send([encodeRequest({ type, flags, body }, this.#nextSequence())]);
      const found = this.#receive();
      // What changed while it was listed may be in it twice, or not at all.
      if (attempt === ATTEMPTS || found.every((message) => (message.flags & NLM_F_DUMP_INTR) === 0))
        return found;
    }
  }

  /** Several messages as one packet, each of which is acknowledged (NLM_F_ACK set where wanted). Throws the first error. */
  batch(messages: readonly NetlinkMessage[]): void {
    this.#send(messages.map((message) => encodeRequest(message, this.#nextSequence())));
    let expected = messages.filter(({ flags }) => (flags & NLM_F_ACK) !== 0).length;
    while (expected > 0) expected -= this.#collectAcks();
  }

  #nextSequence(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  #send(messages: readonly Uint8Array[]): void {
    const bytes = concatenate(messages);
    using memory = new NativeMemory(bytes.length);
    memory.bytes.set(bytes);
    syscall('sendto', [this.#socket.fd, memory.address, bytes.length, 0, 0, 0], this.#name);
  }

  #receivePacket(): Uint8Array {
    const { address, bytes } = this.#memory;
    const length = syscall('recvfrom', [this.#socket.fd, address, RECEIVE_SIZE, 0, 0, 0], this.#name);
    return bytes.slice(0, length);
  }

  #receive(): NetlinkMessage[] {
    const found: NetlinkMessage[] = [];
    for (;;) {
      for (const message of listMessages(this.#receivePacket()).messages) {
        if (message.type === NLMSG_DONE) return found;
        if (message.type === NLMSG_ERROR) {
          this.#throwIfError(message);
          return found;
        }
        found.push(message);
        if ((message.flags & NLM_F_MULTI) === 0) return found;
      }
    }
  }

  #collectAcks(): number {
    let acks = 0;
    for (const message of listMessages(this.#receivePacket()).messages) {
      if (message.type !== NLMSG_ERROR) continue;
      this.#throwIfError(message);
      acks += 1;
    }
    return acks;
  }

  #throwIfError({ body }: NetlinkMessage): void {
    const error = new DataView(body.buffer, body.byteOffset).getInt32(0, true);
    if (error !== 0) throw new SyscallError('netlink', -error, this.#name);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
  }
}

/** Messages as one packet, for whoever sends it: flags as they are, with NLM_F_REQUEST. */
export function encodePacket(messages: readonly NetlinkMessage[]): Uint8Array {
  return concatenate(messages.map((message, index) => encodeRequest(message, index + 1)));
}

function encodeRequest(message: NetlinkMessage, sequence: number): Uint8Array {
  return encodeMessage({ ...message, flags: message.flags | NLM_F_REQUEST }, sequence);
}
