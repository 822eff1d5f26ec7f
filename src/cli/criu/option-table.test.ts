import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from './getopt.js';
import { ignoredOptions, refusedOptions } from './later.js';
import { parseOptions } from './option-table.js';
import type { CriuOptions } from './options.js';

function parse(...args: string[]): CriuOptions {
  return parseOptions([args]).options;
}

const VALID: readonly (readonly [args: string, expected: Partial<CriuOptions>])[] = [
  ['dump -t 7', { tree: 7, verbosity: 2, timeout_s: 10, finalState: 'default', ghostLimit_bytes: 1048576 }],
  [
    'dump -R -D img -W work -o log -v4',
    { finalState: 'running', imagesDir: 'img', workDir: 'work', logFile: 'log', verbosity: 4 },
  ],
  ['dump -s', { finalState: 'stopped' }],
  ['dump -s -R', { finalState: 'running' }],
  ['dump -v', { verbosity: 3 }],
  ['dump -vv', { verbosity: 4 }],
  ['dump -vvv', { verbosity: 5 }],
  ['check -verbosity=0', { verbosity: 0 }],
  ['restore -d -S -j -l', { restoreDetached: true, restoreSibling: true, shellJob: true, fileLocks: true }],
  ['restore --restore-detached --no-restore-detached', { restoreDetached: false }],
  ['restore --daemon', { restoreDetached: true }],
  ['dump --ghost-limit 8M --no-ghost-fiemap', { ghostLimit_bytes: 8 * 2 ** 20 }],
  ['dump --ghost-limit 512K', { ghostLimit_bytes: 512 * 2 ** 10 }],
  ['dump --manage-cgroups', { manageCgroups: 'soft' }],
  ['dump --manage-cgroups=full', { manageCgroups: 'full' }],
  ['dump --action-script a --action-script b', { actionScripts: ['b', 'a'] }],
  ['dump --external file[1:2] --external mnt[]:ms', { external: ['file[1:2]', 'mnt[]:ms'] }],
  [
    'restore --inherit-fd fd[5]:pipe:[77] --inherit-fd fd[6]:tty[8801:5]',
    {
      inheritFds: new Map([
        ['pipe:[77]', 5],
        ['tty[8801:5]', 6],
      ]),
    },
  ],
  ['dump --close 9 --close 10', { closeFds: [9, 10] }],
  [
    'dump --timeout 0 --status-fd 8 --freeze-cgroup /sys/fs/cgroup/x',
    { timeout_s: 0, statusFd: 8, freezeCgroup: '/sys/fs/cgroup/x' },
  ],
  ['dump --track-mem --prev-images-dir ../1', { trackMem: true, prevImagesDir: '../1' }],
  ['check --feature mnt_id', { feature: 'mnt_id' }],
  ['check --all', { extra: true, experimental: true }],
  ['dump --cpu-cap', { cpuCap: { fpu: true, ins: true, cpu: true, image: true } }],
  ['dump --cpu-cap=cpu,^fpu', { cpuCap: { fpu: false, ins: true, cpu: true, image: true } }],
  ['dump --cpu-cap=none', { cpuCap: { fpu: false, ins: false, cpu: false, image: false } }],
];

for (const [args, expected] of VALID)
  test(`options: ${args}`, () => {
    const options = parse(...args.split(' '));
    for (const [key, value] of Object.entries(expected))
      assert.deepEqual(options[key as keyof CriuOptions], value, key);
  });

/** Every option that zdtm.py, runc and LXC pass, in one go: all of them have to be understood. */
test('options that callers pass', () => {
  const args =
    'dump --no-default-config --log-file dump.log --images-dir d --verbosity=4 --tree 5 --pidfile p --timeout 10 ' +
    '--pre-dump-mode splice --external mnt[/dev]:ZDTM_DEV --freeze-cgroup /c --manage-cgroups --tcp-established ' +
    '--file-locks --network-lock nftables --link-remap --mntns-compat-mode --no-mntns-compat-mode --ext-mount-map ' +
    'auto --enable-external-masters --enable-external-sharing --skip-in-flight --irmap-scan-path /tmp --force-irmap ' +
    '--ext-unix-sk --enable-fs hugetlbfs --cgroup-yard /y --allow-uprobes --unprivileged --libdir /l --stream ' +
    '--lazy-pages --page-server --address 127.0.0.1 --port 12345 --auto-dedup --empty-ns net --join-ns net:/f ' +
    '--tls --tls-no-cn-verify --tls-key k --tls-cert c --tls-cacert a --tls-cacrl r --ps-socket 3 --root /r ' +
    '--skip-mnt /m --cgroup-root /g --cgroup-props p --cgroup-props-file f --cgroup-dump-controller cpu ' +
    '--veth-pair a=b --lsm-profile apparmor:x --lsm-mount-context c --weak-sysctls --tcp-close --evasive-devices ' +
    '--file-validation filesize --skip-file-rwx-check --deprecated --display-stats --log-pid';
  assert.equal(parse(...args.split(' ')).tree, 5);
});

const INVALID = [
  'dump -t 0',
  'dump -t x',
  'dump --manage-cgroups=sometimes',
  'dump --network-lock=nfs',
  'dump --file-validation size',
  'dump --pre-dump-mode slow',
  'dump --port 0',
  'dump --empty-ns mnt',
  'dump --veth-pair eth0',
  'restore --inherit-fd 5:x',
  'restore --join-ns net',
  'dump --cpu-cap=gpu',
  'check --ms',
];

for (const args of INVALID)
  test(`options refused: ${args}`, () => assert.throws(() => parse(...args.split(' ')), UsageError));

test('later sources win, lists add up', () => {
  const { options, words } = parseOptions([
    ['--timeout', '5', '--shell-job', '--external', 'a[1]'],
    ['--no-shell-job', '--timeout', '7'],
    ['dump', '--external', 'b[2]'],
  ]);
  assert.equal(options.timeout_s, 7);
  assert.equal(options.shellJob, false);
  assert.deepEqual(options.external, ['a[1]', 'b[2]']);
  assert.deepEqual(words, ['dump']);
});

test('what would change the outcome is refused by its name, the rest is not', () => {
  const refused = (args: string, verb: 'dump' | 'restore'): string[] =>
    refusedOptions(parse(...args.split(' ')), verb).map((line) => line.split(' ')[0] ?? '');
  assert.deepEqual(refused('x --page-server --tls', 'dump'), ['--page-server', '--tls']);
  assert.deepEqual(refused('x --track-mem --prev-images-dir ../1', 'dump'), [
    '--track-mem',
    '--prev-images-dir',
  ]);
  assert.deepEqual(refused('x --stream --no-stream', 'dump'), []);
  assert.deepEqual(refused('x --tcp-established --ext-unix-sk --weak-sysctls --skip-mnt /x', 'dump'), []);
  assert.deepEqual(refused('x --join-ns net:/x --lazy-pages', 'restore'), ['--lazy-pages']);
  assert.deepEqual(refused('x --join-ns uts:/x', 'restore'), ['--join-ns']);
  assert.deepEqual(ignoredOptions(parse('--manage-cgroups=ignore'), 'restore'), []);
  assert.equal(ignoredOptions(parse('--manage-cgroups'), 'restore').length, 1);
});
