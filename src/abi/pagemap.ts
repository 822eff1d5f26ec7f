/** /proc/PID/pagemap: PAGEMAP_SCAN (Linux 6.7), include/uapi/linux/fs.h, Documentation/admin-guide/mm/pagemap.rst. ioctl.ts exports it again. */

// Request: _IOWR('f', 16, struct pm_scan_arg).
export const PAGEMAP_SCAN = 0xc0606610;

// struct pm_scan_arg: size and offsets of its u64 fields.
export const PM_SCAN_ARG_SIZE = 96;
export const PM_SCAN_ARG_OFFSET_SIZE = 0;
export const PM_SCAN_ARG_OFFSET_FLAGS = 8;
export const PM_SCAN_ARG_OFFSET_START = 16;
export const PM_SCAN_ARG_OFFSET_END = 24;
export const PM_SCAN_ARG_OFFSET_WALK_END = 32;
export const PM_SCAN_ARG_OFFSET_VEC = 40;
export const PM_SCAN_ARG_OFFSET_VEC_LEN = 48;
export const PM_SCAN_ARG_OFFSET_MAX_PAGES = 56;
export const PM_SCAN_ARG_OFFSET_CATEGORY_INVERTED = 64;
export const PM_SCAN_ARG_OFFSET_CATEGORY_MASK = 72;
export const PM_SCAN_ARG_OFFSET_CATEGORY_ANYOF_MASK = 80;
export const PM_SCAN_ARG_OFFSET_RETURN_MASK = 88;

// struct page_region: start, end, categories.
export const PAGE_REGION_SIZE = 24;

// pm_scan_arg.flags.
export const PM_SCAN_WP_MATCHING = 1n;
export const PM_SCAN_CHECK_WPASYNC = 2n;

// Page categories.
export const PAGE_IS_WPALLOWED = 1n;
export const PAGE_IS_WRITTEN = 2n;
export const PAGE_IS_FILE = 4n;
export const PAGE_IS_PRESENT = 8n;
export const PAGE_IS_SWAPPED = 0x10n;
export const PAGE_IS_PFNZERO = 0x20n;
export const PAGE_IS_HUGE = 0x40n;
export const PAGE_IS_SOFT_DIRTY = 0x80n;
export const PAGE_IS_GUARD = 0x100n;
