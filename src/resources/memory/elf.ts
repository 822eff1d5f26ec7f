/** The few things of ELF that a vDSO needs read: its dynamic symbols. ELF(5), System V ABI. */

const PT_DYNAMIC = 2;
const DT_HASH = 4;
const DT_STRTAB = 5;
const DT_SYMTAB = 6;
const SYM_SIZE = 24;
const STT_FUNC = 2;
const STT_NOTYPE = 0;

/** Functions by name, as offsets from the start. `bytes` is the whole object as mapped. */
export function functionsOf(bytes: Uint8Array): Map<string, number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 64 || view.getUint32(0, false) !== 0x7f454c46)
    throw new Error('a vDSO that is no ELF object');
  const dynamic = dynamicEntries(view);
  const symbols = dynamic.get(DT_SYMTAB);
  const strings = dynamic.get(DT_STRTAB);
  const hash = dynamic.get(DT_HASH);
  if (symbols === undefined || strings === undefined) throw new Error('a vDSO without a symbol table');
  // The second word of DT_HASH counts the symbols; without one the strings follow the symbols.
  const count =
    hash === undefined ? Math.floor((strings - symbols) / SYM_SIZE) : view.getUint32(hash + 4, true);
  const functions = new Map<string, number>();
  for (let index = 0; index < count; index++) {
    const at = symbols + index * SYM_SIZE;
    const type = view.getUint8(at + 4) & 0xf;
    const section = view.getUint16(at + 6, true);
    if (section === 0 || (type !== STT_FUNC && type !== STT_NOTYPE)) continue;
    functions.set(
      stringAt(bytes, strings + view.getUint32(at, true)),
      Number(view.getBigUint64(at + 8, true)),
    );
  }
  return functions;
}

/** Tags and values; addresses of a vDSO count from its start. */
function dynamicEntries(view: DataView): Map<number, number> {
  const entries = new Map<number, number>();
  const table = Number(view.getBigUint64(32, true));
  const size = view.getUint16(54, true);
  for (let index = 0; index < view.getUint16(56, true); index++) {
    const header = table + index * size;
    if (view.getUint32(header, true) !== PT_DYNAMIC) continue;
    for (let at = Number(view.getBigUint64(header + 16, true)); ; at += 16) {
      const tag = Number(view.getBigInt64(at, true));
      if (tag === 0) break;
      entries.set(tag, Number(view.getBigUint64(at + 8, true)));
    }
  }
  return entries;
}

function stringAt(bytes: Uint8Array, at: number): string {
  return Buffer.from(bytes.subarray(at, bytes.indexOf(0, at))).toString('latin1');
}
