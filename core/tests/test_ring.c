/* Rings: quick checks. */
#include <bitactor/mpmc.h>
#include <bitactor/spsc.h>

#include <pthread.h>

#include "check.h"

typedef struct item {
  uint64_t seq, producer, a, b;
} item;

enum { N = 100000 };

static void *spsc_produce(void *arg) {
  ba_spsc_producer p;
  CHECK(ba_spsc_producer_open(arg, &p) == BA_RING_OK, "open");
  item items[7];
  uint64_t pushed;
  for (uint64_t s = 0; s < N;) {
    uint64_t n = 1 + s % 7;
    if (n > N - s) n = N - s;
    for (uint64_t i = 0; i < n; i++) items[i] = (item){s + i, 1, ~(s + i), s * 3};
    CHECK(ba_spsc_wait_push(&p, items, n, BA_WAIT_FOREVER, &pushed) == BA_RING_OK && pushed == n, "push");
    s += n;
  }
  ba_spsc_producer_close(&p);
  return NULL;
}

static void spsc(uint64_t capacity, uint64_t start) {
  ba_spsc_ring *ring;
  CHECK(ba_spsc_create(&(ba_ring_options){.capacity = capacity, .item_bytes = 32, .start = start}, &ring) == BA_RING_OK,
        "create");
  pthread_t t;
  pthread_create(&t, NULL, spsc_produce, ring);
  ba_spsc_consumer c;
  CHECK(ba_spsc_consumer_open(ring, &c) == BA_RING_OK, "open");
  item got[5];
  uint64_t n, s = 0;
  while (ba_spsc_wait_pop(&c, got, 5, BA_WAIT_FOREVER, &n) == BA_RING_OK) {
    for (uint64_t i = 0; i < n; i++, s++) CHECK(got[i].seq == s && got[i].a == ~s, "item %llu", (unsigned long long)s);
  }
  CHECK(s == N, "all");
  pthread_join(t, NULL);
  ba_spsc_destroy(ring);
}

enum { T = 8, M = 10000 };
static void *mpmc_produce(void *arg) {
  ba_mpmc_producer p;
  CHECK(ba_mpmc_producer_open(arg, &p) == BA_RING_OK, "open");
  item items[7];
  uint64_t pushed;
  for (uint64_t s = 0; s < M;) {
    uint64_t n = 1 + s % 7;
    if (n > M - s) n = M - s;
    for (uint64_t i = 0; i < n; i++) items[i] = (item){s + i, (uint64_t)(uintptr_t)&p, ~(s + i), s * 3};
    CHECK(ba_mpmc_wait_push(&p, items, n, BA_WAIT_FOREVER, &pushed) == BA_RING_OK && pushed == n, "push");
    s += n;
  }
  return NULL;
}
static BA_ATOMIC(uint64_t) total;
static void *mpmc_consume(void *arg) {
  ba_mpmc_consumer c;
  CHECK(ba_mpmc_consumer_open(arg, &c) == BA_RING_OK, "open");
  item got[5];
  uint64_t n;
  while (ba_mpmc_wait_pop(&c, got, 5, BA_WAIT_FOREVER, &n) == BA_RING_OK) {
    for (uint64_t i = 0; i < n; i++) CHECK(got[i].a == ~got[i].seq, "content");
    ba_fetch_add_relaxed(&total, n);
  }
  return NULL;
}

static void mpmc(uint64_t capacity, uint64_t start) {
  ba_mpmc_ring *ring;
  CHECK(ba_mpmc_create(&(ba_ring_options){.capacity = capacity, .item_bytes = 32, .start = start}, BA_MPMC_MANY,
                       BA_MPMC_MANY, &ring) == BA_RING_OK,
        "create");
  pthread_t p[T], c[T];
  ba_store_relaxed(&total, 0);
  for (int i = 0; i < T; i++) pthread_create(&p[i], NULL, mpmc_produce, ring);
  for (int i = 0; i < T; i++) pthread_create(&c[i], NULL, mpmc_consume, ring);
  for (int i = 0; i < T; i++) pthread_join(p[i], NULL);
  ba_mpmc_close(ring);
  for (int i = 0; i < T; i++) pthread_join(c[i], NULL);
  CHECK(ba_load_relaxed(&total) == T * M, "exact: %llu", (unsigned long long)ba_load_relaxed(&total));
  ba_mpmc_destroy(ring);
}

int main(void) {
  for (uint64_t cap = 1; cap <= 1024; cap *= 4) {
    spsc(cap, 0);
    spsc(cap, UINT64_MAX - 1000);
    mpmc(cap, 0);
    mpmc(cap, UINT64_MAX - 1000);
    printf("cap %d ok\n", (int)cap);
  }
  puts("test_ring: ok");
  return 0;
}
