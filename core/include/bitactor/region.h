/*
 * A region: address space reserved once and made usable from its start upwards. It never moves, so growing it copies
 * nothing and pointers into it stay good until ba_region_free.
 *
 * One thread at a time per region; nothing waits. Usable bytes read zero until written.
 * Invariants: 0 <= used <= usable <= reserved; base is a multiple of BA_HUGE_PAGE.
 */
#ifndef BITACTOR_REGION_H
#define BITACTOR_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  BA_SMALL_PAGE = 4096,
  BA_HUGE_PAGE = 2 << 20,
  BA_REGION_HUGE_BYTES = 4 << 20 /* a region that grows past this asks for huge pages; a smaller one must not */
};

typedef struct ba_region {
  uint8_t *base;   /* null: not reserved */
  size_t reserved; /* bytes of address space */
  size_t usable;   /* bytes at base that may be read and written */
  size_t used;     /* most bytes asked for so far */
  bool huge;       /* huge pages were asked for */
} ba_region;

/*
 * Reserves at least `reserve` bytes of address space; no memory is committed, also not under strict overcommit.
 * 0: done. -1: no address space; the region is empty and ba_region_free on it is harmless.
 */
int ba_region_init(ba_region *region, size_t reserve);

/* Makes [0, bytes) usable. 0: it is. -1: no memory, or past the reservation; what was usable still is. */
int ba_region_grow_slow(ba_region *region, size_t bytes);

static inline int ba_region_grow(ba_region *region, size_t bytes) {
  if (bytes > region->usable && ba_region_grow_slow(region, bytes) != 0) return -1;
  if (bytes > region->used) region->used = bytes;
  return 0;
}

/* Bytes of memory that [0, used) can hold in whole pages: what the region costs when all of it was touched. */
size_t ba_region_bytes(const ba_region *region);

/* Gives everything back; the region is empty afterwards. */
void ba_region_free(ba_region *region);

#endif
