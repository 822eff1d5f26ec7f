/** A control message of recvmsg(2): struct cmsghdr is u64 length with the header, int level, int type; padded to eight. */
export interface ControlMessage {
  readonly level: number;
  readonly type: number;
  readonly data: Uint8Array;
}

const HEADER_SIZE = 16;

export function controlMessages(bytes: Uint8Array): ControlMessage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: ControlMessage[] = [];
  for (let at = 0; at + HEADER_SIZE <= bytes.length; ) {
    const length = Number(view.getBigUint64(at, true));
    if (length < HEADER_SIZE || at + length > bytes.length) break;
    found.push({
      level: view.getInt32(at + 8, true),
      type: view.getInt32(at + 12, true),
      data: bytes.subarray(at + HEADER_SIZE, at + length),
    });
    at += (length + 7) & ~7;
  }
  return found;
}
