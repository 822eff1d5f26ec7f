/** termios: asm-generic/termbits.h and termbits-common.h; struct termios has no speeds, struct termios2 has. */
export const NCCS = 19;
export const TERMIOS_SIZE = 36;
export const TERMIOS2_SIZE = 44;

/** Offsets in both structures. */
export const TERMIOS_AT = {
  iflag: 0,
  oflag: 4,
  cflag: 8,
  lflag: 12,
  line: 16,
  characters: 17,
  ispeed: 36,
  ospeed: 40,
} as const;

export const CBAUD = 0x100f;
export const BOTHER = 0x1000;
/** Where the input speed's code lies in c_cflag. */
export const IBSHIFT = 16;

export const IXON = 0x400;

export const ISIG = 0x1;
export const ICANON = 0x2;
export const ECHO = 0x8;
export const IEXTEN = 0x8000;
export const EXTPROC = 0x10000;

export const VERASE = 2;
export const VKILL = 3;
export const VEOF = 4;
export const VTIME = 5;
export const VMIN = 6;
export const VSTART = 8;
export const VSTOP = 9;
export const VEOL = 11;
export const VREPRINT = 12;
export const VWERASE = 14;
export const VLNEXT = 15;
export const VEOL2 = 16;
