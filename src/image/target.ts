/** Where an image is written to: a directory, an archive, a stream. Nothing counts before `commit`. */
export interface ImageTarget extends Disposable {
  /** What messages call it. */
  readonly path: string;
  /** A new file. @throws ImageError when it cannot be made */
  create(name: string): ImageFile;
  /** Take a file away again that `create` made. */
  remove(name: string): void;
  /** The link `parent`. */
  link(target: string): void;
  /**
   * Everything else is there: the inventory follows, and the image is valid at once. `publish` is given the one act
   * that makes it so.
   */
  commit(inventory: Uint8Array, options: CommitOptions): void;
}

export interface CommitOptions {
  /** Wait for the disk. */
  readonly durable: boolean;
  readonly publish: (act: () => void) => void;
}

/** A file that is being written, from its begin to its end. */
export interface ImageFile {
  /** Written so far. */
  readonly bytes: number;
  write(bytes: Uint8Array): void;
  /** No more comes; does nothing when it was closed. */
  close(): void;
}
