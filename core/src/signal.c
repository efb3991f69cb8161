/* Partition numbers of many signals at once. Pure functions; any thread may call them at any time. */
#include <bitactor/signal.h>

void ba_partitions(const ba_signal *signals, size_t n, uint8_t *parts) {
  for (size_t i = 0; i < n; i++) parts[i] = ba_partition(signals[i].key);
}
