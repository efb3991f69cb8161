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

int main(void) {
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
