import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Script } from 'node:vm';

/**
 * Starts a program that was bundled into one file, with what V8 made of it beside it: half of what a short command
 * costs is reading and compiling JavaScript that is the same every time. (Node 22.1 has module.enableCompileCache for
 * this, Node 20 has nothing.) The build makes the cache by a run; without one, or under another version of Node, whose
 * V8 rejects it, the program is compiled as ever.
 */
const MAKE = 'STASIS_MAKE_CODE_CACHE';

/** What the bundle exports. Its cache is written when this process ends, if the build's variable asks for it. */
export function startBundle(bundle: URL): unknown {
  const file = fileURLToPath(bundle);
  const cachedData = cacheOf(file);
  const source = `(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'utf8')}\n})`;
  const script = new Script(source, { filename: file, ...(cachedData === undefined ? {} : { cachedData }) });
  if (process.env[MAKE] !== undefined) process.on('exit', () => writeCache(file, script.createCachedData()));
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(file), module, file, dirname(file));
  return module.exports;
}

function cacheOf(file: string): Buffer | undefined {
  try {
    return readFileSync(`${file}.cache`);
  } catch {
    return undefined;
  }
}

function writeCache(file: string, cache: Buffer): void {
  const fresh = `${file}.cache.${process.pid}`;
  writeFileSync(fresh, cache);
  renameSync(fresh, `${file}.cache`);
}
