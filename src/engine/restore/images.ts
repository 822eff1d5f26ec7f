import { ImageError, type ImageReader, type MessageOf, verifyImage } from '../../image/index.js';
import type { core_entry, ProcessImage } from '../../resources/contract.js';

/** One process of an image, with all that is said of it outside its memory. */
export interface RestoreProcess extends ProcessImage {
  readonly parent: RestoreProcess | undefined;
  readonly children: RestoreProcess[];
  readonly pgid: number;
  readonly sid: number;
  readonly isZombie: boolean;
  /** The leader first. */
  readonly threads: readonly { readonly tid: number; readonly core: core_entry }[];
  readonly ids: MessageOf<'ids'> | undefined;
  readonly fs: MessageOf<'fs'> | undefined;
  readonly descriptors: readonly MessageOf<'fdinfo'>[];
}

const TASK_DEAD = 2;

/**
 * Read an image's tree, parents first. All metadata is checked here, before any process exists.
 * Throws ImageError with file and offset.
 */
export function readProcesses(reader: ImageReader): RestoreProcess[] {
  const [problem] = verifyImage(reader);
  if (problem !== undefined) throw new ImageError(problem.file, problem.message);
  const found = new Map<number, RestoreProcess>();
  for (const entry of reader.read('pstree')) {
    const parent = found.get(entry.ppid);
    if (parent === undefined && found.size > 0)
      throw new ImageError(
        'pstree.img',
        `pid ${entry.pid} has parent ${entry.ppid}, which does not come before it`,
      );
    if (found.has(entry.pid)) throw new ImageError('pstree.img', `pid ${entry.pid} is there twice`);
    const process = readProcess(reader, entry, parent);
    parent?.children.push(process);
    found.set(entry.pid, process);
  }
  if (found.size === 0) throw new ImageError('pstree.img', 'no process');
  return [...found.values()];
}

function readProcess(
  reader: ImageReader,
  entry: MessageOf<'pstree'>,
  parent: RestoreProcess | undefined,
): RestoreProcess {
  const { pid } = entry;
  const core = reader.readOne('core', pid);
  const isZombie = core.tc?.taskState === TASK_DEAD;
  const others = isZombie ? [] : entry.threads.filter((tid) => tid !== pid);
  const ids = isZombie ? undefined : reader.readOne('ids', pid);
  return {
    pid,
    parent,
    children: [],
    core,
    reader,
    name: `pid ${pid} (${core.tc?.comm ?? '?'})`,
    pgid: entry.pgid,
    sid: entry.sid,
    isZombie,
    threads: [{ tid: pid, core }, ...others.map((tid) => ({ tid, core: reader.readOne('core', tid) }))],
    mm: isZombie ? undefined : reader.readOne('mm', pid),
    ids,
    fs: isZombie ? undefined : reader.readOptional('fs', pid)?.[0],
    descriptors: ids === undefined ? [] : (reader.readOptional('fdinfo', ids.filesId) ?? []),
  };
}
