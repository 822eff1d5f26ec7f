import { workerData } from 'node:worker_threads';
import { ImageError, ImageReader, readChecksums, verifyChecksums } from '../image/index.js';
import { answer, type Finding, type VerifierData } from './verification.js';

/** The thread of verification.ts. */
const { directory, trust, answer: memory } = workerData as VerifierData;

function find(): Finding | undefined {
  using reader = ImageReader.open(directory, { trust });
  reader.verifyOwn();
  const sums = readChecksums(reader);
  const [problem] = sums === undefined ? [] : verifyChecksums(reader, sums);
  if (problem === undefined) return undefined;
  const { file, message, offset } = problem;
  return offset === undefined ? { file, message } : { file, message, offset };
}

function findingOf({ file, offset, message }: ImageError): Finding {
  const said = message.slice(message.indexOf(': ') + 2);
  return offset === undefined ? { file, message: said } : { file, message: said, offset };
}

try {
  answer(memory, find());
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  answer(memory, error instanceof ImageError ? findingOf(error) : { file: directory, message });
}
