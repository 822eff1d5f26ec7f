// Writes docs/support.md from the registry in dist/; run it after a build, when a kind of object was added or changed.
import { writeFileSync } from 'node:fs';
import { supportPage } from '../dist/engine/support.js';

writeFileSync(new URL('../docs/support.md', import.meta.url), supportPage());
