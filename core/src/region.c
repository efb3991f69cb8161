/*
 * Regions over mmap. One thread at a time per region; each function makes a few system calls at most and never waits.
 *
 * The reservation is PROT_NONE, which commits nothing; mprotect commits a piece at a time. Huge pages are asked for the
 * whole reservation at once, so that the usable part stays one mapping of the kernel's and growing it stays cheap.
 */
#include <sys/mman.h>

#include <bitactor/alloc.h>
#include <bitactor/region.h>

enum {
  STEP_SMALL = 64 << 10,    /* growth is rounded up to this while small */
  STEP_AHEAD_MAX = 32 << 20 /* growth runs at most this far ahead of what was asked for */
};

static size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

int ba_region_init(ba_region *region, size_t reserve) {
  *region = (ba_region){0};
  if (reserve > SIZE_MAX / 2 || ba_alloc_denied()) return -1;
  reserve = round_up(reserve ? reserve : 1, BA_HUGE_PAGE);
  const size_t mapped = reserve + BA_HUGE_PAGE; /* room to align */
  uint8_t *start = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return -1;
  const size_t before = (size_t)(-(uintptr_t)start & (BA_HUGE_PAGE - 1));
  const size_t after = mapped - reserve - before;
  if (before) (void)munmap(start, before);
  if (after) (void)munmap(start + before + reserve, after);
  region->base = start + before;
  region->reserved = reserve;
  return 0;
}

int ba_region_grow_slow(ba_region *region, size_t bytes) {
  if (bytes <= region->usable) return 0;
  if (bytes > region->reserved || ba_alloc_denied()) return -1;
  size_t ahead = region->usable / 8;
  if (ahead > STEP_AHEAD_MAX) ahead = STEP_AHEAD_MAX;
  size_t target = bytes > region->usable + ahead ? bytes : region->usable + ahead;
  target = round_up(target, target > BA_REGION_HUGE_BYTES ? BA_HUGE_PAGE : STEP_SMALL);
  if (target > region->reserved) target = region->reserved;
  if (mprotect(region->base + region->usable, target - region->usable, PROT_READ | PROT_WRITE) != 0) {
    /* The kernel may refuse the piece ahead and still have what was asked for. */
    target = round_up(bytes, STEP_SMALL);
    if (mprotect(region->base + region->usable, target - region->usable, PROT_READ | PROT_WRITE) != 0) return -1;
  }
  region->usable = target;
  if (!region->huge && target > BA_REGION_HUGE_BYTES) {
    (void)madvise(region->base, region->reserved, MADV_HUGEPAGE); /* without it everything works, slower */
    region->huge = true;
  }
  return 0;
}

size_t ba_region_bytes(const ba_region *region) {
  const size_t bytes = round_up(region->used, region->huge ? BA_HUGE_PAGE : BA_SMALL_PAGE);
  return bytes < region->usable ? bytes : region->usable;
}

void ba_region_free(ba_region *region) {
  if (region->base) (void)munmap(region->base, region->reserved);
  *region = (ba_region){0};
}
