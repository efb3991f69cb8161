/* Regions: grown in place, zero, refused with a code. */
#include <string.h>

#include <bitactor/alloc.h>
#include <bitactor/region.h>

#include "check.h"

static void a_region_grows_in_place_and_keeps_what_it_holds(void) {
  ba_region region;
  CHECK(ba_region_init(&region, 64 << 20) == 0, "reserved");
  uint8_t *const base = region.base;
  CHECK((uintptr_t)base % BA_HUGE_PAGE == 0, "aligned");
  size_t before = 0;
  for (size_t bytes = 1; bytes <= 64 << 20; bytes += bytes / 2 + 1) {
    CHECK(ba_region_grow(&region, bytes) == 0 && region.base == base, "grows to %zu", bytes);
    CHECK(region.used == bytes && region.usable >= bytes && region.usable <= region.reserved, "at %zu", bytes);
    CHECK(before == 0 || base[before - 1] == 7, "what lies before %zu is kept", before);
    CHECK(bytes == 1 || base[bytes - 1] == 0, "fresh bytes read zero");
    CHECK(region.huge == (region.usable > BA_REGION_HUGE_BYTES), "huge pages only when large");
    CHECK(ba_region_bytes(&region) >= bytes, "its cost covers what is used");
    base[bytes - 1] = 7;
    before = bytes;
  }
  ba_region_free(&region);
  CHECK(region.base == NULL, "empty");
  ba_region_free(&region);
}

static void a_region_refuses_what_it_did_not_reserve_and_what_memory_does_not_give(void) {
  ba_region region;
  CHECK(ba_region_init(&region, 1) == 0 && region.reserved == BA_HUGE_PAGE, "at least a huge page");
  CHECK(ba_region_grow(&region, BA_HUGE_PAGE + 1) == -1, "past the reservation");
  CHECK(ba_region_grow(&region, 100) == 0, "still of use");
  const size_t usable = region.usable;
  ba_alloc_fail_every(1);
  CHECK(ba_region_grow(&region, usable) == 0, "nothing new is needed");
  CHECK(ba_region_grow(&region, usable + 1) == -1 && region.usable == usable && region.used == usable, "denied");
  ba_region other;
  CHECK(ba_region_init(&other, 1) == -1 && other.base == NULL, "denied");
  CHECK(ba_alloc(8) == NULL && ba_alloc_aligned(8, 64) == NULL, "denied");
  CHECK(ba_alloc_attempts() == 4 && ba_alloc_failures() == 4, "counted");
  ba_alloc_fail_every(0);
  ba_region_free(&other);
  CHECK(ba_region_grow(&region, usable + 1) == 0, "grows once memory is back");
  ba_region_free(&region);
  CHECK(ba_region_init(&region, SIZE_MAX) == -1, "more than there is");
}

int main(void) {
  a_region_grows_in_place_and_keeps_what_it_holds();
  a_region_refuses_what_it_did_not_reserve_and_what_memory_does_not_give();
  puts("test_region: ok");
  return 0;
}
