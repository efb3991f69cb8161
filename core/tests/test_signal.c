/* The partition hash is frozen: these vectors never change. */
#include <bitactor/signal.h>

#include "check.h"

int main(void) {
  static const struct {
    uint64_t key;
    uint8_t partition;
  } vectors[] = {{0, 0}, {1, 0}};
  CHECK(ba_partition(vectors[0].key) == vectors[0].partition);
  ba_signal s[3] = {{.key = 1}, {.key = 2}, {.key = UINT64_MAX}};
  uint8_t parts[3];
  ba_partitions(s, 3, parts);
  for (int i = 0; i < 3; i++) CHECK(parts[i] == ba_partition(s[i].key), "signal %d", i);
  puts("test_signal: ok");
  return 0;
}
