import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeImage } from '../../image/codec.js';
import { createMessage, fileOf, ImageError, type MessageOf, writeFileOfKind } from '../../image/index.js';
import { type CpuDescription, compareCpus, describeCpu } from '../../library/cpu.js';
import { CriuError, reasonOf, type Session } from './session.js';

/** cpuinfo.img: what the CPU of a dump could do, written and compared with this one. */

const VENDORS = { intel: 1, amd: 2 } as const;
/** The layout of `capability` with 19 words. */
const CAPABILITY_VERSION = 2;

function fileIn({ imagesDir }: Session): string {
  return join(imagesDir, fileOf('cpuinfo', null));
}

export function writeCpuinfo(session: Session): void {
  const cpu = describeCpu();
  const x86Entry = [
    {
      vendorId: VENDORS[cpu.vendor],
      cpuFamily: cpu.family,
      model: cpu.model,
      stepping: cpu.stepping,
      capabilityVer: CAPABILITY_VERSION,
      capability: [...cpu.capabilities],
      modelId: cpu.modelName,
      xfeaturesMask: cpu.xfeatures,
      xsaveSize: cpu.xsaveSize,
      xsaveSizeMax: cpu.xsaveSizeMax,
    },
  ];
  writeFileOfKind(fileIn(session), 'cpuinfo', [createMessage('cpuinfo', { x86Entry })]);
  session.log.info(`CPU ${cpu.modelName} written to cpuinfo.img`);
}

/** @throws CriuError with all that differs */
export function checkCpuinfo(session: Session): void {
  const { cpuCap } = session.options;
  const image = readCpuinfo(session);
  const problems = compareCpus(image, describeCpu(), cpuCap);
  if (problems.length > 0) throw new CriuError('cpu', problems.join('\n'));
}

function readCpuinfo(session: Session): CpuDescription {
  const file = fileIn(session);
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new CriuError('cpu', `No cpuinfo image: ${reasonOf(error)}`, { cause: error });
  }
  const [record] = decodeImage('cpuinfo', bytes, file);
  const [entry, ...others] = record?.message.x86Entry ?? [];
  if (entry === undefined || others.length > 0) throw new ImageError(file, 'does not describe one x86 CPU');
  return describe(entry, file);
}

function describe(entry: MessageOf<'cpuinfo'>['x86Entry'][number], file: string): CpuDescription {
  const vendor =
    entry.vendorId === VENDORS.intel ? 'intel' : entry.vendorId === VENDORS.amd ? 'amd' : undefined;
  if (vendor === undefined) throw new ImageError(file, `unknown maker of the CPU: ${entry.vendorId}`);
  return {
    vendor,
    family: entry.cpuFamily,
    model: entry.model,
    stepping: entry.stepping,
    modelName: entry.modelId,
    capabilities: entry.capability,
    xfeatures: entry.xfeaturesMask,
    xsaveSize: entry.xsaveSize,
    xsaveSizeMax: entry.xsaveSizeMax,
  };
}

/** `criu cpuinfo dump`. */
export function runCpuinfoDump(session: Session): number {
  writeCpuinfo(session);
  return 0;
}

/** `criu cpuinfo check`; with nothing to compare, everything is compared. */
export function runCpuinfoCheck(session: Session): number {
  const { options } = session;
  const { fpu, ins, cpu } = options.cpuCap;
  if (!fpu && !ins && !cpu) options.cpuCap = { fpu: true, ins: true, cpu: true, image: true };
  checkCpuinfo(session);
  return 0;
}
