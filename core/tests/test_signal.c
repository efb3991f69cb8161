/* The partition hash is frozen: these vectors never change. */
#include <bitactor/signal.h>

#include "check.h"

static const struct {
  uint64_t key;
  uint8_t partition;
} vectors[] = {{UINT64_C(0x0), 0},
               {UINT64_C(0x1), 44},
               {UINT64_C(0x2), 39},
               {UINT64_C(0x3), 14},
               {UINT64_C(0x2a), 12},
               {UINT64_C(0x3e8), 1},
               {UINT64_C(0x100000000), 25},
               {UINT64_C(0x8000000000000000), 19},
               {UINT64_C(0xffffffffffffffff), 33},
               {UINT64_C(0x123456789abcdef), 42}};

enum { VECTORS = sizeof(vectors) / sizeof(vectors[0]) };

/* Any number of signals, any alignment of the count to the vector width, against the formula one at a time. */
static void every_length_is_surveyed_as_the_formula_says(void) {
  static ba_signal signals[200];
  uint8_t parts[201];
  uint64_t state = 1;
  for (size_t n = 1; n < 200; n++) {
    uint32_t differs = 0;
    for (size_t i = 0; i < n; i++) {
      state = ba_mix64(state + 1);
      signals[i] = (ba_signal){.kind = (uint16_t)(n % 3 ? 7 : state % 5),
                               .flags = (uint16_t)(n % 7 ? 0 : state >> 60),
                               .aux = (uint32_t)state,
                               .key = ba_mix64(state),
                               .time = state,
                               .value = state};
      differs |= (uint32_t)(signals[i].kind ^ signals[0].kind) | (uint32_t)(signals[i].flags ^ signals[0].flags) << 16;
    }
    parts[n] = 0xa5;
    CHECK(ba_survey(signals, n, parts) == differs, "%zu signals: differences", n);
    for (size_t i = 0; i < n; i++) CHECK(parts[i] == ba_partition(signals[i].key), "signal %zu of %zu", i, n);
    CHECK(parts[n] == 0xa5, "wrote past %zu", n);
  }
}

/* Keys side by side and keys of signals, forwards and backwards, any number of them. */
static void lanes_are_partitions_modulo_their_number(void) {
  static uint64_t keys[100];
  static ba_signal signals[100];
  uint8_t out[101];
  for (size_t i = 0; i < 100; i++) keys[i] = signals[i].key = ba_mix64(i + 7);
  for (uint32_t lanes = 1; lanes <= BA_PARTITIONS; lanes *= 2) {
    for (size_t n = 0; n <= 100; n++) {
      out[n] = 0xa5;
      ba_lanes(keys, 8, n, lanes, out);
      for (size_t i = 0; i < n; i++) CHECK(out[i] == ba_partition(keys[i]) % lanes, "key %zu of %zu", i, n);
      ba_lanes(&signals[0].key, sizeof *signals, n, lanes, out);
      for (size_t i = 0; i < n; i++) CHECK(out[i] == ba_partition(keys[i]) % lanes, "signal %zu of %zu", i, n);
      if (n) ba_lanes(&keys[n - 1], -8, n, lanes, out);
      for (size_t i = 0; i < n; i++)
        CHECK(out[i] == ba_partition(keys[n - 1 - i]) % lanes, "backwards %zu of %zu", i, n);
      CHECK(out[n] == 0xa5, "wrote past %zu", n);
    }
  }
}

int main(void) {
  every_length_is_surveyed_as_the_formula_says();
  lanes_are_partitions_modulo_their_number();
  ba_signal signals[VECTORS] = {0};
  uint8_t parts[VECTORS];
  for (int i = 0; i < VECTORS; i++) signals[i].key = vectors[i].key;
  ba_partitions(signals, VECTORS, parts);
  for (int i = 0; i < VECTORS; i++) {
    CHECK(parts[i] == vectors[i].partition, "key %llx is in partition %d, not %d", (unsigned long long)vectors[i].key,
          parts[i], vectors[i].partition);
  }
  puts("test_signal: ok");
  return 0;
}
