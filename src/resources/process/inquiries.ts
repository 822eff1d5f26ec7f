import { zeroed } from '../../kernel/memory.js';
import { type Ask, askAll } from '../../kernel/together.js';
import type { DumpContext, TaskState, Thread } from '../contract.js';

/** Make the inquiries of all states about these threads, at once; answers what reads their answers. */
export function inquire(
  states: readonly TaskState[],
  threads: readonly Thread[],
): (context: DumpContext) => void {
  const inquiries = states.flatMap(({ inquiry }) => (inquiry === undefined ? [] : [inquiry]));
  let room = 0;
  const starts = inquiries.map((inquiry) => {
    const start = room;
    room += Math.ceil(inquiry.room / 8) * 8;
    return start;
  });
  const counts = inquiries.map(() => 0);
  const answers = askAll(
    threads,
    room,
    (ask, thread, at) =>
      inquiries.forEach((inquiry, index) => {
        counts[index] = 0;
        const counted: Ask = (name, ...args) => {
          counts[index] = (counts[index] ?? 0) + 1;
          ask(name, ...args);
        };
        inquiry.put(counted, thread, at + (starts[index] ?? 0));
      }),
    ({ results, bytes }) => {
      const kept = zeroed(room);
      kept.set(bytes);
      return { results, kept };
    },
  );
  return (context) => {
    threads.forEach((thread, number) => {
      const { results = [], kept = zeroed(room) } = answers[number] ?? {};
      let first = 0;
      inquiries.forEach((inquiry, index) => {
        const start = starts[index] ?? 0;
        const bytes = kept.subarray(start, start + inquiry.room);
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        const end = first + (counts[index] ?? 0);
        inquiry.read({ results: results.slice(first, end), view, bytes }, thread, context);
        first = end;
      });
    });
  };
}
