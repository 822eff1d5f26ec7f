import assert from 'node:assert/strict';
import test from 'node:test';
import * as S from '../../abi/socket.js';
import { decodeBeside } from './beside-codec.js';
import { imageAddress, needsInterface, printAddress, readSockaddr, sockaddrBytes } from './inet-address.js';
import { encodeUdp } from './udp-packet.js';

const FROM = '02003039c0a80001000000000000000000'.slice(0, 32);
const of = (socket: unknown): unknown => ({ version: 1, sockets: { 7: socket } });

test('stasis-sockets.json: valid', () => {
  for (const socket of [
    {},
    { options: { IP_TTL: '40000000' }, uid: 0, gid: 0xffff_ffff },
    { groups: [{ interface: 'eth0', address: FROM, mode: 0, sources: [FROM] }] },
    {
      datagrams: [
        { from: FROM, data: '' },
        { from: FROM, to: FROM, data: 'eA==', ttl: 64, tos: 0 },
      ],
    },
    { interfaces: { 3: 'br-lan.7' }, netlink_groups: [0, 1], type: 2 },
  ])
    assert.deepEqual(decodeBeside(of(socket)).get(7), socket);
});

test('stasis-sockets.json: invalid', () => {
  for (const content of [
    undefined,
    [],
    { version: 2, sockets: {} },
    { version: 1 },
    { version: 1, sockets: { x: {} } },
    of(7),
    of({ later: 1 }),
    of({ options: { IP_TTL: 7 } }),
    of({ uid: -1 }),
    of({ uid: 2 ** 32 }),
    of({ groups: [{ interface: 'a/b', address: FROM, mode: 0, sources: [] }] }),
    of({ groups: [{ interface: 'a', address: 'ff', mode: 0, sources: [] }] }),
    of({ datagrams: [{ from: FROM }] }),
    of({ datagrams: [{ from: FROM, data: '*' }] }),
    of({ interfaces: { 3: '' } }),
    of({ netlink_groups: 1 }),
  ])
    assert.throws(() => decodeBeside(content), JSON.stringify(content) ?? 'undefined');
});

test('addresses, as sockaddr and in words', () => {
  const four = imageAddress(S.AF_INET, 80, [0x0100_000a], 1);
  assert.equal(printAddress(four), '10.0.0.1:80');
  assert.equal(Buffer.from(sockaddrBytes(four)).toString('hex'), '020000500a0000010000000000000000');
  assert.deepEqual(readSockaddr(sockaddrBytes(four)), four);
  const six = imageAddress(S.AF_INET6, 443, [0x80fe, 0, 0, 0x0100_0000], 1);
  assert.equal(printAddress(six), '[fe80::1]:443');
  assert.ok(needsInterface(six));
  assert.ok(!needsInterface(imageAddress(S.AF_INET6, 0, [0, 0, 0, 0x0100_0000], 1)));
  assert.deepEqual(readSockaddr(sockaddrBytes({ ...six, scope: 3 })), { ...six, scope: 3 });
  assert.throws(() => imageAddress(S.AF_INET6, 0, [0], 1), /file 1/);
  assert.throws(() => imageAddress(S.AF_UNIX, 0, [0], 1), /file 1/);
  assert.throws(() => imageAddress(S.AF_INET, 65536, [0], 1), /file 1/);
});

test('a packet of UDP and its checksum', () => {
  const from = imageAddress(S.AF_INET, 0x1234, [0x0100_007f], 1);
  const packet = encodeUdp({
    protocol: S.IPPROTO_UDP,
    from,
    to: { ...from, port: 0x35 },
    data: Buffer.from('abc'),
    ttl: 64,
    tos: 16,
  });
  assert.equal(
    Buffer.from(packet).toString('hex'),
    '4510001f0000000040110000' + '7f0000017f000001' + '12340035000b' + '2b0a' + '616263',
  );
});
