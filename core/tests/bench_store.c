/*
 * How fast a store resolves, grows and what it costs in memory; beside it, in the same run, a plain loop over one
 * open-addressing array of rows. One thread. `bench_store tiny` does a thousandth of the work: the tests run that.
 * Times are of the calls alone: making the batch of random signals and their partitions is not in them, for any side.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <bitactor/store.h>

#include "check.h"

enum { BATCH = 4096, STRIDE = 32, PLACES = 1 << 20 };

typedef struct vwap {
  uint64_t count;
  double notional, volume, high;
} vwap;

typedef struct row {
  uint64_t key; /* 0: free; benchmark keys are never 0 */
  vwap state;
} row;

static ba_signal signals[BATCH];
static uint8_t parts[BATCH];
static uint16_t order[BATCH];
static uint32_t slots[BATCH];
static uint64_t seed = 0x5eed;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One JSON line of the benchmark suite; the figure's name is made as by printf. */
static __attribute__((format(printf, 3, 4))) void report(double value, const char *unit, const char *format, ...) {
  char figure[120];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(figure, sizeof figure, format, arguments);
  va_end(arguments);
  printf("{\"figure\": \"%s\", \"value\": %.2f, \"unit\": \"%s\"}\n", figure, value, unit);
  fflush(stdout);
}

static uint64_t random64(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static uint64_t nth_key(uint64_t i) { return (i + 1) * UINT64_C(0x9e3779b97f4a7c15); }

static void fill_random(uint64_t keys) {
  for (uint32_t i = 0; i < BATCH; i++) {
    signals[i].key = nth_key((uint64_t)(((__uint128_t)random64() * keys) >> 64));
    const double price = 100.0 + (double)(i & 63);
    memcpy(&signals[i].value, &price, 8);
    signals[i].aux = i & 255;
  }
  ba_partitions(signals, BATCH, parts);
}

static inline void update(vwap *state, const ba_signal *signal) {
  double price;
  memcpy(&price, &signal->value, 8);
  state->count++;
  state->notional += price * signal->aux;
  state->volume += signal->aux;
  if (price > state->high) state->high = price;
}

__attribute__((noinline)) static void handle(uint8_t *states, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) update((vwap *)(void *)(states + (size_t)slots[i] * STRIDE), &signals[order[i]]);
}

__attribute__((noinline)) static void row_loop(row *rows, uint64_t capacity, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t key = signals[i].key;
    uint64_t at = (uint64_t)(((__uint128_t)ba_mix64(key) * capacity) >> 64);
    while (rows[at].key != key && rows[at].key != 0) at = at + 1 == capacity ? 0 : at + 1;
    rows[at].key = key;
    update(&rows[at].state, &signals[i]);
  }
}

static ba_store *store_new(const uint64_t secret[2], uint32_t idle_ticks) {
  static const uint8_t init[STRIDE];
  ba_store *store = ba_store_create(
      &(ba_store_config){.stride = STRIDE, .init = init, .idle_ticks = idle_ticks, .secret = {secret[0], secret[1]}});
  CHECK(store, "no memory for a store");
  return store;
}

static const uint64_t secret[2] = {UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344)};

static void insert_all(ba_store *store, uint64_t keys) {
  for (uint64_t i = 0; i < keys;) {
    uint32_t n = 0;
    for (; n < BATCH && i < keys; n++, i++) signals[n].key = nth_key(i);
    ba_partitions(signals, n, parts);
    CHECK(ba_store_resolve(store, signals, parts, order, n, 1, slots) == 0, "refused");
  }
}

static void warm(const char *name, uint64_t keys, uint32_t rounds) {
  static const char *const ways[] = {"best", "scalar", "avx2", "avx512"};
  ba_store *store = store_new(secret, 0), *idle = store_new(secret, 1000);
  insert_all(store, keys);
  insert_all(idle, keys);
  const uint64_t capacity = 2 * keys;
  const size_t bytes = (capacity * sizeof(row) + BA_HUGE_PAGE - 1) / BA_HUGE_PAGE * BA_HUGE_PAGE;
  row *rows = aligned_alloc(BA_HUGE_PAGE, bytes);
  CHECK(rows, "no memory for rows");
  if (bytes > BA_REGION_HUGE_BYTES) (void)madvise(rows, bytes, MADV_HUGEPAGE);
  memset(rows, 0, bytes);
  for (uint64_t i = 0; i < keys;) {
    uint32_t n = 0;
    for (; n < BATCH && i < keys; n++, i++) signals[n].key = nth_key(i);
    row_loop(rows, capacity, n);
  }
  /* The sides take turns batch by batch, so that a noisy machine is noisy for all of them. */
  uint64_t ns[7] = {0}; /* by way; 4: with the handler; 5: rows; 6: with expiry */
  for (uint32_t round = 0; round < rounds + rounds / 8; round++) {
    if (round == rounds / 8) memset(ns, 0, sizeof ns);
    for (enum ba_store_way way = BA_WAY_SCALAR; way <= BA_WAY_AVX512; way++) {
      fill_random(keys);
      const enum ba_store_way got = ba_store_set_way(store, way);
      const uint64_t start = now_ns();
      (void)ba_store_resolve(store, signals, parts, order, BATCH, 1, slots);
      if (got == way) ns[way] += now_ns() - start;
    }
    (void)ba_store_set_way(store, BA_WAY_BEST);
    fill_random(keys);
    uint64_t start = now_ns();
    (void)ba_store_resolve(store, signals, parts, order, BATCH, 1, slots);
    handle(ba_store_states(store), BATCH);
    ns[4] += now_ns() - start;
    fill_random(keys);
    start = now_ns();
    row_loop(rows, capacity, BATCH);
    ns[5] += now_ns() - start;
    fill_random(keys);
    start = now_ns();
    (void)ba_store_resolve(idle, signals, parts, order, BATCH, 1 + round / 64, slots);
    ns[6] += now_ns() - start;
  }
  const double work = (double)rounds * BATCH * 1000.0;
  for (int way = BA_WAY_SCALAR; way <= BA_WAY_AVX512; way++) {
    if (ns[way]) report(work / (double)ns[way], "M/s", "%s keys, warm: resolve %s", name, ways[way]);
  }
  report(work / (double)ns[6], "M/s", "%s keys, warm: resolve with expiry", name);
  report(work / (double)ns[4], "M/s", "%s keys, warm: resolve and VWAP", name);
  report(work / (double)ns[5], "M/s", "%s keys, warm: row loop", name);
  free(rows);
  ba_store_destroy(store);
  ba_store_destroy(idle);
}

static uint64_t resident_bytes(void) {
  unsigned long size = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file) {
    if (fscanf(file, "%lu %lu", &size, &resident) != 2) resident = 0;
    fclose(file);
  }
  return (uint64_t)resident * BA_SMALL_PAGE;
}

static void memory(uint64_t from, uint64_t until) {
  const uint64_t before = resident_bytes();
  ba_store *store = store_new(secret, 0);
  double sum = 0, peak = 0, resident_peak = 0, resident_sum = 0;
  uint64_t samples = 0, peak_at = 0;
  for (uint64_t i = 0; i < until;) {
    for (uint32_t k = 0; k < BATCH; k++) signals[k].key = nth_key(i++);
    ba_partitions(signals, BATCH, parts);
    (void)ba_store_resolve(store, signals, parts, order, BATCH, 1, slots);
    if (i < from) continue;
    const double each = (double)ba_store_bytes(store) / (double)i;
    const double resident = ((double)(resident_bytes() - before) - (double)i * STRIDE) / (double)i;
    sum += each;
    resident_sum += resident;
    samples++;
    if (each > peak) {
      peak = each;
      peak_at = i;
    }
    if (resident > resident_peak) resident_peak = resident;
  }
  report(sum / (double)samples, "bytes", "bytes a key beyond the state, mean");
  report(peak, "bytes", "bytes a key beyond the state, peak");
  report((double)peak_at, "keys", "keys at that peak");
  report(resident_sum / (double)samples, "bytes", "bytes a key beyond the state, resident, mean");
  report(resident_peak, "bytes", "bytes a key beyond the state, resident, peak");
  ba_store_destroy(store);
}

/* The longest call, and the longest during which the system gave the processor to nobody else. */
static void growth(uint64_t keys, bool sequential) {
  ba_store *store = store_new(secret, 0);
  uint64_t total = 0, longest = 0, longest_alone = 0;
  for (uint64_t i = 0; i < keys;) {
    for (uint32_t k = 0; k < 64; k++, i++) signals[k].key = sequential ? i : nth_key(i);
    ba_partitions(signals, 64, parts);
    struct rusage one, two;
    getrusage(RUSAGE_THREAD, &one);
    const uint64_t start = now_ns();
    (void)ba_store_resolve(store, signals, parts, order, 64, 1, slots);
    const uint64_t ns = now_ns() - start;
    getrusage(RUSAGE_THREAD, &two);
    total += ns;
    if (ns > longest) longest = ns;
    if (ns > longest_alone && two.ru_nivcsw == one.ru_nivcsw) longest_alone = ns;
  }
  const char *name = sequential ? "sequential" : "random";
  report((double)keys * 1000.0 / (double)total, "M/s", "growing by %s keys, 64 a call", name);
  report((double)longest / 1e6, "ms", "growing by %s keys: longest call", name);
  report((double)longest_alone / 1e6, "ms", "growing by %s keys: longest call, not preempted", name);
  ba_store_destroy(store);
}

static uint64_t unmix64(uint64_t x) { /* the inverse of ba_mix64 */
  x ^= x >> 33;
  x *= UINT64_C(0x9cb4b2f8129337db);
  x ^= x >> 33;
  x *= UINT64_C(0x4f74430c22a54005);
  x ^= x >> 33;
  return x;
}

static double insert_ns(const uint64_t *keys, uint64_t n) {
  ba_store *store = store_new(secret, 0);
  uint64_t total = 0;
  for (uint64_t i = 0; i < n;) {
    uint32_t k = 0;
    for (; k < BATCH && i < n; k++, i++) signals[k].key = keys[i];
    ba_partitions(signals, k, parts);
    const uint64_t start = now_ns();
    (void)ba_store_resolve(store, signals, parts, order, k, 1, slots);
    total += now_ns() - start;
  }
  ba_store_destroy(store);
  return (double)total / (double)n;
}

static void chosen(uint64_t n) {
  uint64_t *keys = malloc(n * sizeof(uint64_t));
  CHECK(keys, "no memory for keys");
  for (int repeat = 0; repeat < 2; repeat++) {
    for (uint64_t i = 0; i < n; i++) keys[i] = random64();
    const double spread = insert_ns(keys, n);
    for (uint64_t i = 0; i < n; i++) keys[i] = unmix64((random64() & ~UINT64_C(63)) | 5);
    const double random = insert_ns(keys, n);
    for (uint64_t i = 0; i < n; i++) keys[i] = unmix64(i << 32 | 5); /* all equal below bit 32 after the mix */
    const double mix = insert_ns(keys, n);
    const uint64_t other_secret[2] = {1, 2};
    const ba_hash other = ba_hash_from_secret(other_secret);
    for (uint64_t i = 0, key = 0; i < n; key++) { /* bits 0 to 6 of another secret's hash equal */
      if ((ba_hash_of(&other, key) & 127) == 0) keys[i++] = key;
    }
    const double secret_two = insert_ns(keys, n);
    if (repeat == 0) continue;
    report(spread, "ns", "inserting random keys");
    report(random, "ns", "inserting random keys of one partition");
    report(mix, "ns", "inserting keys that collide under the mix");
    report(secret_two, "ns", "inserting keys that collide under another secret");
    report(mix / random, "x", "keys that collide under the mix over random ones of one partition");
    report(secret_two / spread, "x", "keys that collide under another secret over random ones");
  }
  free(keys);
}

int main(int argc, char **argv) {
  const bool tiny = argc > 1 && strcmp(argv[1], "tiny") == 0;
  const char *only = argc > 1 && !tiny ? argv[1] : "wmgc";
  const uint64_t scale = tiny ? 1000 : 1;
  for (uint32_t i = 0; i < BATCH; i++) order[i] = (uint16_t)i;
  if (strchr(only, 'w')) {
    warm("1 thousand", 1000, (uint32_t)(8000 / scale));
    warm("100 thousand", 100000 / scale + 10, (uint32_t)(1000 / scale));
    warm("1 million", 1000000 / scale, (uint32_t)(1000 / scale));
    warm("10 million", 10000000 / scale, (uint32_t)(1000 / scale));
  }
  if (strchr(only, 'm')) memory(1000000 / scale, 4000000 / scale);
  if (strchr(only, 'g')) {
    growth(10000000 / scale, false);
    growth(10000000 / scale, true);
  }
  if (strchr(only, 'c')) chosen(1000000 / scale);
  return 0;
}
