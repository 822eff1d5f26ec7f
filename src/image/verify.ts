import { ImageError } from './errors.js';
import { isRawFile, kindOfFile, pagemapOfFile } from './kinds.js';
import { checkPages } from './pages.js';
import type { ImageReader } from './reader.js';
import type { core_entry, task_kobj_ids_entry } from './schema/generated/core_pb.js';
import type { file_entry } from './schema/generated/files_pb.js';
import type { pstree_entry } from './schema/generated/inventory_pb.js';

/*
 * What can be said of an image by its format alone, before any process exists: every file parses, every length
 * fits, and whatever one file refers to is in another.
 */

export interface ImageProblem {
  readonly file: string;
  readonly offset?: number;
  readonly message: string;
}

const TASK_DEAD = 2;
/** Mappings whose `shmid` is the id of a file. */
const VMA_FILE = 0x40 | 0x80 | 0x4000;
/** Guard regions are no mappings: they lie inside of others and come behind all of them. */
const VMA_GUARD = 0x10000;
const PAGES_FILE = /^pages-\d+\.img$/;
const PROBLEMS_MAX = 1000;

class Verification {
  readonly problems: ImageProblem[] = [];
  readonly reader: ImageReader;
  readonly names: readonly string[];

  constructor(reader: ImageReader) {
    this.reader = reader;
    this.names = reader.list();
  }

  report(file: string, message: string): void {
    if (this.problems.length < PROBLEMS_MAX)
      this.problems.push({ file: `${this.reader.directory}/${file}`, message });
  }

  /** Runs a step; an ImageError in it becomes a problem, and the step's result undefined. */
  attempt<T>(step: () => T): T | undefined {
    try {
      return step();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      const { file, offset } = error;
      const message = error.message.slice(error.message.indexOf(': ') + 2);
      const known = this.problems.some((problem) => problem.file === file && problem.message === message);
      if (!known && this.problems.length < PROBLEMS_MAX) {
        this.problems.push(offset === undefined ? { file, message } : { file, offset, message });
      }
      return undefined;
    }
  }
}

/** All that is wrong with an image, up to a thousand problems; an empty list when it is sound. */
export function verifyImage(reader: ImageReader): ImageProblem[] {
  const check = new Verification(reader);
  for (const name of check.names) {
    const known = kindOfFile(name);
    if (known !== undefined) check.attempt(() => reader.recordsOf(known.kind, name));
    else if (isRawFile(name) && !PAGES_FILE.test(name)) check.attempt(() => reader.size(name));
  }
  checkAllPages(check);
  const tree = check.attempt(() => reader.readOptional('pstree'));
  // A pre-dump is pages only.
  if (tree === undefined) {
    if (!Object.hasOwn(reader.inventory, 'preDumpMode')) check.attempt(() => reader.read('pstree'));
    return check.problems;
  }
  const files = checkFiles(check);
  checkTree(check, tree);
  const tables = new Set<number>();
  const spaces = new Set<number>();
  for (const task of tree) checkTask(check, task, { files, tables, spaces });
  return check.problems;
}

function checkAllPages(check: Verification): void {
  const used = new Set<string>();
  for (const name of check.names) {
    const owner = pagemapOfFile(name);
    if (owner === undefined) continue;
    check.attempt(() => {
      const pagemap = check.reader.pagemap(owner.id, { shmem: owner.shmem });
      if (pagemap === undefined) return;
      const pages = `pages-${pagemap.pagesId}.img`;
      if (used.has(pages)) check.report(name, `${pages} belongs to another pagemap as well`);
      used.add(pages);
      checkPages(check.reader, owner.id, { shmem: owner.shmem });
    });
  }
  for (const name of check.names) {
    if (PAGES_FILE.test(name) && !used.has(name)) check.report(name, 'belongs to no pagemap');
  }
}

type Files = ReadonlyMap<number, file_entry>;

/** The open files by id; what they refer to is checked here. */
function checkFiles(check: Verification): Files {
  const files = new Map<number, file_entry>();
  for (const file of check.attempt(() => check.reader.readOptional('files')) ?? []) {
    if (files.has(file.id)) check.report('files.img', `two files have the id ${file.id}`);
    files.set(file.id, file);
  }
  const inodes = new Set(
    (check.attempt(() => check.reader.readOptional('memfd')) ?? []).map((m) => m.inodeId),
  );
  const pipes = new Set<number>();
  const fifos = new Set<number>();
  for (const { id, memfd, pipe, fifo } of files.values()) {
    if (pipe !== undefined) pipes.add(pipe.pipeId);
    if (fifo !== undefined) fifos.add(fifo.pipeId);
    if (memfd !== undefined && !inodes.has(BigInt(memfd.inodeId))) {
      check.report('files.img', `memfd ${id} has inode ${memfd.inodeId}, which memfd.img lacks`);
    }
  }
  for (const [kind, known] of [['pipes-data', pipes] as const, ['fifo-data', fifos] as const]) {
    for (const data of check.attempt(() => check.reader.readOptional(kind)) ?? []) {
      if (!known.has(data.pipeId))
        check.report(`${kind}.img`, `data of pipe ${data.pipeId}, which no file is`);
    }
  }
  return files;
}

function checkTree(check: Verification, tree: readonly pstree_entry[]): void {
  const pids = new Set<number>();
  tree.forEach((task, index) => {
    if (pids.has(task.pid)) check.report('pstree.img', `pid ${task.pid} is there twice`);
    // The first one's parent is whoever restores it.
    if (index > 0 && task.ppid !== 0 && !pids.has(task.ppid)) {
      check.report('pstree.img', `pid ${task.pid} comes before its parent ${task.ppid}, or without it`);
    }
    pids.add(task.pid);
  });
  if (tree.length === 0) check.report('pstree.img', 'has no task');
}

/** What is known once, however many tasks share it. */
interface Shared {
  readonly files: Files;
  readonly tables: Set<number>;
  readonly spaces: Set<number>;
}

function checkTask(check: Verification, task: pstree_entry, shared: Shared): void {
  const core = check.attempt(() => check.reader.readOne('core', task.pid));
  if (core === undefined) return;
  checkThread(check, task.pid, core);
  if (core.tc === undefined) check.report(`core-${task.pid}.img`, 'is a leader’s but has no task part');
  // CRIU gives a dead task one thread with the tid 0.
  if (core.tc?.taskState === TASK_DEAD) return;
  for (const tid of task.threads) {
    if (tid !== task.pid) check.attempt(() => checkThread(check, tid, check.reader.readOne('core', tid)));
  }
  const ids = check.attempt(() => core.ids ?? check.reader.readOne('ids', task.pid));
  if (ids === undefined) return;
  checkTable(check, ids, shared);
  checkFs(check, task.pid, shared.files);
  if (!shared.spaces.has(ids.vmId)) checkSpace(check, task.pid, shared.files);
  shared.spaces.add(ids.vmId);
}

function checkThread(check: Verification, tid: number, core: core_entry): void {
  if (core.tc?.taskState === TASK_DEAD) return;
  if (core.threadCore === undefined) check.report(`core-${tid}.img`, 'has no thread part');
  const filter = core.threadCore?.seccompFilter;
  if (filter === undefined || core.threadCore?.seccompMode !== 2) return;
  const filters = check.attempt(() => check.reader.readOne('seccomp'))?.seccompFilters.length ?? 0;
  if (filter >= filters)
    check.report(`core-${tid}.img`, `has seccomp filter ${filter}, of ${filters} in seccomp.img`);
}

function checkTable(check: Verification, ids: task_kobj_ids_entry, { files, tables }: Shared): void {
  if (tables.has(ids.filesId)) return;
  tables.add(ids.filesId);
  const name = `fdinfo-${ids.filesId}.img`;
  const seen = new Set<number>();
  // A process without descriptors has no such file.
  for (const { fd, id, type } of check.attempt(() => check.reader.readOptional('fdinfo', ids.filesId)) ??
    []) {
    if (seen.has(fd)) check.report(name, `descriptor ${fd} is there twice`);
    seen.add(fd);
    const file = files.get(id);
    if (file === undefined) check.report(name, `descriptor ${fd} is file ${id}, which files.img lacks`);
    else if (file.type !== type)
      check.report(name, `descriptor ${fd} has type ${type}, its file ${id} has ${file.type}`);
  }
}

function checkFs(check: Verification, pid: number, files: Files): void {
  const fs = check.attempt(() => check.reader.readOne('fs', pid));
  if (fs === undefined) return;
  for (const [what, id] of [['working directory', fs.cwdId] as const, ['root', fs.rootId] as const]) {
    if (!files.has(id)) check.report(`fs-${pid}.img`, `the ${what} is file ${id}, which files.img lacks`);
  }
}

function checkSpace(check: Verification, pid: number, files: Files): void {
  const name = `mm-${pid}.img`;
  const mm = check.attempt(() => check.reader.readOne('mm', pid));
  if (mm === undefined) return;
  if (!files.has(mm.exeFileId))
    check.report(name, `the executable is file ${mm.exeFileId}, which files.img lacks`);
  let end = 0n;
  for (const vma of mm.vmas) {
    if ((vma.status & VMA_GUARD) !== 0) continue;
    const at = `the mapping at 0x${vma.start.toString(16)}`;
    if (vma.start < end || vma.end <= vma.start)
      check.report(name, `${at} is empty, or overlaps the one before it`);
    end = vma.end;
    if ((vma.status & VMA_FILE) !== 0 && !files.has(Number(vma.shmid))) {
      check.report(name, `${at} is of file ${vma.shmid}, which files.img lacks`);
    }
  }
  if (check.names.includes(`pagemap-${pid}.img`)) return;
  check.report(`pagemap-${pid}.img`, 'is missing');
}
