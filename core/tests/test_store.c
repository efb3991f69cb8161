/* smoke, to be replaced */
#include <bitactor/store.h>
#include "check.h"
int main(void) {
  const uint8_t init[32] = {7};
  ba_store *store = ba_store_create(&(ba_store_config){.stride = 32, .init = init, .secret = {1, 2}});
  CHECK(store, "created");
  enum { N = 4096, ALL = 400 * N };
  static ba_signal signals[N];
  static uint8_t parts[N];
  static uint16_t order[N];
  static uint32_t slots[N];
  for (uint32_t pass = 0; pass < 2; pass++) {
    for (uint32_t base = 0; base < ALL; base += N) {
      for (uint32_t i = 0; i < N; i++) signals[i].key = base + i, order[i] = (uint16_t)i;
      ba_partitions(signals, N, parts);
      CHECK(ba_store_resolve(store, signals, parts, order, N, 0, slots) == 0, "none refused");
      for (uint32_t i = 0; i < N; i++) CHECK(ba_store_key(store, slots[i]) == base + i, "key");
    }
  }
  uint32_t n = 0;
  for (unsigned p = 0; p < 64; p++) n += ba_store_count(store, p);
  CHECK(n == ALL, "%u", n);
  printf("%f bytes a key\n", (double)ba_store_bytes(store) / ALL);
  ba_store_destroy(store);
  return 0;
}
