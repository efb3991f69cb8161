/*
 * 50 producers and 50 consumers on one ring: every item exactly once (a bit for each), whole, in the order of its
 * producer, and the counts exact; round after round with other batches, capacities and first sequences.
 *
 *   stress_test_bitactor [seconds, default 5] [items of each producer in a round, default 20000] [seed]
 *
 * Ends after the round in which the time is over, and not before each shape of round was run once. Under
 * ThreadSanitizer the default is 1000 items. A ring of four slots gets a tenth: it is all waiting.
 */
#include <bitactor/mpmc.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "ring_items.h"

enum { SIDE = 50, BATCH_MAX = 256 };

#if defined(__SANITIZE_THREAD__)
enum { ITEMS = 1000 };
#else
enum { ITEMS = 20000 };
#endif

typedef enum way { WAIT, CLAIM, REFUSE, DROP } way;

typedef struct shape {
  uint64_t capacity, start;
  uint32_t batch; /* 0: by dice, 1..BATCH_MAX */
  way way;
} shape;

typedef struct thread {
  ba_mpmc_ring *ring;
  pthread_barrier_t *start; /* all 100 begin together */
  const shape *shape;
  uint64_t index, seed, each;
  uint64_t refused, dropped; /* as this producer counted */
  ledger book;
} thread;

static uint32_t batch_of(const thread *t, uint64_t *state) {
  return t->shape->batch != 0 ? t->shape->batch : (uint32_t)(1 + dice(state) % BATCH_MAX);
}

static void *produce(void *arg) {
  thread *t = arg;
  uint64_t state = t->seed;
  item items[BATCH_MAX];
  ba_mpmc_producer p;
  CHECK(ba_mpmc_producer_open(t->ring, &p) == BA_RING_OK, "open");
  pthread_barrier_wait(t->start);
  for (uint64_t s = 0; s < t->each;) {
    uint64_t n = batch_of(t, &state), pushed = 0;
    if (n > t->each - s) n = t->each - s;
    if (t->shape->way == CLAIM) {
      ba_span span;
      CHECK(ba_mpmc_wait_claim(&p, 1, (uint32_t)n, BA_WAIT_FOREVER, &span) == BA_RING_OK, "claim");
      for (uint32_t i = 0; i < span.n; i++) {
        item *to = (item *)(void *)(i < span.first_n ? span.first + i * sizeof(item)
                                                     : span.second + (i - span.first_n) * sizeof(item));
        *to = item_of(t->index, s + i);
      }
      ba_mpmc_publish(&p);
      s += span.n;
      continue;
    }
    for (uint64_t i = 0; i < n; i++) items[i] = item_of(t->index, s + i);
    ba_ring_result result;
    switch (t->shape->way) {
      case REFUSE:
        result = ba_mpmc_try_push(&p, items, n, &pushed);
        CHECK(result == (pushed == n ? BA_RING_OK : BA_RING_FULL), "try_push: %s", ba_ring_result_text(result));
        t->refused += n - pushed;
        if (pushed < n) sched_yield();
        s += pushed;
        break;
      case DROP:
        CHECK(ba_mpmc_push_or_drop(&p, items, n, &pushed) == BA_RING_OK && pushed <= n, "push_or_drop");
        t->dropped += n - pushed;
        s += n;
        break;
      default:
        CHECK(ba_mpmc_wait_push(&p, items, n, BA_WAIT_FOREVER, &pushed) == BA_RING_OK && pushed == n, "wait_push");
        s += n;
    }
  }
  ba_mpmc_producer_leave(&p);
  return NULL;
}

static void *consume(void *arg) {
  thread *t = arg;
  uint64_t state = t->seed, n;
  item items[BATCH_MAX];
  ba_mpmc_consumer c;
  CHECK(ba_mpmc_consumer_open(t->ring, &c) == BA_RING_OK, "open");
  pthread_barrier_wait(t->start);
  for (;;) {
    const uint32_t most = batch_of(t, &state);
    ba_ring_result result;
    if (t->shape->way == CLAIM) {
      ba_span span;
      result = ba_mpmc_wait_poll(&c, 1, most, BA_WAIT_FOREVER, &span);
      if (result == BA_RING_OK) {
        ledger_enter_span(&t->book, &span);
        ba_mpmc_release(&c);
      }
    } else {
      result = ba_mpmc_wait_pop(&c, items, most, BA_WAIT_FOREVER, &n);
      for (uint64_t i = 0; i < n; i++) ledger_enter(&t->book, &items[i]);
    }
    if (result == BA_RING_CLOSED) break;
    CHECK(result == BA_RING_OK, "consumer: %s", ba_ring_result_text(result));
  }
  ba_mpmc_consumer_leave(&c);
  return NULL;
}

static void round_of(const shape *kind, uint64_t each, uint64_t seed) {
  static thread producers[SIDE], consumers[SIDE];
  static pthread_t made[SIDE], taken[SIDE];
  static ledger books[SIDE];
  ba_mpmc_ring *ring;
  const ba_ring_options options = {.capacity = kind->capacity, .item_bytes = sizeof(item), .start = kind->start};
  CHECK(ba_mpmc_create(&options, SIDE, SIDE, &ring) == BA_RING_OK, "create");
  pthread_barrier_t start;
  pthread_barrier_init(&start, NULL, 2 * SIDE + 1);
  for (uint64_t i = 0; i < SIDE; i++) {
    producers[i] =
        (thread){.ring = ring, .start = &start, .shape = kind, .index = i, .seed = dice_seed(seed, i), .each = each};
    consumers[i] =
        (thread){.ring = ring, .start = &start, .shape = kind, .index = i, .seed = dice_seed(seed, SIDE + i)};
    ledger_open(&consumers[i].book, SIDE, each);
    CHECK(pthread_create(&taken[i], NULL, consume, &consumers[i]) == 0, "thread");
    CHECK(pthread_create(&made[i], NULL, produce, &producers[i]) == 0, "thread");
  }
  const uint64_t begin = ba_monotonic_ns();
  pthread_barrier_wait(&start);
  uint64_t refused = 0, dropped = 0;
  for (uint64_t i = 0; i < SIDE; i++) {
    pthread_join(made[i], NULL);
    refused += producers[i].refused;
    dropped += producers[i].dropped;
  }
  ba_mpmc_close(ring);
  for (uint64_t i = 0; i < SIDE; i++) {
    pthread_join(taken[i], NULL);
    books[i] = consumers[i].book;
  }
  const uint64_t ns = ba_monotonic_ns() - begin;
  ledgers_agree(books, SIDE, dropped);
  const ba_ring_statistics counts = ba_mpmc_statistics(ring);
  CHECK(counts.pushed == SIDE * each - dropped && counts.popped == counts.pushed && counts.queued == 0,
        "pushed %llu, popped %llu, queued %llu", (unsigned long long)counts.pushed, (unsigned long long)counts.popped,
        (unsigned long long)counts.queued);
  CHECK(counts.refused == refused && counts.dropped == dropped, "refused %llu of %llu, dropped %llu of %llu",
        (unsigned long long)counts.refused, (unsigned long long)refused, (unsigned long long)counts.dropped,
        (unsigned long long)dropped);
  static const char *const names[] = {"wait", "claim", "refuse", "drop"};
  printf("%-6s batch %3u capacity %5llu start %016llx: %llu items in %.3f s, %llu dropped\n", names[kind->way],
         kind->batch, (unsigned long long)kind->capacity, (unsigned long long)kind->start,
         (unsigned long long)(SIDE * each), (double)ns * 1e-9, (unsigned long long)dropped);
  fflush(stdout);
  for (uint64_t i = 0; i < SIDE; i++) ledger_close(&books[i]);
  pthread_barrier_destroy(&start);
  ba_mpmc_destroy(ring);
}

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? strtod(argv[1], NULL) : 5;
  const uint64_t each = argc > 2 ? strtoull(argv[2], NULL, 0) : ITEMS;
  const uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : ba_monotonic_ns();
  CHECK(seconds > 0 && each > 0, "usage: stress_test_bitactor [seconds] [items] [seed]");
  printf("stress_test_bitactor %g %llu %llu\n", seconds, (unsigned long long)each, (unsigned long long)seed);
  static const shape shapes[] = {
      {.capacity = 1024, .batch = 1, .way = WAIT},
      {.capacity = 1024, .batch = 256, .way = WAIT, .start = UINT64_MAX - 5000},
      {.capacity = 8192, .batch = 0, .way = CLAIM},
      {.capacity = 64, .batch = 0, .way = WAIT, .start = (UINT64_C(1) << 31) * 64 - 5000},
      {.capacity = 4, .batch = 1, .way = CLAIM, .start = UINT64_MAX - 5000},
      {.capacity = 256, .batch = 0, .way = REFUSE},
      {.capacity = 256, .batch = 3, .way = DROP, .start = UINT64_MAX - 5000},
  };
  const uint64_t count = sizeof(shapes) / sizeof(shapes[0]);
  const uint64_t end = ba_monotonic_ns() + (uint64_t)(seconds * 1e9);
  for (uint64_t round = 0; round < count || ba_monotonic_ns() < end; round++) {
    const shape *kind = &shapes[round % count];
    round_of(kind, kind->capacity > 4 ? each : (each + 9) / 10, seed + round);
  }
  puts("stress_test_bitactor: ok");
  return 0;
}
