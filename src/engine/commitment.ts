import { AT_FDCWD } from '../abi/fcntl.js';
import {
  ArchiveTarget,
  DirectoryTarget,
  type ImageTarget,
  type ImageWriter,
  type MessageOf,
} from '../image/index.js';
import { KINDS } from '../image/kinds.js';
import type { Label, Operand, Tape } from '../tape/tape.js';
import { StreamCommitment } from './commitment-stream.js';
import type { MoveError } from './errors.js';
import type { Guardian } from './guardian.js';
import type { CheckpointOptions } from './options.js';

/**
 * How an image comes to count, and how a guardian whose controller has died finds out whether it does. In a directory
 * and for an archive it is a name that appears; for a stream see commitment-stream.ts.
 */
export interface Commitment {
  readonly target: ImageTarget;
  /** Something has gone out that cannot be taken back: the dump cannot be begun anew. */
  readonly isUnderWay: boolean;
  /** Descriptors of this process that the guardian needs as well. */
  readonly descriptors: readonly number[];
  /** The guardian's tape goes on at `label` if the tree must not. `fd` is a descriptor there. */
  ifCommitted(tape: Tape, fd: Descriptors, label: Label): void;
  /** Behind `ifCommitted`: the tape goes on at `label` if the tree is to be stopped, whatever was asked for. */
  ifUndecided(tape: Tape, label: Label): void;
  /** The last entries for a tree that was killed. */
  afterKill(tape: Tape, fd: Descriptors): void;
  /**
   * Make the image valid. Every throw means that it is not, and that the tree may go on.
   * Answers an error where it is not known whether it counts: the tree is to stay stopped.
   */
  commit(writer: ImageWriter, inventory: MessageOf<'inventory'>, guardian: Guardian): MoveError | undefined;
  /** The tree was killed. */
  killed(): void;
}

/** The guardian's number for a descriptor of this process. */
export type Descriptors = (fd: number) => Operand;

export function commitmentOf(options: CheckpointOptions): Commitment {
  const { directory, overwrite, durable, to } = options;
  if (to?.kind === 'stream') return new StreamCommitment(to, options);
  if (to?.kind === 'archive') {
    const target = ArchiveTarget.create(directory, { overwrite });
    return new NameCommitment(target, target.path, durable);
  }
  const target = DirectoryTarget.create(directory, { overwrite });
  return new NameCommitment(target, `${target.path}/${KINDS.inventory.file}`, durable);
}

/** The image is valid as soon as a file has its name. */
class NameCommitment implements Commitment {
  readonly target: ImageTarget;
  readonly isUnderWay = false;
  readonly descriptors = [];
  readonly #name: string;
  readonly #durable: boolean;

  constructor(target: ImageTarget, name: string, durable: boolean) {
    this.target = target;
    this.#name = name;
    this.#durable = durable;
  }

  ifCommitted(tape: Tape, _fd: Descriptors, label: Label): void {
    tape.jump('faccessat', [AT_FDCWD, tape.string(this.#name), 0], label);
  }

  ifUndecided(): void {}

  afterKill(): void {}

  commit(writer: ImageWriter, inventory: MessageOf<'inventory'>): undefined {
    writer.commit(inventory, { durable: this.#durable });
  }

  killed(): void {}
}
