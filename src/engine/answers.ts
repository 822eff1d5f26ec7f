/*
 * What the receiver of a stream answers its source, a line each: `ready stasis/1` when the tree stands complete and
 * still; `running PID` when it was let go; `failed REASON` instead of either. See commitment-stream.ts.
 */
export const ANSWER = { ready: 'ready', running: 'running', failed: 'failed' } as const;
export const READY = `${ANSWER.ready} stasis/1`;
/** A line longer than this is none. */
export const ANSWER_BYTES_MAX = 4096;
