import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createMessage, encodeImage, ImageReader } from '../../image/index.js';
import { Network } from '../../kernel/namespace.js';
import { buildContents, differences, loadContents, readContents } from './contents.js';

const CRIU = fileURLToPath(new URL('../../image/testdata/criu-4.2/namespaces', import.meta.url).href).replace(
  '/dist/',
  '/src/',
);
const ID = 9;

test('what CRIU has saved of a namespace is built', () => {
  using reader = ImageReader.open(CRIU, { trust: true });
  const contents = loadContents(reader, ID);
  using _ = Network.fresh();
  buildContents(contents, 'early');
  const built = readContents();
  // The image has no more of it than CRIU keeps: the kernel adds its own routes, and has more sysctls.
  const missed = [...contents].flatMap(([part, content]) => {
    const there = new Set(part.lines(built.get(part)));
    return part.isLate === true || part.name === 'devices'
      ? []
      : part.lines(content).filter((line) => !there.has(line));
  });
  assert.deepEqual(missed, []);
});

test('two namespaces that were just born are the same', () => {
  const fresh = (): ReturnType<typeof readContents> => {
    using _ = Network.fresh();
    return readContents();
  };
  assert.deepEqual(differences(fresh(), fresh()), []);
});

const INVALID: readonly (readonly [file: string, content: string, message: RegExp])[] = [
  ['stasis-network.json', '{', /stasis-network\.json/],
  ['stasis-network.json', '{"version":2}', /is of another version/],
  ['stasis-network.json', '{"version":1,"sysctls":[],"unchanged":[]}', /has no sysctls/],
  ['stasis-network.json', '{"version":1,"sysctls":{"../kernel/x":"1"},"unchanged":[]}', /is no sysctl/],
  [
    'stasis-network.json',
    '{"version":1,"sysctls":{"ipv4/../../kernel/x":"1"},"unchanged":[]}',
    /is no sysctl/,
  ],
  ['stasis-network.json', '{"version":1,"sysctls":{"ipv4/x":1},"unchanged":[]}', /is no text/],
  ['stasis-network.json', '{"version":1,"sysctls":{}}', /which of them are unchanged/],
  ['ifaddr-9.img', 'nonsense', /ifaddr-9\.img.*magic/],
  ['netns-ct-9.img', 'nonsense', /netns-ct-9\.img.*no message/],
  ...['include "/etc/shadow"', 'table ip x { ;\tinclude "/etc/shadow"\n}'].map(
    (text) => ['nftables-9.img', text, /nftables-9\.img: .*"include"/] as const,
  ),
  ...['-M /tmp/x', '-"M" /tmp/x', '-vM/tmp/x', '--modprobe=/tmp/x', '--modp /tmp/x'].flatMap((option) =>
    ['iptables-9.img', 'ip6tables-9.img'].map(
      (file) =>
        [file, `*filter\n-A INPUT ${option}\nCOMMIT\n`, /tables-9\.img: .*a program to be run/] as const,
    ),
  ),
];

for (const [file, content, message] of INVALID)
  test(`refused: ${file} with ${content}`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'stasis-network-'));
    try {
      cpSync(CRIU, directory, { recursive: true });
      writeFileSync(join(directory, file), content);
      using reader = ImageReader.open(directory, { trust: true });
      assert.throws(() => loadContents(reader, ID), message);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

test('refused: a device of CRIU whose name leads out of /proc/sys/net', () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-network-'));
  try {
    cpSync(CRIU, directory, { recursive: true });
    const message = createMessage('netdev', {
      type: 1,
      ifindex: 1,
      mtu: 65536,
      flags: 0,
      name: '../../../kernel',
    });
    writeFileSync(join(directory, 'netdev-9.img'), encodeImage('netdev', [{ message }]));
    using reader = ImageReader.open(directory, { trust: true });
    assert.throws(
      () => loadContents(reader, ID),
      /netdev-9\.img: \.\.\/\.\.\/\.\.\/kernel is a device that cannot/,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
