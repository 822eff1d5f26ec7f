import type { CriuOptions } from './options.js';

/**
 * Options of states that Stasis does not handle yet. Where the state itself is refused by the dump (sockets,
 * namespaces), the option changes nothing and is accepted; where leaving it out would make another outcome than the
 * one asked for, it is refused by its name.
 */

type Verb = 'dump' | 'restore';

interface Later {
  readonly option: string;
  readonly verbs: readonly Verb[];
  readonly why: string;
}

const REFUSED: readonly Later[] = [
  { option: 'page-server', verbs: ['dump'], why: 'pages cannot be sent to a page server yet' },
  { option: 'lazy-pages', verbs: ['dump', 'restore'], why: 'memory cannot be restored on demand yet' },
  { option: 'stream', verbs: ['dump', 'restore'], why: 'images cannot be streamed yet' },
  { option: 'tls', verbs: ['dump', 'restore'], why: 'there is no page server to connect to yet' },
  { option: 'empty-ns', verbs: ['dump', 'restore'], why: 'namespaces are not handled yet' },
  { option: 'lsm-profile', verbs: ['restore'], why: 'labels of security modules are not set yet' },
  { option: 'cgroup-root', verbs: ['restore'], why: 'cgroups are not restored yet' },
  { option: 'cgroup-yard', verbs: ['restore'], why: 'cgroups are not restored yet' },
];

/** In words, what cannot be done for this verb; empty when all that was asked for can. */
export function refusedOptions(options: CriuOptions, verb: Verb): string[] {
  const refused = REFUSED.filter(
    ({ option, verbs }) => verbs.includes(verb) && options.given.has(option),
  ).map(({ option, why }) => `--${option} cannot be used: ${why}`);
  if (verb === 'restore')
    for (const join of options.joinNs)
      if (!join.startsWith('net:'))
        refused.push(`--join-ns ${join} cannot be used: only network namespaces can be joined yet`);
  if (verb === 'dump' && options.trackMem)
    refused.push(
      '--track-mem cannot be used: memory changes are not tracked yet (see check --feature mem_dirty_track)',
    );
  if (verb === 'dump' && options.prevImagesDir !== undefined)
    refused.push('--prev-images-dir cannot be used: incremental images are not written yet');
  return refused;
}

/** What is accepted and has no effect, but might have been expected to. */
export function ignoredOptions(options: CriuOptions, verb: Verb): string[] {
  const ignored: string[] = [];
  const { manageCgroups } = options;
  if (
    verb === 'restore' &&
    manageCgroups !== undefined &&
    manageCgroups !== 'none' &&
    manageCgroups !== 'ignore'
  )
    ignored.push(`--manage-cgroups=${manageCgroups}: the tree stays in the cgroups of criu itself`);
  if (options.given.has('auto-dedup')) ignored.push('--auto-dedup: nothing is punched out of images');
  return ignored;
}
