import { workerData } from 'node:worker_threads';
import { type VerifierData, verify } from './verification.js';

/** The thread of verification.ts. */
verify(workerData as VerifierData);
