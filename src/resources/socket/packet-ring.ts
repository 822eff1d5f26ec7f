import { MAP_SHARED, PROT_READ } from '../../abi/mman.js';
import { TPACKET_V3 } from '../../abi/packet.js';
import { viewOf } from '../../kernel/ffi.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { PacketDiag } from './packet-diag.js';

/**
 * Rings of a packet socket (Documentation/networking/packet_mmap.rst). Where the kernel goes on in a ring is nowhere to
 * be seen, and a new ring begins at its start; so one through which something has gone cannot be rebuilt. A fresh ring
 * is all zeros, but for what the kernel writes at the head of blocks (TPACKET_V3), which is no packet.
 */
/** struct tpacket_block_desc: version, offset to private data, then status, number of packets, … */
const BLOCK_PACKETS_AT = 12;

export function hasRing({ receiveRing, sendRing }: PacketDiag): boolean {
  return receiveRing !== undefined || sendRing !== undefined;
}

/** Why the rings cannot be saved, looked at through a duplicate of the socket. */
export function ringProblem(taken: number, diag: PacketDiag): string | undefined {
  if (!hasRing(diag)) return undefined;
  const { receiveRing, sendRing, version } = diag;
  const receive = (receiveRing?.blockSize ?? 0) * (receiveRing?.blockNr ?? 0);
  const send = (sendRing?.blockSize ?? 0) * (sendRing?.blockNr ?? 0);
  const length = receive + send;
  // All of both rings at once, or nothing (net/packet/af_packet.c packet_mmap).
  const address = attempt('mmap', [0, length, PROT_READ, MAP_SHARED, taken, 0]);
  if (address < 0 && address > -4096) return undefined;
  try {
    const bytes = new Uint8Array(viewOf(BigInt(address), length));
    const isV3 = version === TPACKET_V3 && receiveRing !== undefined;
    const used = isV3
      ? hasPackets(bytes, receiveRing.blockSize, receiveRing.blockNr)
      : !isZero(bytes.subarray(0, receive));
    if (used) return 'packets have gone through its ring, and where the kernel goes on in it is not shown';
    if (!isZero(bytes.subarray(receive)))
      return 'packets have been put into its ring for sending, and where the kernel goes on in it is not shown';
    return undefined;
  } finally {
    syscall('munmap', [address, length]);
  }
}

function hasPackets(bytes: Uint8Array, blockSize: number, blockNr: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block < blockNr; block++)
    if (view.getUint32(block * blockSize + BLOCK_PACKETS_AT, true) !== 0) return true;
  return false;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
