import { ImageError, type ImageReader, type MessageOf } from '../../image/index.js';

/** CRIU's number of the type of lo. */
export const LOOPBACK = 1;
/** Of lo, in every namespace. */
export const LO = 1;

/** The devices of an image, all of which can be had: lo, by its only name, for names become paths of sysctls. */
export function loadDevices(reader: ImageReader, id: number): MessageOf<'netdev'>[] {
  const all = reader.readOptional('netdev', id) ?? [];
  for (const { type, ifindex, name } of all)
    if (type !== LOOPBACK || ifindex !== LO || name !== 'lo')
      throw new ImageError(
        `netdev-${id}.img`,
        `${name} is a device that cannot be made anew yet: restore the tree in a namespace that has it, by --join-ns net:PATH`,
      );
  return all;
}
