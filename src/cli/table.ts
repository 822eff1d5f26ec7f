/** Plain text tables and units for people. */

export interface Column {
  readonly title: string;
  readonly align: 'left' | 'right';
}

/** Rows under their titles, two spaces between columns; the last column is not padded. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => [...(line[index] ?? '')].length)));
  return lines
    .map((line) =>
      columns
        .map(({ align }, index) => {
          const cell = line[index] ?? '';
          const padding = ' '.repeat(Math.max(0, (widths[index] ?? 0) - [...cell].length));
          return align === 'right' ? `${padding}${cell}` : `${cell}${padding}`;
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `2.7 MiB`; bytes have no decimals. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `81.2 ms`, `1.24 s`. */
export function formatTime(time_ms: number): string {
  return time_ms < 1000 ? `${time_ms.toFixed(1)} ms` : `${(time_ms / 1000).toFixed(2)} s`;
}

/** `1 process`, `2 processes`. */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}

const SPACE = 0x20;
const DELETE = 0x7f;
const C1_END = 0x9f;

/** Names come from programs: control characters must not reach the terminal. */
export function printable(text: string): string {
  return Array.from(text, (character) => {
    const code = character.codePointAt(0) ?? 0;
    const isControl = code < SPACE || (code >= DELETE && code <= C1_END);
    return isControl ? `\\x${code.toString(16).padStart(2, '0')}` : character;
  }).join('');
}
