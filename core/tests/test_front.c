/*
 * Large batches, which take the short way through the store's front, find the instances that single signals find:
 * while keys come, while they are removed (slots move then), with few keys and with more than the front holds.
 * Seed: first argument, or the time; printed.
 */
#include <bitactor/alloc.h>
#include <bitactor/store.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { BATCH = 2048 };

static uint64_t random_state;

static uint64_t random64(void) {
  random_state += UINT64_C(0x9e3779b97f4a7c15);
  return ba_mix64(random_state);
}

static void batches_and_single_signals_agree(uint64_t keys, uint32_t cap) {
  static ba_signal signals[BATCH];
  static uint8_t parts[BATCH];
  static uint16_t order[BATCH];
  static uint32_t slots[BATCH], one_by_one[BATCH];
  uint64_t init = 0;
  ba_store_config config = {.stride = 8,
                            .init = (const uint8_t *)&init,
                            .partition_keys_max = cap,
                            .secret = {random64(), random64()},
                            .reserve_keys = 1 << 17};
  ba_store *batches = ba_store_create(&config), *singles = ba_store_create(&config);
  CHECK(batches && singles, "created");
  for (int round = 0; round < 200; round++) {
    uint32_t n = 1 + (uint32_t)(random64() % BATCH);
    for (uint32_t i = 0; i < n; i++) {
      signals[i] = (ba_signal){.kind = 1, .key = random64() % keys ? random64() % keys : UINT64_MAX};
      order[i] = (uint16_t)i;
    }
    ba_partitions(signals, n, parts);
    uint32_t refused = ba_store_resolve(batches, signals, parts, order, n, 0, slots), counted = 0;
    for (uint32_t i = 0; i < n; i++) {
      counted += ba_store_resolve(singles, signals, parts, order + i, 1, 0, one_by_one + i);
      CHECK(slots[i] == one_by_one[i], "round %d, signal %u, key %llu: slot %u, not %u", round, i,
            (unsigned long long)signals[i].key, slots[i], one_by_one[i]);
      if (slots[i] >= BA_SLOT_REFUSED) continue;
      CHECK(ba_store_key(batches, slots[i]) == signals[i].key, "round %d: another key's slot", round);
    }
    CHECK(refused == counted, "%u refused, not %u", refused, counted);
    for (int r = 0; r < 20; r++) {
      uint64_t key = random64() % keys;
      CHECK(ba_store_remove(batches, key) == ba_store_remove(singles, key), "removal of %llu", (unsigned long long)key);
    }
  }
  ba_store_destroy(batches);
  ba_store_destroy(singles);
}

int main(int argc, char **argv) {
  random_state = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  printf("test_front: seed %llu\n", (unsigned long long)random_state);
  fflush(stdout);
  batches_and_single_signals_agree(1, 0);
  batches_and_single_signals_agree(1000, 0);
  batches_and_single_signals_agree(1000, 7);
  batches_and_single_signals_agree(60000, 0);
  ba_alloc_fail_every(3);
  ba_store_config config = {.stride = 8, .init = (const uint8_t *)&random_state, .reserve_keys = 1 << 17};
  ba_store *store = ba_store_create(&config);
  ba_alloc_fail_every(0);
  ba_store_destroy(store);
  puts("test_front: ok");
  return 0;
}
