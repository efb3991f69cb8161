/*
 * No wake-up is lost: producers publish just as consumers fall asleep, over and over, in each kind of wait point.
 *
 *   test_wait [seconds for each shape, default 0.6] [seed]
 *
 * In a round each producer publishes one item, each consumer takes at most one, and there are more consumers than
 * items: the others stay asleep. An item that nobody takes within a second is a lost wake-up. Items are large, so that
 * a core has many stores to drain before the one that says "published": that is the time in which a waiter may look
 * and not see it. Without the barrier in `announce` the asymmetric shapes fail within a second; the one after `depart`
 * has not been seen to matter here, wait.h says why it must be there.
 */
#include <bitactor/mpmc.h>
#include <bitactor/spsc.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "ring_items.h"

enum { ITEM_BYTES = 4096, SIDE_MAX = 3 };

typedef struct shape {
  uint32_t producers, consumers;
  bool asymmetric;
} shape;

typedef struct stage {
  shape kind;
  ba_mpmc_ring *ring;
  BA_ATOMIC(uint64_t) round; /* the one that may be played; by main */
  BA_ATOMIC(uint64_t) taken; /* items of all rounds; by consumers */
  uint64_t seed;
} stage;

typedef struct player {
  stage *on;
  uint64_t number;
} player;

static void wait_for_round(stage *s, uint64_t round) {
  while (ba_load_acquire(&s->round) < round) sched_yield(); /* acquire: the ring is as the last round left it */
}

static void *produce(void *arg) {
  const player me = *(const player *)arg;
  uint64_t state = dice_seed(me.on->seed, me.number);
  ba_mpmc_producer p;
  CHECK(ba_mpmc_producer_open(me.on->ring, &p) == BA_RING_OK, "open");
  for (uint64_t round = 1;; round++) {
    wait_for_round(me.on, round);
    /* From 0 to some 20 us: about as long as a consumer takes to fall asleep. */
    for (uint64_t pauses = dice(&state) % 512; pauses > 0; pauses--) ba_pause();
    ba_span span;
    const ba_ring_result result = ba_mpmc_try_claim(&p, 1, 1, &span);
    if (result == BA_RING_CLOSED) return NULL;
    CHECK(result == BA_RING_OK, "claim: %s", ba_ring_result_text(result));
    memset(span.first, (int)(round & 0xff), ITEM_BYTES);
    ba_mpmc_publish(&p);
  }
}

static void *consume(void *arg) {
  const player me = *(const player *)arg;
  ba_mpmc_consumer c;
  CHECK(ba_mpmc_consumer_open(me.on->ring, &c) == BA_RING_OK, "open");
  for (;;) {
    ba_span span;
    const ba_ring_result result = ba_mpmc_wait_poll(&c, 1, 1, BA_WAIT_FOREVER, &span);
    if (result == BA_RING_CLOSED) return NULL;
    CHECK(result == BA_RING_OK, "poll: %s", ba_ring_result_text(result));
    const uint64_t round = ba_load_acquire(&me.on->round); /* acquire: as in wait_for_round */
    for (int i = 0; i < ITEM_BYTES; i++) CHECK(span.first[i] == (uint8_t)round, "round %u", span.first[i]);
    ba_mpmc_release(&c);
    ba_fetch_add_acq_rel(&me.on->taken, 1); /* release: the item is read; acquire: for the sum of all */
    wait_for_round(me.on, round + 1);       /* one item a round: the next is for who sleeps */
  }
}

static void no_wake_up_is_lost(shape kind, double seconds, uint64_t seed) {
  static stage s;
  memset(&s, 0, sizeof(s));
  s.kind = kind;
  s.seed = seed;
  CHECK(ba_mpmc_create(&(ba_ring_options){.capacity = 4, .item_bytes = ITEM_BYTES}, kind.producers, kind.consumers,
                       &s.ring) == BA_RING_OK,
        "create");
  if (!kind.asymmetric) s.ring->items.asymmetric = s.ring->space.asymmetric = 0;
  pthread_t producers[SIDE_MAX], consumers[SIDE_MAX];
  player players[SIDE_MAX];
  for (uint32_t i = 0; i < SIDE_MAX; i++) players[i] = (player){.on = &s, .number = i};
  for (uint32_t i = 0; i < kind.consumers; i++) pthread_create(&consumers[i], NULL, consume, &players[i]);
  for (uint32_t i = 0; i < kind.producers; i++) pthread_create(&producers[i], NULL, produce, &players[i]);
  const uint64_t end = ba_monotonic_ns() + (uint64_t)(seconds * 1e9);
  uint64_t round = 0;
  do {
    ba_store_release(&s.round, ++round); /* release: pairs with wait_for_round */
    const uint64_t begin = ba_monotonic_ns();
    while (ba_load_acquire(&s.taken) < round * kind.producers) { /* acquire: the round is over for all */
      CHECK(ba_monotonic_ns() - begin < UINT64_C(1000000000), "round %llu: %llu of %llu items taken, %u asleep: lost",
            (unsigned long long)round, (unsigned long long)ba_load_relaxed(&s.taken),
            (unsigned long long)round * kind.producers, ba_was_parked(&s.ring->items));
      sched_yield();
    }
  } while (ba_monotonic_ns() < end);
  const uint64_t parks = ba_mpmc_statistics(s.ring).consumer_parks;
  ba_mpmc_close(s.ring);
  ba_store_release(&s.round, round + 2);
  for (uint32_t i = 0; i < kind.consumers; i++) pthread_join(consumers[i], NULL);
  for (uint32_t i = 0; i < kind.producers; i++) pthread_join(producers[i], NULL);
  printf("%u to %u, %s: %llu rounds, %llu parks\n", kind.producers, kind.consumers,
         kind.asymmetric ? "asymmetric" : "symmetric", (unsigned long long)round, (unsigned long long)parks);
  CHECK(parks > 0 || kind.consumers == kind.producers, "nobody ever slept: this tests nothing");
  ba_mpmc_destroy(s.ring);
}

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 0.6;
  const uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : ba_monotonic_ns();
  printf("seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  for (int asymmetric = 0; asymmetric <= (int)ba_wait_can_be_asymmetric(); asymmetric++) {
    no_wake_up_is_lost((shape){1, 1, asymmetric != 0}, seconds, seed);
    no_wake_up_is_lost((shape){1, 3, asymmetric != 0}, seconds, seed);
    no_wake_up_is_lost((shape){2, 3, asymmetric != 0}, seconds, seed);
  }
  puts("test_wait: ok");
  return 0;
}
