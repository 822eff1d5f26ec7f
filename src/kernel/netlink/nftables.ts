import * as N from '../../abi/netfilter.js';
import { cString, fromCString } from '../c-string.js';
import { type Attribute, be32, decodeAttributes, encodeAttributes } from './attributes.js';
import type { NetlinkMessage } from './message.js';
import {
  encodePacket,
  NETLINK_NETFILTER,
  Netlink,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
} from './socket.js';

/**
 * Rules of nf_tables, as messages of nfnetlink(7) (net/netfilter/nf_tables_api.c). Messages between a begin and an end
 * are one transaction: all of them count from the same moment, or none.
 */

/** One expression of a rule: what is loaded, compared, looked up or decided. */
export interface Expression {
  readonly name: string;
  readonly data: readonly Attribute[];
}

function message(type: number, flags: number, attributes: readonly Attribute[]): NetlinkMessage {
  const payload = encodeAttributes(attributes);
  const body = new Uint8Array(N.NFGENMSG_SIZE + payload.length);
  body[0] = N.NFPROTO_INET;
  body.set(payload, N.NFGENMSG_SIZE);
  return { type: (N.NFNL_SUBSYS_NFTABLES << 8) | type, flags: flags | NLM_F_ACK, body };
}

/** Noted for a table that goes when who makes it does: no program's own, whatever it is called. */
export const PASSING_NOTE: Uint8Array = new TextEncoder().encode('stasis passing');

/** `owned`: it goes when the socket is closed that makes it. `note` is kept by the kernel for whoever lists it. */
export function newTable(name: string, owned: boolean, note?: Uint8Array): NetlinkMessage {
  return message(N.NFT_MSG_NEWTABLE, NLM_F_CREATE, [
    [N.NFTA_TABLE_NAME, cString(name)],
    [N.NFTA_TABLE_FLAGS, be32(owned ? N.NFT_TABLE_F_OWNER : 0)],
    ...(note === undefined ? [] : [[N.NFTA_TABLE_USERDATA, note] as const]),
  ]);
}

/** With everything in it. */
export function deleteTable(name: string): NetlinkMessage {
  return message(N.NFT_MSG_DELTABLE, 0, [[N.NFTA_TABLE_NAME, cString(name)]]);
}

/** A chain of filters at a hook (NF_INET_LOCAL_IN, …), which accepts what no rule drops. */
export function newChain(table: string, name: string, hook: number, priority: number): NetlinkMessage {
  return message(N.NFT_MSG_NEWCHAIN, NLM_F_CREATE, [
    [N.NFTA_CHAIN_TABLE, cString(table)],
    [N.NFTA_CHAIN_NAME, cString(name)],
    [
      N.NFTA_CHAIN_HOOK,
      [
        [N.NFTA_HOOK_HOOKNUM, be32(hook)],
        [N.NFTA_HOOK_PRIORITY, be32(priority)],
      ],
    ],
    [N.NFTA_CHAIN_POLICY, be32(N.NF_ACCEPT)],
    [N.NFTA_CHAIN_TYPE, cString('filter')],
  ]);
}

export function newRule(table: string, chain: string, expressions: readonly Expression[]): NetlinkMessage {
  return message(N.NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, [
    [N.NFTA_RULE_TABLE, cString(table)],
    [N.NFTA_RULE_CHAIN, cString(chain)],
    [
      N.NFTA_RULE_EXPRESSIONS,
      expressions.map(({ name, data }) => [
        N.NFTA_LIST_ELEM,
        [
          [N.NFTA_EXPR_NAME, cString(name)],
          [N.NFTA_EXPR_DATA, data],
        ],
      ]),
    ],
  ]);
}

/** How nft(8) shows a part of a key; six bits each, the last part lowest. */
export const KEY_TYPE = { ipv4: 7, ipv6: 8, port: 13 } as const;

/** A set of keys of so many bytes; `id` is any number that no other set of the transaction has. */
export function newSet(
  table: string,
  name: string,
  key: { readonly length: number; readonly types: readonly number[] },
  id: number,
): NetlinkMessage {
  return message(N.NFT_MSG_NEWSET, NLM_F_CREATE, [
    [N.NFTA_SET_TABLE, cString(table)],
    [N.NFTA_SET_NAME, cString(name)],
    [N.NFTA_SET_FLAGS, be32(0)],
    [N.NFTA_SET_KEY_TYPE, be32(key.types.reduce((all, type) => (all << 6) | type, 0))],
    [N.NFTA_SET_KEY_LEN, be32(key.length)],
    [N.NFTA_SET_ID, be32(id)],
  ]);
}

/** An attribute's length is a number of 16 bits. */
const ELEMENTS_PER_MESSAGE = 500;

export function newElements(table: string, set: string, keys: readonly Uint8Array[]): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at < keys.length; at += ELEMENTS_PER_MESSAGE)
    messages.push(
      message(N.NFT_MSG_NEWSETELEM, NLM_F_CREATE, [
        [N.NFTA_SET_ELEM_LIST_TABLE, cString(table)],
        [N.NFTA_SET_ELEM_LIST_SET, cString(set)],
        [
          N.NFTA_SET_ELEM_LIST_ELEMENTS,
          keys
            .slice(at, at + ELEMENTS_PER_MESSAGE)
            .map((key) => [N.NFTA_LIST_ELEM, [[N.NFTA_SET_ELEM_KEY, [[N.NFTA_DATA_VALUE, key]]]]]),
        ],
      ]),
    );
  return messages;
}

export function meta(key: number, register = N.NFT_REG32_00): Expression {
  return {
    name: 'meta',
    data: [
      [N.NFTA_META_KEY, be32(key)],
      [N.NFTA_META_DREG, be32(register)],
    ],
  };
}

/** Goes on only where the register is, or is not, `value`. */
export function compare(value: Uint8Array, operation = N.NFT_CMP_EQ, register = N.NFT_REG32_00): Expression {
  return {
    name: 'cmp',
    data: [
      [N.NFTA_CMP_SREG, be32(register)],
      [N.NFTA_CMP_OP, be32(operation)],
      [N.NFTA_CMP_DATA, [[N.NFTA_DATA_VALUE, value]]],
    ],
  };
}

export function mask(bits: Uint8Array, register = N.NFT_REG32_00): Expression {
  return {
    name: 'bitwise',
    data: [
      [N.NFTA_BITWISE_SREG, be32(register)],
      [N.NFTA_BITWISE_DREG, be32(register)],
      [N.NFTA_BITWISE_LEN, be32(bits.length)],
      [N.NFTA_BITWISE_MASK, [[N.NFTA_DATA_VALUE, bits]]],
      [N.NFTA_BITWISE_XOR, [[N.NFTA_DATA_VALUE, new Uint8Array(bits.length)]]],
    ],
  };
}

/** Bytes of a header (NFT_PAYLOAD_NETWORK_HEADER, …) into a register. */
export function payload(base: number, offset: number, length: number, register = N.NFT_REG32_00): Expression {
  return {
    name: 'payload',
    data: [
      [N.NFTA_PAYLOAD_DREG, be32(register)],
      [N.NFTA_PAYLOAD_BASE, be32(base)],
      [N.NFTA_PAYLOAD_OFFSET, be32(offset)],
      [N.NFTA_PAYLOAD_LEN, be32(length)],
    ],
  };
}

/** Goes on only where the registers, from the first on, are in the set. */
export function lookup(set: string): Expression {
  return {
    name: 'lookup',
    data: [
      [N.NFTA_LOOKUP_SET, cString(set)],
      [N.NFTA_LOOKUP_SREG, be32(N.NFT_REG32_00)],
    ],
  };
}

export function verdict(code: number): Expression {
  return {
    name: 'immediate',
    data: [
      [N.NFTA_IMMEDIATE_DREG, be32(N.NFT_REG_VERDICT)],
      [N.NFTA_IMMEDIATE_DATA, [[N.NFTA_DATA_VERDICT, [[N.NFTA_VERDICT_CODE, be32(code)]]]]],
    ],
  };
}

/** Between a begin and an end. */
export function transaction(messages: readonly NetlinkMessage[]): NetlinkMessage[] {
  const bound = (type: number): NetlinkMessage => {
    const body = new Uint8Array(N.NFGENMSG_SIZE);
    new DataView(body.buffer).setUint16(2, N.NFNL_SUBSYS_NFTABLES, false);
    return { type, flags: 0, body };
  };
  return [bound(N.NFNL_MSG_BATCH_BEGIN), ...messages, bound(N.NFNL_MSG_BATCH_END)];
}

/** What one sendto(2) of anybody would have to send for a transaction. */
export function transactionBytes(whole: readonly NetlinkMessage[]): Uint8Array {
  return encodePacket(whole);
}

/** A socket by which tables are made; those it owns go with it. */
export function openNftables(): Netlink {
  return new Netlink(NETLINK_NETFILTER, 'nftables');
}

/** Every inet table there is, with what was noted for it. */
export function listTables(netlink: Netlink): { name: string; note: Uint8Array | undefined }[] {
  const body = Uint8Array.of(N.NFPROTO_INET, 0, 0, 0);
  const type = (N.NFNL_SUBSYS_NFTABLES << 8) | N.NFT_MSG_GETTABLE;
  return netlink.request(type, NLM_F_DUMP, body).map((answer) => {
    const attributes = decodeAttributes(answer.body.subarray(N.NFGENMSG_SIZE));
    return {
      name: fromCString(attributes.get(N.NFTA_TABLE_NAME)),
      note: attributes.get(N.NFTA_TABLE_USERDATA),
    };
  });
}
