import type { ImageReader } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { decodeNotification, type Notification } from './mqueue-notify.js';

/**
 * stasis-mqueues.json: POSIX message queues, for which CRIU's format has nothing. files.img names them as external
 * files, which CRIU gives back to a plugin that knows them, and without one refuses the image.
 */
export const MQUEUE_FILE = 'stasis-mqueues.json';

export interface Message {
  readonly priority: number;
  readonly data: Uint8Array;
}

export interface Queue {
  /** Without the slash it begins with for programs. */
  readonly name: string;
  /** mq_unlink(3) was called while it was open. */
  readonly deleted: boolean;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly maxmsg: number;
  /** Bytes. */
  readonly msgsize: number;
  /** In the order in which they are received. */
  readonly messages: readonly Message[];
  readonly notify?: Notification;
}

export interface QueueFile {
  /** In files.img. */
  readonly id: number;
  /** Index into the queues. */
  readonly queue: number;
  readonly flags: number;
  readonly pos: number;
  /** Where it was not mq_open(3) that opened it. */
  readonly path?: string;
}

export interface Mqueues {
  readonly queues: readonly Queue[];
  readonly files: readonly QueueFile[];
}

const VERSION = 1;

export function encodeMqueues({ queues, files }: Mqueues): Uint8Array {
  const plain = queues.map((queue) => ({
    ...queue,
    messages: queue.messages.map(({ priority, data }) => ({
      priority,
      data: Buffer.from(data).toString('base64'),
    })),
  }));
  return Buffer.from(`${JSON.stringify({ version: VERSION, queues: plain, files }, undefined, 1)}\n`);
}

/** Throws Error saying what is not as it should be. */
export function decodeMqueues(content: unknown): Mqueues {
  if (!isRecord(content) || content.version !== VERSION) throw new Error(`is not of version ${VERSION}`);
  const { queues, files } = content;
  if (!Array.isArray(queues) || !Array.isArray(files)) throw new Error('has no queues or no files');
  const decoded = queues.map((queue: unknown, index) => decodeQueue(queue, index));
  return { queues: decoded, files: files.map((file: unknown) => decodeFile(file, decoded.length)) };
}

function decodeQueue(queue: unknown, index: number): Queue {
  if (!isRecord(queue)) throw new Error(`queue ${index} is no record`);
  const { name, deleted, messages } = queue;
  if (typeof name !== 'string' || name === '' || name.includes('/') || typeof deleted !== 'boolean')
    throw new Error(`queue ${index} has no name`);
  if (!Array.isArray(messages)) throw new Error(`queue ${name} has no messages`);
  const numbers = { ...limits(queue, ['mode', 'uid', 'gid', 'maxmsg', 'msgsize'] as const, name) };
  const notify = queue.notify === undefined ? {} : { notify: decodeNotification(queue.notify, name) };
  const decoded = messages.map((each: unknown) => decodeMessage(each, name));
  return { name, deleted, ...numbers, messages: decoded, ...notify };
}

function decodeMessage(message: unknown, name: string): Message {
  if (!isRecord(message) || typeof message.data !== 'string')
    throw new Error(`queue ${name}: a message is no record`);
  const { priority } = limits(message, ['priority'] as const, name);
  return { priority, data: new Uint8Array(Buffer.from(message.data, 'base64')) };
}

function decodeFile(file: unknown, queues: number): QueueFile {
  if (!isRecord(file)) throw new Error('a file is no record');
  const numbers = limits(file, ['id', 'queue', 'flags', 'pos'] as const, 'a file');
  if (numbers.queue >= queues)
    throw new Error(`file ${numbers.id} is of queue ${numbers.queue}, which is not there`);
  if (file.path === undefined) return numbers;
  if (typeof file.path !== 'string') throw new Error(`file ${numbers.id} has a path that is no text`);
  return { ...numbers, path: file.path };
}

function limits<K extends string>(
  record: Record<string, unknown>,
  keys: readonly K[],
  what: string,
): Record<K, number> {
  const found: Record<string, number> = {};
  for (const key of keys) {
    const value = record[key];
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
      throw new Error(`${what}: ${key} is ${JSON.stringify(value)}`);
    found[key] = value;
  }
  return found as Record<K, number>;
}

/** Throws ImageError. */
export function readMqueues(reader: ImageReader): Mqueues {
  return readJson(reader, MQUEUE_FILE, decodeMqueues) ?? { queues: [], files: [] };
}
