/*
 * Every result and every edge of the one-to-one and the many-to-many ring, one by one: options, memory that is refused,
 * no room, nothing there, wrapped batches, ends, waits that time out, counters that cannot be true.
 *
 * What needs another thread waits for it to be asleep (ba_was_parked) and not for a time. The last four tests let
 * threads collide until swaps are lost: a figure of chance, but of hundreds of thousands of tries.
 */
#include <bitactor/alloc.h>
#include <bitactor/mpmc.h>
#include <bitactor/spsc.h>

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "check.h"

enum { CAPACITY = 4, FOREVER_S = 60 };
static const uint64_t soon = 1000000;                            /* ns: over before anything comes */
static const uint64_t enough = FOREVER_S * UINT64_C(1000000000); /* ns: only a defect waits so long */
static const ba_ring_options words = {.capacity = CAPACITY, .item_bytes = 8};

static ba_mpmc_ring *many(uint64_t start) {
  ba_mpmc_ring *ring;
  const ba_ring_options options = {.capacity = CAPACITY, .item_bytes = 8, .start = start};
  CHECK(ba_mpmc_create(&options, 8, 8, &ring) == BA_RING_OK, "create");
  return ring;
}

static ba_spsc_ring *one(uint64_t start, ba_spsc_producer *p, ba_spsc_consumer *c) {
  ba_spsc_ring *ring;
  const ba_ring_options options = {.capacity = CAPACITY, .item_bytes = 8, .start = start};
  CHECK(ba_spsc_create(&options, &ring) == BA_RING_OK, "create");
  CHECK(ba_spsc_producer_open(ring, p) == BA_RING_OK && ba_spsc_consumer_open(ring, c) == BA_RING_OK, "open");
  CHECK(ba_spsc_producer_open(ring, p) == BA_RING_TAKEN && ba_spsc_consumer_open(ring, c) == BA_RING_TAKEN, "taken");
  return ring;
}

static void until_parked(ba_wait_point *point, uint32_t threads) {
  while (ba_was_parked(point) < threads) sched_yield();
  const uint64_t until = ba_monotonic_ns() + UINT64_C(20000000); /* announced, and by then most likely asleep */
  while (ba_monotonic_ns() < until) sched_yield();
}

static void every_result_has_words(void) {
  for (int result = BA_RING_OK; result <= BA_RING_SYSTEM; result++) {
    CHECK(strcmp(ba_ring_result_text((ba_ring_result)result), "unknown result") != 0, "result %d", result);
  }
  CHECK(!strcmp(ba_ring_result_text((ba_ring_result)(BA_RING_SYSTEM + 1)), "unknown result"), "unknown");
}

static void options_outside_their_range_are_refused(void) {
  static const ba_ring_options bad[] = {
      {.capacity = 0, .item_bytes = 8},
      {.capacity = UINT64_C(1) << (BA_RING_CAPACITY_LOG2_MAX + 1), .item_bytes = 8},
      {.capacity = 3, .item_bytes = 8},
      {.capacity = 4, .item_bytes = 0},
      {.capacity = 4, .item_bytes = BA_RING_ITEM_BYTES_MAX + 8},
      {.capacity = 4, .item_bytes = 12},
  };
  ba_spsc_ring *s;
  ba_mpmc_ring *m;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(ba_spsc_create(&bad[i], &s) == BA_RING_BAD_OPTION && s == NULL, "options %zu", i);
    CHECK(ba_mpmc_create(&bad[i], 1, 1, &m) == BA_RING_BAD_OPTION && m == NULL, "options %zu", i);
  }
  static const uint32_t handles[][2] = {{0, 1}, {BA_MPMC_MANY + 1, 1}, {1, 0}, {1, BA_MPMC_MANY + 1}};
  for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
    CHECK(ba_mpmc_create(&words, handles[i][0], handles[i][1], &m) == BA_RING_BAD_OPTION, "handles %zu", i);
  }
}

static void memory_that_is_refused_is_said_and_nothing_leaks(void) {
  ba_spsc_ring *s;
  ba_mpmc_ring *m;
  for (uint64_t nth = 1; nth <= 3; nth++) { /* the ring itself, its slots, its marks */
    ba_alloc_fail_every(nth);
    CHECK(nth > 2 || (ba_spsc_create(&words, &s) == BA_RING_NO_MEMORY && s == NULL), "one to one, %d", (int)nth);
    ba_alloc_fail_every(nth);
    CHECK(ba_mpmc_create(&words, 1, 1, &m) == BA_RING_NO_MEMORY && m == NULL, "many to many, %d", (int)nth);
  }
  ba_alloc_fail_every(0);
  ba_spsc_destroy(NULL);
  ba_mpmc_destroy(NULL);
}

static void items_are_copied_whatever_their_size_and_where_they_wrap(uint64_t start) {
  static const uint32_t sizes[] = {8, 32, 40};
  for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++) {
    const ba_ring_options options = {.capacity = CAPACITY, .item_bytes = sizes[size], .start = start};
    uint8_t in[CAPACITY * 40], out[CAPACITY * 40];
    ba_spsc_ring *s;
    ba_mpmc_ring *m;
    ba_spsc_producer sp;
    ba_spsc_consumer sc;
    ba_mpmc_producer mp;
    ba_mpmc_consumer mc;
    uint64_t n;
    CHECK(ba_spsc_create(&options, &s) == BA_RING_OK && ba_mpmc_create(&options, 1, 1, &m) == BA_RING_OK, "create");
    CHECK(ba_spsc_producer_open(s, &sp) == BA_RING_OK && ba_spsc_consumer_open(s, &sc) == BA_RING_OK, "open");
    CHECK(ba_mpmc_producer_open(m, &mp) == BA_RING_OK && ba_mpmc_consumer_open(m, &mc) == BA_RING_OK, "open");
    for (uint64_t turn = 0; turn < 12; turn++) {
      const uint64_t count = 1 + turn % CAPACITY;
      for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(turn * 31 + i);
      CHECK(ba_spsc_try_push(&sp, in, count, &n) == BA_RING_OK && n == count, "push");
      CHECK(ba_mpmc_try_push(&mp, in, count, &n) == BA_RING_OK && n == count, "push");
      CHECK(ba_spsc_try_pop(&sc, out, UINT64_C(1) << 40, &n) == BA_RING_OK && n == count, "pop %d", (int)n);
      CHECK(!memcmp(in, out, count * sizes[size]), "one to one, turn %d", (int)turn);
      CHECK(ba_mpmc_try_pop(&mc, out, UINT64_C(1) << 40, &n) == BA_RING_OK && n == count, "pop %d", (int)n);
      CHECK(!memcmp(in, out, count * sizes[size]), "many to many, turn %d", (int)turn);
    }
    ba_spsc_destroy(s);
    ba_mpmc_destroy(m);
  }
}

static void batches_outside_their_range_are_refused(void) {
  ba_spsc_producer sp;
  ba_spsc_consumer sc;
  ba_spsc_ring *s = one(0, &sp, &sc);
  ba_mpmc_ring *m = many(0);
  ba_mpmc_producer mp = {.ring = m};
  ba_mpmc_consumer mc = {.ring = m};
  ba_span span;
  static const uint32_t bad[][2] = {{0, 1}, {2, 1}, {CAPACITY + 1, CAPACITY + 1}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(ba_spsc_try_claim(&sp, bad[i][0], bad[i][1], &span) == BA_RING_BAD_OPTION, "claim %zu", i);
    CHECK(ba_spsc_try_poll(&sc, bad[i][0], bad[i][1], &span) == BA_RING_BAD_OPTION, "poll %zu", i);
    CHECK(ba_mpmc_try_claim(&mp, bad[i][0], bad[i][1], &span) == BA_RING_BAD_OPTION, "claim %zu", i);
    CHECK(ba_mpmc_try_poll(&mc, bad[i][0], bad[i][1], &span) == BA_RING_BAD_OPTION, "poll %zu", i);
  }
  ba_spsc_destroy(s);
  ba_mpmc_destroy(m);
}

static void no_room_is_refused_dropped_or_waited_for_and_counted(void) {
  uint64_t items[6] = {0}, n;
  const uint64_t lots = UINT64_C(1) << 31; /* a batch has fewer: only what has room is read */
  ba_spsc_producer sp;
  ba_spsc_consumer sc;
  ba_spsc_ring *s = one(0, &sp, &sc);
  CHECK(ba_spsc_try_push(&sp, items, lots, &n) == BA_RING_FULL && n == CAPACITY, "try_push");
  CHECK(ba_spsc_push_or_drop(&sp, items, 2, &n) == BA_RING_OK && n == 0, "dropped");
  CHECK(ba_spsc_wait_push(&sp, items, 1, soon, &n) == BA_RING_TIMEOUT && n == 0, "wait_push");
  ba_span span;
  CHECK(ba_spsc_wait_claim(&sp, 1, 1, soon, &span) == BA_RING_TIMEOUT, "wait_claim");
  CHECK(ba_spsc_was_used(&sp) == CAPACITY, "used");
  ba_ring_statistics said = ba_spsc_statistics(s);
  CHECK(said.refused == lots - CAPACITY && said.dropped == 2 && said.queued == CAPACITY, "counts");
  uint64_t got[6];
  CHECK(ba_spsc_wait_pop(&sc, got, 6, soon, &n) == BA_RING_OK && n == CAPACITY, "all");
  CHECK(ba_spsc_wait_pop(&sc, got, 6, soon, &n) == BA_RING_TIMEOUT && n == 0, "nothing");
  CHECK(ba_spsc_try_pop(&sc, got, 6, &n) == BA_RING_EMPTY, "nothing");
  CHECK(ba_spsc_wait_claim(&sp, 1, 1, soon, &span) == BA_RING_OK, "room");
  CHECK(ba_spsc_push_or_drop(&sp, items, 2, &n) == BA_RING_OK && n == 2, "room");
  CHECK(ba_spsc_wait_push(&sp, items, 1, soon, &n) == BA_RING_OK && n == 1, "room");
  ba_spsc_destroy(s);

  ba_mpmc_ring *m = many(0);
  ba_mpmc_producer mp = {.ring = m};
  ba_mpmc_consumer mc = {.ring = m};
  CHECK(ba_mpmc_try_push(&mp, items, lots, &n) == BA_RING_FULL && n == CAPACITY, "try_push");
  CHECK(ba_mpmc_push_or_drop(&mp, items, 2, &n) == BA_RING_OK && n == 0, "dropped");
  CHECK(ba_mpmc_wait_push(&mp, items, 1, soon, &n) == BA_RING_TIMEOUT && n == 0, "wait_push");
  CHECK(ba_mpmc_wait_claim(&mp, 1, 1, soon, &span) == BA_RING_TIMEOUT, "wait_claim");
  CHECK(ba_mpmc_wait_claim(&mp, 2, 9, soon, &span) == BA_RING_TIMEOUT, "a picky one");
  said = ba_mpmc_statistics(m);
  CHECK(said.refused == lots - CAPACITY && said.dropped == 2 && said.queued == CAPACITY, "counts");
  CHECK(ba_mpmc_wait_pop(&mc, got, 6, soon, &n) == BA_RING_OK && n == CAPACITY, "all");
  CHECK(ba_mpmc_wait_pop(&mc, got, 6, soon, &n) == BA_RING_TIMEOUT && n == 0, "nothing");
  CHECK(ba_mpmc_wait_poll(&mc, 2, 2, soon, &span) == BA_RING_TIMEOUT, "a picky one");
  CHECK(ba_mpmc_try_pop(&mc, got, 6, &n) == BA_RING_EMPTY, "nothing");
  CHECK(ba_mpmc_push_or_drop(&mp, items, 2, &n) == BA_RING_OK && n == 2, "room");
  CHECK(ba_mpmc_wait_push(&mp, items, 1, soon, &n) == BA_RING_OK && n == 1, "room");
  CHECK(ba_mpmc_wait_claim(&mp, 1, 1, soon, &span) == BA_RING_OK, "room");
  ba_mpmc_destroy(m);
}

static void a_consumer_that_has_seen_enough_items_does_not_look_again(void) {
  uint64_t items[3] = {7, 8, 9}, got[1], n;
  ba_spsc_producer p;
  ba_spsc_consumer c;
  ba_spsc_ring *ring = one(0, &p, &c);
  CHECK(ba_spsc_try_push(&p, items, 3, &n) == BA_RING_OK, "push");
  CHECK(ba_spsc_try_pop(&c, got, 1, &n) == BA_RING_OK && got[0] == 7, "the first");
  ba_store_relaxed(&p.control->published, 0); /* who looked now would find none */
  CHECK(ba_spsc_try_pop(&c, got, 1, &n) == BA_RING_OK && got[0] == 8, "the second");
  ba_spsc_destroy(ring);
}

static void after_the_end_what_is_left_comes_and_then_closed(void) {
  uint64_t items[4] = {1, 2, 3, 4}, got[4], n;
  ba_span span;
  ba_spsc_producer sp;
  ba_spsc_consumer sc;
  ba_spsc_ring *s = one(UINT64_MAX - 2, &sp, &sc);
  CHECK(ba_spsc_try_push(&sp, items, 3, &n) == BA_RING_OK, "push");
  CHECK(ba_spsc_try_poll(&sc, 4, 4, &span) == BA_RING_EMPTY, "fewer than asked for");
  ba_spsc_stop(s);
  CHECK(ba_spsc_try_push(&sp, items, 1, &n) == BA_RING_CLOSED, "stopped");
  CHECK(ba_spsc_push_or_drop(&sp, items, 1, &n) == BA_RING_CLOSED, "stopped");
  CHECK(ba_spsc_wait_push(&sp, items, 1, soon, &n) == BA_RING_CLOSED, "stopped");
  CHECK(ba_spsc_wait_claim(&sp, 1, 1, soon, &span) == BA_RING_CLOSED, "stopped");
  CHECK(ba_spsc_try_poll(&sc, 4, 4, &span) == BA_RING_OK && span.n == 3, "what is left");
  ba_spsc_release(&sc, 3);
  CHECK(ba_spsc_wait_pop(&sc, got, 4, soon, &n) == BA_RING_CLOSED, "drained");
  ba_spsc_destroy(s);

  ba_mpmc_ring *m = many(0);
  ba_mpmc_producer mp = {.ring = m}, late = {.ring = m};
  ba_mpmc_consumer mc = {.ring = m};
  CHECK(ba_mpmc_try_push(&mp, items, 2, &n) == BA_RING_OK, "push");
  CHECK(ba_mpmc_try_claim(&late, 1, 1, &span) == BA_RING_OK, "claimed, and published after the close");
  ba_mpmc_close(m);
  ba_mpmc_close(m);
  CHECK(ba_mpmc_try_claim(&mp, 1, 1, &span) == BA_RING_CLOSED, "closed");
  CHECK(ba_mpmc_push_or_drop(&mp, items, 1, &n) == BA_RING_CLOSED, "closed");
  CHECK(ba_mpmc_wait_push(&mp, items, 1, soon, &n) == BA_RING_CLOSED, "closed");
  CHECK(ba_mpmc_wait_claim(&mp, 1, 1, soon, &span) == BA_RING_CLOSED, "closed");
  CHECK(ba_mpmc_try_poll(&mc, 3, 3, &span) == BA_RING_EMPTY, "one is not published yet");
  memset(span.first, 0, 8);
  ba_mpmc_publish(&late);
  CHECK(ba_mpmc_try_poll(&mc, 4, 4, &span) == BA_RING_OK && span.n == 3, "what is left");
  ba_mpmc_release(&mc);
  CHECK(ba_mpmc_wait_pop(&mc, got, 4, soon, &n) == BA_RING_CLOSED, "drained");
  ba_mpmc_destroy(m);
}

static void counters_of_a_moment_that_another_thread_changes_stay_within_bounds(void) {
  ba_spsc_control control;
  ba_spsc_control_init(&control, 0, false, false);
  ba_store_relaxed(&control.published, 9); /* as if the consumer had gone on between the two loads */
  CHECK(ba_spsc_control_statistics(&control, CAPACITY, 0).queued == CAPACITY, "queued");
  ba_mpmc_ring *m = many(0);
  ba_store_relaxed(&m->claimed, 9);
  CHECK(ba_mpmc_statistics(m).queued == CAPACITY, "queued");
  ba_store_relaxed(&m->claimed, 2);
  ba_store_relaxed(&m->state, BA_MPMC_CLOSING); /* as if it were being closed, and not sealed yet */
  CHECK(ba_mpmc_statistics(m).queued == 2, "closing");
  ba_store_relaxed(&m->claimed, 2 + BA_MPMC_SEAL);
  ba_store_relaxed(&m->state, BA_MPMC_SEALED);
  CHECK(ba_mpmc_statistics(m).queued == 2, "sealed");
  ba_mpmc_destroy(m);
  BA_ATOMIC(uint64_t) counter;
  ba_store_relaxed(&counter, 5);
  uint32_t pauses = BA_MPMC_BACK_OFF_MAX / 2;
  CHECK(ba_mpmc_back_off(&counter, &pauses) == 5 && pauses == BA_MPMC_BACK_OFF_MAX, "longer");
  CHECK(ba_mpmc_back_off(&counter, &pauses) == 5 && pauses == BA_MPMC_BACK_OFF_MAX, "no longer than that");
}

static void counters_that_cannot_be_true_are_told(void) {
  uint8_t slots[CAPACITY * 8];
  ba_span span;
  ba_spsc_control control;
  ba_spsc_control_init(&control, 0, false, false);
  ba_spsc_producer p = ba_spsc_producer_of(&control, slots, &words);
  ba_spsc_consumer c = ba_spsc_consumer_of(&control, slots, &words);
  ba_store_relaxed(&control.released, 1); /* more than was ever published */
  CHECK(ba_spsc_try_claim(&p, 1, 1, &span) == BA_RING_CORRUPT, "released");
  ba_store_relaxed(&control.published, CAPACITY + 1);
  CHECK(ba_spsc_try_poll(&c, 1, 1, &span) == BA_RING_CORRUPT, "published");
}

/* --- waits that another thread ends --- */

typedef struct waiting {
  ba_mpmc_ring *many;
  ba_spsc_producer *producer;
  ba_spsc_consumer *consumer;
  uint32_t least, most;
  ba_ring_result result;
  uint64_t n;
} waiting;

static void *claims(void *arg) {
  waiting *w = arg;
  ba_mpmc_producer p = {.ring = w->many};
  ba_span span;
  w->result = ba_mpmc_wait_claim(&p, w->least, w->most, enough, &span);
  if (w->result == BA_RING_OK) {
    w->n = span.n;
    memset(span.first, 0, 8 * (size_t)span.first_n);
    if (span.second != NULL) memset(span.second, 0, 8 * (size_t)(span.n - span.first_n));
    ba_mpmc_publish(&p);
  }
  return NULL;
}

static void *polls(void *arg) {
  waiting *w = arg;
  ba_mpmc_consumer c = {.ring = w->many};
  ba_span span;
  w->result = ba_mpmc_wait_poll(&c, w->least, w->most, enough, &span);
  if (w->result == BA_RING_OK) {
    w->n = span.n;
    ba_mpmc_release(&c);
  }
  return NULL;
}

static void *pushes(void *arg) {
  waiting *w = arg;
  uint64_t items[8] = {0};
  ba_mpmc_producer p = {.ring = w->many};
  w->result = ba_mpmc_wait_push(&p, items, w->most, enough, &w->n);
  return NULL;
}

static void *pushes_alone(void *arg) {
  waiting *w = arg;
  uint64_t items[8] = {0};
  w->result = ba_spsc_wait_push(w->producer, items, w->most, enough, &w->n);
  return NULL;
}

static void *claims_alone(void *arg) {
  waiting *w = arg;
  ba_span span;
  w->result = ba_spsc_wait_claim(w->producer, 1, 1, enough, &span);
  return NULL;
}

static void *pops_alone(void *arg) {
  waiting *w = arg;
  uint64_t items[8];
  w->result = ba_spsc_wait_pop(w->consumer, items, 8, enough, &w->n);
  return NULL;
}

static pthread_t begin(void *(*what)(void *), waiting *w) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, what, w) == 0, "thread");
  return thread;
}

static void one_that_waits_for_room_gets_it_and_passes_on_what_is_more(void) {
  uint64_t items[4] = {0}, got[4], n;
  for (uint32_t freed = 1; freed <= 3; freed++) { /* just enough for the first, for both, for more than both */
    ba_mpmc_ring *m = many(0);
    ba_mpmc_producer p = {.ring = m};
    ba_mpmc_consumer c = {.ring = m};
    waiting first = {.many = m, .least = 1, .most = 1}, second = first;
    CHECK(ba_mpmc_try_push(&p, items, CAPACITY, &n) == BA_RING_OK, "full");
    pthread_t a = begin(claims, &first), b = begin(claims, &second);
    until_parked(&m->space, 2);
    CHECK(ba_mpmc_try_pop(&c, got, freed, &n) == BA_RING_OK && n == freed, "pop");
    if (freed == 1) {
      while (ba_was_parked(&m->space) > 1) sched_yield();
      CHECK(ba_mpmc_try_pop(&c, got, 1, &n) == BA_RING_OK, "pop");
    }
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    CHECK(first.result == BA_RING_OK && second.result == BA_RING_OK, "both, with %u freed at once", freed);
    ba_mpmc_destroy(m);
  }
}

static void one_that_waits_for_items_gets_them_and_passes_on_what_is_more(void) {
  uint64_t items[4] = {0}, n;
  for (uint32_t made = 1; made <= 3; made++) {
    ba_mpmc_ring *m = many(0);
    ba_mpmc_producer p = {.ring = m};
    waiting first = {.many = m, .least = 1, .most = 1}, second = first;
    pthread_t a = begin(polls, &first), b = begin(polls, &second);
    until_parked(&m->items, 2);
    CHECK(ba_mpmc_try_push(&p, items, made, &n) == BA_RING_OK, "push");
    if (made == 1) {
      while (ba_was_parked(&m->items) > 1) sched_yield();
      CHECK(ba_mpmc_try_push(&p, items, 1, &n) == BA_RING_OK, "push");
    }
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    CHECK(first.result == BA_RING_OK && second.result == BA_RING_OK, "both, with %u at once", made);
    ba_mpmc_destroy(m);
  }
}

static void a_push_goes_on_part_by_part_and_ends_with_the_ring(void) {
  uint64_t items[4] = {0}, got[4], n;
  for (int ends = 0; ends < 2; ends++) {
    ba_mpmc_ring *m = many(0);
    ba_mpmc_producer p = {.ring = m};
    ba_mpmc_consumer c = {.ring = m};
    waiting w = {.many = m, .most = 3};
    CHECK(ba_mpmc_try_push(&p, items, CAPACITY, &n) == BA_RING_OK, "full");
    pthread_t t = begin(pushes, &w);
    until_parked(&m->space, 1);
    CHECK(ba_mpmc_try_pop(&c, got, 1, &n) == BA_RING_OK, "room for one");
    while (ba_mpmc_statistics(m).pushed < CAPACITY + 1) sched_yield();
    until_parked(&m->space, 1);
    if (ends)
      ba_mpmc_close(m);
    else
      CHECK(ba_mpmc_try_pop(&c, got, 4, &n) == BA_RING_OK, "room for the rest");
    pthread_join(t, NULL);
    CHECK(w.result == (ends ? BA_RING_CLOSED : BA_RING_OK) && w.n == (ends ? 1 : 3), "%d pushed", (int)w.n);
    ba_mpmc_destroy(m);

    ba_spsc_producer sp;
    ba_spsc_consumer sc;
    ba_spsc_ring *s = one(0, &sp, &sc);
    w = (waiting){.producer = &sp, .most = 3};
    CHECK(ba_spsc_try_push(&sp, items, CAPACITY, &n) == BA_RING_OK, "full");
    t = begin(pushes_alone, &w);
    until_parked(&sc.control->space, 1);
    CHECK(ba_spsc_try_pop(&sc, got, 1, &n) == BA_RING_OK, "room for one");
    while (ba_spsc_statistics(s).pushed < CAPACITY + 1) sched_yield();
    until_parked(&sc.control->space, 1);
    if (ends)
      ba_spsc_stop(s);
    else
      CHECK(ba_spsc_try_pop(&sc, got, 4, &n) == BA_RING_OK, "room for the rest");
    pthread_join(t, NULL);
    CHECK(w.result == (ends ? BA_RING_CLOSED : BA_RING_OK) && w.n == (ends ? 1 : 3), "%d pushed", (int)w.n);
    ba_spsc_destroy(s);
  }
}

static void a_wait_ends_when_the_ring_does(void) {
  ba_mpmc_ring *m = many(0);
  waiting w = {.many = m, .least = 2, .most = 2}, v = w;
  uint64_t items[4] = {0}, n;
  ba_mpmc_producer p = {.ring = m};
  pthread_t t = begin(polls, &w);
  until_parked(&m->items, 1);
  ba_mpmc_close(m);
  pthread_join(t, NULL);
  CHECK(w.result == BA_RING_CLOSED, "poll");
  ba_mpmc_destroy(m);

  m = many(0);
  p.ring = v.many = m;
  CHECK(ba_mpmc_try_push(&p, items, CAPACITY, &n) == BA_RING_OK, "full");
  t = begin(claims, &v);
  until_parked(&m->space, 1);
  ba_mpmc_close(m);
  pthread_join(t, NULL);
  CHECK(v.result == BA_RING_CLOSED, "claim");
  ba_mpmc_destroy(m);

  ba_spsc_producer sp;
  ba_spsc_consumer sc;
  ba_spsc_ring *s = one(0, &sp, &sc);
  w = (waiting){.consumer = &sc};
  t = begin(pops_alone, &w);
  until_parked(&sc.control->items, 1);
  ba_spsc_producer_close(&sp);
  pthread_join(t, NULL);
  CHECK(w.result == BA_RING_CLOSED, "pop");
  ba_spsc_destroy(s);

  s = one(0, &sp, &sc);
  w = (waiting){.producer = &sp};
  CHECK(ba_spsc_try_push(&sp, items, CAPACITY, &n) == BA_RING_OK, "full");
  t = begin(claims_alone, &w);
  until_parked(&sc.control->space, 1);
  ba_spsc_stop(s);
  pthread_join(t, NULL);
  CHECK(w.result == BA_RING_CLOSED, "claim");
  ba_spsc_destroy(s);
}

/* --- collisions --- */

enum { THREADS = 4, OPENINGS = 100000, CLOSINGS = 50 };

static void *opens_and_leaves(void *arg) {
  ba_mpmc_producer p;
  ba_mpmc_consumer c;
  for (int i = 0; i < OPENINGS; i++) {
    CHECK(ba_mpmc_producer_open(arg, &p) == BA_RING_OK, "there are handles for all");
    CHECK(ba_mpmc_consumer_open(arg, &c) == BA_RING_OK, "there are handles for all");
    ba_mpmc_producer_leave(&p);
    ba_mpmc_consumer_leave(&c);
  }
  return NULL;
}

static void handles_are_counted_right_when_threads_collide(void) {
  ba_mpmc_ring *m;
  pthread_t threads[THREADS];
  CHECK(ba_mpmc_create(&words, THREADS, THREADS, &m) == BA_RING_OK, "create");
  for (int i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, opens_and_leaves, m), "thread");
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  ba_mpmc_producer p;
  ba_mpmc_consumer c;
  for (int i = 0; i < THREADS; i++) {
    CHECK(ba_mpmc_producer_open(m, &p) == BA_RING_OK && ba_mpmc_consumer_open(m, &c) == BA_RING_OK, "open %d", i);
  }
  CHECK(ba_mpmc_producer_open(m, &p) == BA_RING_TAKEN && ba_mpmc_consumer_open(m, &c) == BA_RING_TAKEN, "no more");
  ba_mpmc_destroy(m);
}

typedef struct crowd {
  ba_mpmc_ring *ring;
  BA_ATOMIC(uint64_t) in, out;
} crowd;

static void *pushes_until_closed(void *arg) {
  crowd *all = arg;
  ba_mpmc_producer p = {.ring = all->ring};
  uint64_t item = 0, n, count = 0;
  while (ba_mpmc_wait_push(&p, &item, 1, enough, &n) == BA_RING_OK) count++;
  ba_fetch_add_relaxed(&all->in, count);
  return NULL;
}

static void *pops_until_closed(void *arg) {
  crowd *all = arg;
  ba_mpmc_consumer c = {.ring = all->ring};
  uint64_t items[2], n, count = 0;
  while (ba_mpmc_wait_pop(&c, items, 2, enough, &n) == BA_RING_OK) count += n;
  ba_fetch_add_relaxed(&all->out, count);
  return NULL;
}

static void what_was_pushed_before_a_close_comes_out_when_threads_collide(void) {
  for (int turn = 0; turn < CLOSINGS; turn++) {
    crowd all = {.ring = many(UINT64_MAX - (uint64_t)turn)};
    pthread_t threads[2 * THREADS];
    ba_store_relaxed(&all.in, 0);
    ba_store_relaxed(&all.out, 0);
    for (int i = 0; i < THREADS; i++) {
      CHECK(!pthread_create(&threads[i], NULL, pushes_until_closed, &all), "thread");
      CHECK(!pthread_create(&threads[THREADS + i], NULL, pops_until_closed, &all), "thread");
    }
    while (ba_mpmc_statistics(all.ring).popped < (uint64_t)(1 + turn % 512)) sched_yield();
    ba_mpmc_close(all.ring);
    for (int i = 0; i < 2 * THREADS; i++) pthread_join(threads[i], NULL);
    CHECK(ba_load_relaxed(&all.in) == ba_load_relaxed(&all.out), "turn %d", turn);
    ba_mpmc_destroy(all.ring);
  }
}

static void *pushes_and_pops_without_rest(void *arg) {
  crowd *all = arg;
  ba_mpmc_producer p = {.ring = all->ring};
  ba_mpmc_consumer c = {.ring = all->ring};
  uint64_t in = 0, out = 0, n;
  for (uint64_t i = 0; i < OPENINGS; i++) {
    uint64_t item = i;
    if (ba_mpmc_try_push(&p, &item, 1, &n) == BA_RING_OK) in += i;
    if (ba_mpmc_try_pop(&c, &item, 1, &n) == BA_RING_OK) out += item;
  }
  ba_fetch_add_relaxed(&all->in, in);
  ba_fetch_add_relaxed(&all->out, out);
  return NULL;
}

/* A ring that is full or empty most of the time: what a try saw belongs, as often as not, to a claim of others. */
static void what_goes_in_comes_out_when_threads_collide_at_a_ring_of_one(void) {
  const ba_ring_options options = {.capacity = 1, .item_bytes = 8};
  crowd all;
  pthread_t threads[THREADS];
  CHECK(ba_mpmc_create(&options, THREADS, THREADS, &all.ring) == BA_RING_OK, "create");
  ba_store_relaxed(&all.in, 0);
  ba_store_relaxed(&all.out, 0);
  for (int i = 0; i < THREADS; i++) {
    CHECK(!pthread_create(&threads[i], NULL, pushes_and_pops_without_rest, &all), "thread");
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  ba_mpmc_consumer c = {.ring = all.ring};
  uint64_t item, n, left = 0;
  while (ba_mpmc_try_pop(&c, &item, 1, &n) == BA_RING_OK) left += item;
  CHECK(ba_load_relaxed(&all.in) == ba_load_relaxed(&all.out) + left, "sums");
  ba_mpmc_destroy(all.ring);
}

static void *claims_without_rest(void *arg) {
  ba_mpmc_producer p = {.ring = arg};
  ba_mpmc_consumer c = {.ring = arg};
  uint64_t item = 0, n;
  while (ba_mpmc_try_push(&p, &item, 1, &n) == BA_RING_OK) (void)ba_mpmc_try_pop(&c, &item, 1, &n);
  return NULL;
}

/* A close comes between the load and the swap of a claim; a thread that claims without rest makes that likely. */
static void a_close_seals_the_ring_while_claims_go_on(void) {
  for (int turn = 0; turn < 4 * CLOSINGS; turn++) {
    ba_mpmc_ring *m = many((uint64_t)turn);
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, claims_without_rest, m), "thread");
    while (ba_mpmc_statistics(m).popped < 32) ba_pause();
    ba_mpmc_close(m);
    pthread_join(thread, NULL);
    const ba_ring_statistics said = ba_mpmc_statistics(m);
    CHECK(said.pushed == ba_load_relaxed(&m->end) - (uint64_t)turn && said.queued <= 1, "turn %d", turn);
    ba_mpmc_destroy(m);
  }
}

int main(void) {
  every_result_has_words();
  options_outside_their_range_are_refused();
  memory_that_is_refused_is_said_and_nothing_leaks();
  items_are_copied_whatever_their_size_and_where_they_wrap(0);
  items_are_copied_whatever_their_size_and_where_they_wrap(UINT64_MAX - 5);
  batches_outside_their_range_are_refused();
  no_room_is_refused_dropped_or_waited_for_and_counted();
  a_consumer_that_has_seen_enough_items_does_not_look_again();
  after_the_end_what_is_left_comes_and_then_closed();
  counters_of_a_moment_that_another_thread_changes_stay_within_bounds();
  counters_that_cannot_be_true_are_told();
  one_that_waits_for_room_gets_it_and_passes_on_what_is_more();
  one_that_waits_for_items_gets_them_and_passes_on_what_is_more();
  a_push_goes_on_part_by_part_and_ends_with_the_ring();
  a_wait_ends_when_the_ring_does();
  handles_are_counted_right_when_threads_collide();
  what_was_pushed_before_a_close_comes_out_when_threads_collide();
  a_close_seals_the_ring_while_claims_go_on();
  what_goes_in_comes_out_when_threads_collide_at_a_ring_of_one();
  puts("test_ring_edges: ok");
  return 0;
}
