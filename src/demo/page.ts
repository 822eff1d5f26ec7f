/** What the demo says: lines, tables and bars on standard output. */

const isColoured = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
const paint = (code: number, text: string): string => (isColoured ? `\x1b[${code}m${text}\x1b[0m` : text);

const bold = (text: string): string => paint(1, text);
const faint = (text: string): string => paint(2, text);
const green = (text: string): string => paint(32, text);
const red = (text: string): string => paint(31, text);

export function say(text = ''): void {
  process.stdout.write(`${text}\n`);
}

export function heading(text: string): void {
  say(`\n${bold(text)}`);
}

export function note(text: string): void {
  for (const line of text.split('\n')) say(`  ${line}`);
}

/** Something that was proved, or was not. */
export function verdict(holds: boolean, text: string): void {
  say(`  ${holds ? green('✓') : red('✗')} ${text}`);
}

export function failure(text: string): void {
  process.stderr.write(`${red('✗')} ${text}\n`);
}

export function ms(time_ms: number): string {
  return time_ms.toFixed(1);
}

const MIB = 2 ** 20;

export function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

const NAME_COLUMNS = 14;
const NUMBER_COLUMNS = 9;
const BAR_COLUMNS = 40;

export interface Row {
  readonly name: string;
  readonly duration_ms: number;
  readonly remark?: string;
}

/** Durations below each other, each with a bar; the longest one fills its column. */
export function bars(rows: readonly Row[]): void {
  const longest = Math.max(...rows.map(({ duration_ms }) => duration_ms));
  for (const { name, duration_ms, remark } of rows) {
    const bar = '█'.repeat(Math.round((duration_ms / longest) * BAR_COLUMNS)) || '▏';
    const time = ms(duration_ms).padStart(NUMBER_COLUMNS);
    note(`${name.padEnd(NAME_COLUMNS)}${time} ms ${bar}${remark === undefined ? '' : faint(` ${remark}`)}`);
  }
}
