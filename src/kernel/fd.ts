import { attempt } from './syscall.js';

/** A descriptor of this process that is closed when its scope ends. */
export class OwnedFd implements Disposable {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get fd(): number {
    if (this.#fd < 0) throw new Error('descriptor is closed');
    return this.#fd;
  }

  /** Give the descriptor away: the caller closes it. */
  release(): number {
    const fd = this.fd;
    this.#fd = -1;
    return fd;
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) attempt('close', [this.#fd]);
    this.#fd = -1;
  }
}
