// Real servers under load, dumped and restored again and again: `npm run test:integration -- postgres`. Debian's packages
// are installed where a program is missing. The tests are those of dist/integration, which are skipped elsewhere. With
// `--available`, programs that cannot be installed here are left out, aloud.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const INSTALL_MS = 300_000;
const root = fileURLToPath(new URL('..', import.meta.url));

/** What each test starts, and the package it comes with. */
const PROGRAMS = {
  terminal: {
    package: 'tmux screen vim less procps',
    isThere: () => ['tmux', 'screen', 'vim', 'less', 'top'].every(isCommand),
  },
  go: { package: 'golang-go', isThere: () => isCommand('go') },
  java: { package: 'openjdk-17-jdk-headless', isThere: () => isCommand('javac') },
  postgres: { package: 'postgresql', isThere: () => postgresThere() },
  memcached: { package: 'memcached', isThere: () => existsSync('/usr/bin/memcached') },
  nginx: { package: 'nginx-light', isThere: () => existsSync('/usr/sbin/nginx') },
  sshd: { package: 'openssh-server', isThere: () => existsSync('/usr/sbin/sshd') && isCommand('ssh') },
  redis: { package: 'redis-server', isThere: () => existsSync('/usr/bin/redis-server') },
};

const isLenient = process.argv.includes('--available');
const filters = process.argv.slice(2).filter((word) => word !== '--available');
const wanted = Object.entries(PROGRAMS).filter(
  ([name]) =>
    filters.length === 0 || filters.some((filter) => name.includes(filter) || filter.includes(name)),
);
const packages = wanted
  .filter(([, { isThere }]) => !isThere())
  .flatMap(([, each]) => each.package.split(' '));
if (!existsSync('/usr/bin/python3')) packages.push('python3');
if (packages.length > 0) install(packages);

const leftOut = wanted.filter(([, { isThere }]) => !isThere()).map(([name]) => name);
if (leftOut.length > 0) console.log(`stasis: left out, not to be had here: ${leftOut.join(', ')}`);
const asked = filters.length === 0 ? allTests() : filters;
const names = asked.filter((name) => !leftOut.includes(name)).map((name) => `integration/${name}`);
if (names.length === 0) process.exit(0);
const { status } = spawnSync(process.execPath, ['scripts/test.mjs', ...names], {
  cwd: root,
  stdio: 'inherit',
  env: {
    ...process.env,
    STASIS_INTEGRATION: '1',
    STASIS_TEST_TIMEOUT_MS: '3600000',
    // A terminal comes back with its number, which another test would take meanwhile.
    STASIS_TEST_CONCURRENCY: '1',
  },
});
process.exit(status ?? 1);

/** Some need nothing but what is there for all tests. */
function allTests() {
  return readdirSync(`${root}dist/integration`)
    .filter((file) => file.endsWith('.test.js'))
    .map((file) => file.replace('.test.js', ''));
}

function isCommand(name) {
  return spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
}

function postgresThere() {
  const versions = '/usr/lib/postgresql';
  return (
    existsSync(versions) &&
    readdirSync(versions).some((version) => existsSync(`${versions}/${version}/bin/initdb`))
  );
}

function install(missing) {
  console.log(`stasis: installing ${missing.join(', ')}`);
  // No service is to be started, and no cluster made, only the programs are wanted.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  for (const words of [
    ['update', '-q'],
    ['install', '-q', '-y', '--no-install-recommends', ...missing],
  ]) {
    const stdio = ['ignore', 'ignore', 'inherit'];
    if (spawnSync('apt-get', words, { env, stdio, timeout: INSTALL_MS }).status === 0) continue;
    console.error(`stasis: apt-get ${words.join(' ')} failed`);
    if (isLenient) return;
    process.exit(1);
  }
}
