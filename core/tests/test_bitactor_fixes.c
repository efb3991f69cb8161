/*
 * The rings under the races that an earlier ring of this name had: items lost, doubled, out of order, half-written or
 * never made; a producer stopped between claim and publish; sequences that wrap. And what their options, ends, counts
 * and failures promise. The shipped code, not a copy.
 *
 *   test_bitactor_fixes [seed]
 */
#include <bitactor/alloc.h>
#include <bitactor/byteorder.h>
#include <bitactor/mpmc.h>
#include <bitactor/spsc.h>

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "check.h"
#include "ring_items.h"

#if defined(__SANITIZE_THREAD__)
enum { EACH = 1500 };
#else
enum { EACH = 20000 };
#endif

static uint64_t seed;

/* Two thousandths of a second: long enough for others to do what they must not. */
static void moment(void) { nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }

/* Either shape behind one set of calls, so that a test holds for both. */
typedef struct ring {
  ba_spsc_ring *one;
  ba_mpmc_ring *many;
} ring;
typedef struct producer {
  ba_spsc_producer one;
  ba_mpmc_producer many;
  bool is_one;
} producer;
typedef struct consumer {
  ba_spsc_consumer one;
  ba_mpmc_consumer many;
  bool is_one;
} consumer;

static ring ring_make(bool one, uint64_t capacity, uint64_t start) {
  ring r = {0};
  const ba_ring_options options = {.capacity = capacity, .item_bytes = sizeof(item), .start = start};
  const ba_ring_result result =
      one ? ba_spsc_create(&options, &r.one) : ba_mpmc_create(&options, BA_MPMC_MANY, BA_MPMC_MANY, &r.many);
  CHECK(result == BA_RING_OK, "create: %s", ba_ring_result_text(result));
  return r;
}
static void ring_free(ring *r) {
  ba_spsc_destroy(r->one);
  ba_mpmc_destroy(r->many);
}
static producer ring_producer(const ring *r) {
  producer p = {.is_one = r->one != NULL};
  CHECK((p.is_one ? ba_spsc_producer_open(r->one, &p.one) : ba_mpmc_producer_open(r->many, &p.many)) == BA_RING_OK,
        "open");
  return p;
}
static consumer ring_consumer(const ring *r) {
  consumer c = {.is_one = r->one != NULL};
  CHECK((c.is_one ? ba_spsc_consumer_open(r->one, &c.one) : ba_mpmc_consumer_open(r->many, &c.many)) == BA_RING_OK,
        "open");
  return c;
}
static ba_ring_statistics ring_statistics(const ring *r) {
  return r->one != NULL ? ba_spsc_statistics(r->one) : ba_mpmc_statistics(r->many);
}
static ba_ring_result claim(producer *p, uint32_t least, uint32_t most, uint64_t ns, ba_span *span) {
  if (p->is_one) {
    return ns ? ba_spsc_wait_claim(&p->one, least, most, ns, span) : ba_spsc_try_claim(&p->one, least, most, span);
  }
  return ns ? ba_mpmc_wait_claim(&p->many, least, most, ns, span) : ba_mpmc_try_claim(&p->many, least, most, span);
}
static void publish(producer *p, uint32_t n) {
  if (p->is_one) {
    ba_spsc_publish(&p->one, n);
  } else {
    ba_mpmc_publish(&p->many);
  }
}
static ba_ring_result poll(consumer *c, uint32_t least, uint32_t most, uint64_t ns, ba_span *span) {
  if (c->is_one) {
    return ns ? ba_spsc_wait_poll(&c->one, least, most, ns, span) : ba_spsc_try_poll(&c->one, least, most, span);
  }
  return ns ? ba_mpmc_wait_poll(&c->many, least, most, ns, span) : ba_mpmc_try_poll(&c->many, least, most, span);
}
static void release(consumer *c, uint32_t n) {
  if (c->is_one) {
    ba_spsc_release(&c->one, n);
  } else {
    ba_mpmc_release(&c->many);
  }
}
static ba_ring_result try_push(producer *p, const item *items, uint64_t n, uint64_t *pushed) {
  return p->is_one ? ba_spsc_try_push(&p->one, items, n, pushed) : ba_mpmc_try_push(&p->many, items, n, pushed);
}
static ba_ring_result wait_push(producer *p, const item *items, uint64_t n, uint64_t ns, uint64_t *pushed) {
  return p->is_one ? ba_spsc_wait_push(&p->one, items, n, ns, pushed)
                   : ba_mpmc_wait_push(&p->many, items, n, ns, pushed);
}
static ba_ring_result drop_push(producer *p, const item *items, uint64_t n, uint64_t *pushed) {
  return p->is_one ? ba_spsc_push_or_drop(&p->one, items, n, pushed) : ba_mpmc_push_or_drop(&p->many, items, n, pushed);
}
static ba_ring_result try_pop(consumer *c, item *items, uint64_t most, uint64_t *popped) {
  return c->is_one ? ba_spsc_try_pop(&c->one, items, most, popped) : ba_mpmc_try_pop(&c->many, items, most, popped);
}
static ba_ring_result wait_pop(consumer *c, item *items, uint64_t most, uint64_t ns, uint64_t *popped) {
  return c->is_one ? ba_spsc_wait_pop(&c->one, items, most, ns, popped)
                   : ba_mpmc_wait_pop(&c->many, items, most, ns, popped);
}
static void ring_end(ring *r) {
  if (r->one != NULL) ba_spsc_stop(r->one);
  if (r->many != NULL) ba_mpmc_close(r->many);
}

static uint8_t *span_at(const ba_span *span, uint32_t n) {
  return n < span->first_n ? span->first + n * sizeof(item) : span->second + (n - span->first_n) * sizeof(item);
}

/* --- exactly once, in order, whole: threads that claim, push, poll and pop by dice --- */

enum { THREADS_MAX = 8 };

typedef struct work {
  ring *ring;
  producer *p; /* spsc: opened by main, so that main can end it */
  uint64_t index, offered;
  ledger book;
  BA_ATOMIC(uint64_t) *dropped;
} work;

/* Writes the first half of each item, gives the core away, writes the rest, publishes. */
static void write_slowly(const ba_span *span, uint64_t by, uint64_t first) {
  for (uint32_t n = 0; n < span->n; n++) {
    const item i = item_of(by, first + n);
    memcpy(span_at(span, n), &i, sizeof(i) / 2);
  }
  if (first % 16 == 0) sched_yield();
  for (uint32_t n = 0; n < span->n; n++) {
    const item i = item_of(by, first + n);
    memcpy(span_at(span, n) + sizeof(i) / 2, (const uint8_t *)&i + sizeof(i) / 2, sizeof(i) / 2);
  }
}

static void *produce(void *arg) {
  work *w = arg;
  uint64_t state = dice_seed(seed, w->index);
  item items[64];
  for (uint64_t s = 0; s < EACH;) {
    uint64_t n = 1 + dice(&state) % (dice(&state) % 4 == 0 ? 64 : 3), pushed = 0;
    if (n > EACH - s) n = EACH - s;
    ba_span span;
    switch (dice(&state) % 3) {
      case 0:
        CHECK(claim(w->p, 1, (uint32_t)n, BA_WAIT_FOREVER, &span) == BA_RING_OK && span.n <= n, "claim");
        write_slowly(&span, w->index, s);
        publish(w->p, span.n);
        s += span.n;
        break;
      case 1:
        for (uint64_t i = 0; i < n; i++) items[i] = item_of(w->index, s + i);
        CHECK(wait_push(w->p, items, n, BA_WAIT_FOREVER, &pushed) == BA_RING_OK && pushed == n, "push");
        s += n;
        break;
      default:
        for (uint64_t i = 0; i < n; i++) items[i] = item_of(w->index, s + i);
        const ba_ring_result result = try_push(w->p, items, n, &pushed);
        CHECK(result == (pushed == n ? BA_RING_OK : BA_RING_FULL), "try_push: %s", ba_ring_result_text(result));
        s += pushed;
        if (pushed == 0) sched_yield();
        break;
    }
  }
  return NULL;
}

static void *consume(void *arg) {
  work *w = arg;
  uint64_t state = dice_seed(seed, 100 + w->index);
  consumer c = ring_consumer(w->ring);
  const uint64_t capacity = ring_statistics(w->ring).capacity;
  item items[64];
  for (;;) {
    const uint32_t most = (uint32_t)(1 + dice(&state) % (dice(&state) % 4 == 0 ? 64 : 3));
    ba_ring_result result;
    if (dice(&state) % 2 == 0) {
      uint32_t least = dice(&state) % 8 == 0 ? (uint32_t)(1 + dice(&state) % most) : 1;
      if (least > capacity) least = (uint32_t)capacity;
      ba_span span;
      result = poll(&c, least, most, BA_WAIT_FOREVER, &span);
      if (result == BA_RING_OK) {
        CHECK(span.n >= 1 && span.n <= most, "poll of %u gave %u", most, span.n);
        ledger_enter_span(&w->book, &span);
        release(&c, span.n);
      }
    } else {
      uint64_t n = 0;
      result = wait_pop(&c, items, most, BA_WAIT_FOREVER, &n);
      if (result == BA_RING_OK) CHECK(n >= 1 && n <= most, "pop");
      for (uint64_t i = 0; i < n; i++) ledger_enter(&w->book, &items[i]);
    }
    if (result == BA_RING_CLOSED) return NULL;
    CHECK(result == BA_RING_OK, "poll: %s", ba_ring_result_text(result));
  }
}

static void every_item_comes_once_whole_and_in_its_producers_order(bool one, uint64_t capacity, uint64_t start,
                                                                   uint64_t producers, uint64_t consumers) {
  ring r = ring_make(one, capacity, start);
  work makers[THREADS_MAX] = {0}, takers[THREADS_MAX] = {0};
  producer handles[THREADS_MAX];
  ledger books[THREADS_MAX] = {{0}};
  pthread_t threads[2 * THREADS_MAX];
  for (uint64_t i = 0; i < producers; i++) {
    handles[i] = ring_producer(&r);
    makers[i] = (work){.ring = &r, .p = &handles[i], .index = i};
    CHECK(pthread_create(&threads[i], NULL, produce, &makers[i]) == 0, "thread");
  }
  for (uint64_t i = 0; i < consumers; i++) {
    takers[i] = (work){.ring = &r, .index = i};
    ledger_open(&takers[i].book, producers, EACH);
    CHECK(pthread_create(&threads[THREADS_MAX + i], NULL, consume, &takers[i]) == 0, "thread");
  }
  for (uint64_t i = 0; i < producers; i++) pthread_join(threads[i], NULL);
  if (one) ba_spsc_producer_close(&handles[0].one);
  if (!one) ba_mpmc_close(r.many);
  for (uint64_t i = 0; i < consumers; i++) {
    pthread_join(threads[THREADS_MAX + i], NULL);
    books[i] = takers[i].book;
  }
  ledgers_agree(books, consumers, 0);
  const ba_ring_statistics counts = ring_statistics(&r);
  CHECK(counts.pushed == producers * EACH && counts.popped == counts.pushed && counts.queued == 0, "counts");
  for (uint64_t i = 0; i < consumers; i++) ledger_close(&books[i]);
  ring_free(&r);
}

/* --- capacity, refusals, drops: one thread, every step known --- */

static void a_ring_holds_exactly_its_capacity_lap_after_lap(bool one, uint64_t start) {
  for (uint64_t capacity = 1; capacity <= 64; capacity *= 2) {
    ring r = ring_make(one, capacity, start);
    producer p = ring_producer(&r);
    consumer c = ring_consumer(&r);
    item items[80], got[80];
    uint64_t made = 0, taken = 0, refused = 0, dropped = 0, n;
    for (int lap = 0; lap < 5; lap++) {
      for (uint64_t i = 0; i < capacity + 5; i++) items[i] = item_of(0, made + i);
      if (lap % 2 == 0) {
        CHECK(try_push(&p, items, capacity + 5, &n) == BA_RING_FULL && n == capacity,
              "lap %d: a ring of %llu took %llu", lap, (unsigned long long)capacity, (unsigned long long)n);
        refused += 5;
      } else {
        CHECK(drop_push(&p, items, capacity + 5, &n) == BA_RING_OK && n == capacity, "lap %d: a ring of %llu took %llu",
              lap, (unsigned long long)capacity, (unsigned long long)n);
        dropped += 5;
      }
      made += capacity;
      ba_span span;
      CHECK(claim(&p, 1, 1, 0, &span) == BA_RING_FULL, "a slot beyond the capacity");
      CHECK(wait_push(&p, items, 1, 1000, &n) == BA_RING_TIMEOUT && n == 0, "a slot beyond the capacity");
      const ba_ring_statistics counts = ring_statistics(&r);
      CHECK(counts.queued == capacity && counts.refused == refused && counts.dropped == dropped, "counts");
      if (capacity > 1) { /* one out, one in: never more */
        CHECK(try_pop(&c, got, 1, &n) == BA_RING_OK && n == 1 && got[0].number == taken, "pop");
        taken++;
        items[0] = item_of(0, made);
        items[1] = item_of(0, made + 1);
        CHECK(try_push(&p, items, 2, &n) == BA_RING_FULL && n == 1, "room for one");
        made++;
        refused++;
      }
      CHECK(try_pop(&c, got, capacity + 5, &n) == BA_RING_OK && n == capacity, "all that is there: %llu of %llu",
            (unsigned long long)n, (unsigned long long)capacity);
      for (uint64_t i = 0; i < n; i++, taken++) {
        CHECK(got[i].number == taken && got[i].check == item_check(0, taken), "item %llu", (unsigned long long)taken);
      }
      CHECK(try_pop(&c, got, 1, &n) == BA_RING_EMPTY && n == 0, "an item that nobody made");
      CHECK(wait_pop(&c, got, 1, 1000, &n) == BA_RING_TIMEOUT && n == 0, "an item that nobody made");
    }
    ring_free(&r);
  }
}

static void what_is_not_published_is_not_seen(bool one, uint64_t start) {
  ring r = ring_make(one, 8, start);
  producer p = ring_producer(&r);
  consumer c = ring_consumer(&r);
  ba_span span, got;
  for (uint64_t lap = 0; lap < 40; lap++) {
    CHECK(claim(&p, 3, 3, 0, &span) == BA_RING_OK && span.n == 3, "claim");
    CHECK(span.sequence == start + 3 * lap, "sequence");
    CHECK(poll(&c, 1, 8, 0, &got) == BA_RING_EMPTY, "claimed slots seen");
    for (uint32_t n = 0; n < 3; n++) memset(span_at(&span, n), POISON, sizeof(item));
    CHECK(poll(&c, 1, 8, 0, &got) == BA_RING_EMPTY, "half-written slots seen");
    for (uint32_t n = 0; n < 3; n++) memcpy(span_at(&span, n), &(item){0, 3 * lap + n, 0, 0}, sizeof(item));
    CHECK(poll(&c, 1, 8, 100000, &got) == BA_RING_TIMEOUT, "unpublished slots seen");
    publish(&p, 3);
    CHECK(poll(&c, 4, 8, 0, &got) == BA_RING_EMPTY, "four of three");
    CHECK(poll(&c, 1, 8, 0, &got) == BA_RING_OK && got.n == 3, "published slots not seen");
    for (uint32_t n = 0; n < 3; n++) {
      item i;
      memcpy(&i, span_at(&got, n), sizeof(i));
      CHECK(i.number == 3 * lap + n, "content");
    }
    CHECK(ring_statistics(&r).capacity == 8, "capacity");
    release(&c, 3);
  }
  ring_free(&r);
}

/* --- a thread that stops between two steps --- */

typedef struct gate {
  pthread_mutex_t lock;
  pthread_cond_t moved;
  int at;
} gate;

static void gate_to(gate *g, int at) {
  pthread_mutex_lock(&g->lock);
  g->at = at;
  pthread_cond_broadcast(&g->moved);
  pthread_mutex_unlock(&g->lock);
}

static void gate_wait(gate *g, int at) {
  pthread_mutex_lock(&g->lock);
  while (g->at < at) pthread_cond_wait(&g->moved, &g->lock);
  pthread_mutex_unlock(&g->lock);
}

typedef struct stop {
  ring *ring;
  gate gate;
} stop;

enum { STOPPED = 1, RESUME = 2 };

static void *claims_three_and_stops(void *arg) {
  stop *s = arg;
  producer p = ring_producer(s->ring);
  ba_span span;
  CHECK(claim(&p, 3, 3, 0, &span) == BA_RING_OK, "claim");
  item i = item_of(0, 0);
  memcpy(span_at(&span, 0), &i, sizeof(i)); /* one whole, one half, one not at all */
  i = item_of(0, 1);
  memcpy(span_at(&span, 1), &i, sizeof(i) / 2);
  gate_to(&s->gate, STOPPED);
  gate_wait(&s->gate, RESUME);
  for (uint32_t n = 0; n < 3; n++) {
    i = item_of(0, n);
    memcpy(span_at(&span, n), &i, sizeof(i));
  }
  publish(&p, 3);
  return NULL;
}

typedef struct taker {
  ring *ring;
  ledger book;
  BA_ATOMIC(uint64_t) taken;
} taker;

static void *takes_all(void *arg) {
  taker *t = arg;
  consumer c = ring_consumer(t->ring);
  ba_span span;
  while (poll(&c, 1, 4, BA_WAIT_FOREVER, &span) == BA_RING_OK) {
    ledger_enter_span(&t->book, &span);
    release(&c, span.n);
    ba_fetch_add_relaxed(&t->taken, span.n);
  }
  return NULL;
}

static void *offers_twenty(void *arg) {
  ring *r = arg;
  producer p = ring_producer(r);
  uint64_t pushed;
  for (uint64_t s = 0; s < 20; s++) {
    const item i = item_of(1, s);
    CHECK(wait_push(&p, &i, 1, BA_WAIT_FOREVER, &pushed) == BA_RING_OK, "push");
  }
  return NULL;
}

static void consumers_do_not_pass_a_stopped_producer_and_all_goes_on_when_it_resumes(uint64_t start) {
  ring r = ring_make(false, 16, start);
  stop s = {.ring = &r, .gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}};
  taker takers[3] = {{.ring = &r}, {.ring = &r}, {.ring = &r}};
  pthread_t stopped, other, threads[3];
  pthread_create(&stopped, NULL, claims_three_and_stops, &s);
  gate_wait(&s.gate, STOPPED);
  for (int i = 0; i < 3; i++) {
    ledger_open(&takers[i].book, 2, 20);
    pthread_create(&threads[i], NULL, takes_all, &takers[i]);
  }
  pthread_create(&other, NULL, offers_twenty, &r);
  while (ring_statistics(&r).queued < 16) sched_yield(); /* 3 claimed, 13 published behind them, the rest waits */
  for (int i = 0; i < 10; i++) {
    moment();
    for (int t = 0; t < 3; t++) CHECK(ba_load_relaxed(&takers[t].taken) == 0, "passed the stopped producer");
    CHECK(ring_statistics(&r).queued == 16, "more claims than the capacity");
  }
  producer p = ring_producer(&r);
  ba_span span;
  CHECK(claim(&p, 1, 1, 0, &span) == BA_RING_FULL, "not full"); /* producers are told, they do not hang */
  gate_to(&s.gate, RESUME);
  pthread_join(stopped, NULL);
  pthread_join(other, NULL);
  ba_mpmc_close(r.many);
  uint64_t count = 0, first = 0;
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], NULL);
    count += takers[i].book.count;
    for (uint64_t n = 0; n < 3; n++) first += (takers[i].book.seen[0] >> n) & 1;
    ledger_close(&takers[i].book);
  }
  CHECK(count == 23 && first == 3, "%llu items, %llu of the stopped producer", (unsigned long long)count,
        (unsigned long long)first);
  ring_free(&r);
}

static void *polls_two_and_stops(void *arg) {
  stop *s = arg;
  consumer c = ring_consumer(s->ring);
  ba_span span;
  CHECK(poll(&c, 2, 2, 0, &span) == BA_RING_OK, "poll");
  gate_to(&s->gate, STOPPED);
  gate_wait(&s->gate, RESUME);
  for (uint32_t n = 0; n < 2; n++) {
    item i;
    memcpy(&i, span_at(&span, n), sizeof(i));
    CHECK(i.number == n && i.check == item_check(0, n), "overwritten before it was released");
  }
  release(&c, 2);
  return NULL;
}

static void producers_do_not_overwrite_what_a_stopped_consumer_holds(bool one, uint64_t start) {
  ring r = ring_make(one, 8, start);
  producer p = ring_producer(&r);
  uint64_t n;
  item items[8], got[8];
  for (uint64_t i = 0; i < 8; i++) items[i] = item_of(0, i);
  CHECK(try_push(&p, items, 8, &n) == BA_RING_OK, "push");
  stop s = {.ring = &r, .gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}};
  pthread_t stopped;
  pthread_create(&stopped, NULL, polls_two_and_stops, &s);
  gate_wait(&s.gate, STOPPED);
  if (!one) { /* another consumer goes on with the rest; the producer comes to the held slots and is told */
    consumer c = ring_consumer(&r);
    CHECK(try_pop(&c, got, 8, &n) == BA_RING_OK && n == 6 && got[0].number == 2 && got[5].number == 7, "the rest");
  }
  CHECK(try_push(&p, items, 8, &n) == BA_RING_FULL && n == 0, "overwrites polled items");
  gate_to(&s.gate, RESUME);
  pthread_join(stopped, NULL);
  CHECK(try_push(&p, items, 8, &n) == (one ? BA_RING_FULL : BA_RING_OK) && n == (one ? 2 : 8), "room after release");
  ring_free(&r);
}

/* --- the end --- */

typedef struct closing {
  ring *ring;
  producer *p;
  uint64_t index, pushed;
} closing;

static void *pushes_until_closed(void *arg) {
  closing *w = arg;
  for (;;) {
    uint64_t n;
    const item items[2] = {item_of(w->index, w->pushed), item_of(w->index, w->pushed + 1)};
    const ba_ring_result result = wait_push(w->p, items, 2, BA_WAIT_FOREVER, &n);
    w->pushed += n;
    if (result == BA_RING_CLOSED) return NULL;
    CHECK(result == BA_RING_OK, "push: %s", ba_ring_result_text(result));
  }
}

static void closing_loses_nothing_that_was_taken(bool one, uint64_t start) {
  for (int round = 0; round < 20; round++) {
    ring r = ring_make(one, 4, start);
    closing makers[3];
    producer handles[3];
    pthread_t threads[3], reader;
    taker t = {.ring = &r};
    const uint64_t producers = one ? 1 : 3;
    ledger_open(&t.book, 3, 1 << 24);
    for (uint64_t i = 0; i < producers; i++) {
      handles[i] = ring_producer(&r);
      makers[i] = (closing){&r, &handles[i], i, 0};
      pthread_create(&threads[i], NULL, pushes_until_closed, &makers[i]);
    }
    pthread_create(&reader, NULL, takes_all, &t);
    if (round % 2) moment();
    ring_end(&r);
    ring_end(&r);
    uint64_t pushed = 0;
    for (uint64_t i = 0; i < producers; i++) pthread_join(threads[i], NULL), pushed += makers[i].pushed;
    pthread_join(reader, NULL); /* the consumer sees the end by itself */
    CHECK(t.book.count == pushed, "%llu pushed, %llu came", (unsigned long long)pushed,
          (unsigned long long)t.book.count);
    for (uint64_t i = 0; i < producers; i++) CHECK(t.book.next[i] == makers[i].pushed, "the last ones");
    const ba_ring_statistics counts = ring_statistics(&r);
    CHECK(counts.pushed == pushed && counts.popped == pushed && counts.queued == 0, "counts after the end");
    ledger_close(&t.book);
    ring_free(&r);
  }
}

/* --- options, handles, memory, time --- */

static void wrong_options_and_handles_are_refused(void) {
  ba_spsc_ring *one = (ba_spsc_ring *)1;
  ba_mpmc_ring *many = (ba_mpmc_ring *)1;
  const ba_ring_options wrong[] = {{.capacity = 0, .item_bytes = 32},
                                   {.capacity = 3, .item_bytes = 32},
                                   {.capacity = UINT64_C(1) << 31, .item_bytes = 32},
                                   {.capacity = 8, .item_bytes = 0},
                                   {.capacity = 8, .item_bytes = 12},
                                   {.capacity = 8, .item_bytes = BA_RING_ITEM_BYTES_MAX + 8}};
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    CHECK(ba_spsc_create(&wrong[i], &one) == BA_RING_BAD_OPTION && one == NULL, "spsc %zu", i);
    CHECK(ba_mpmc_create(&wrong[i], 1, 1, &many) == BA_RING_BAD_OPTION && many == NULL, "mpmc %zu", i);
  }
  const ba_ring_options right = {.capacity = 8, .item_bytes = 32};
  CHECK(ba_mpmc_create(&right, 0, 1, &many) == BA_RING_BAD_OPTION, "no producer");
  CHECK(ba_mpmc_create(&right, 1, BA_MPMC_MANY + 1, &many) == BA_RING_BAD_OPTION, "too many consumers");
  CHECK(ba_spsc_create(&right, &one) == BA_RING_OK && ba_mpmc_create(&right, 2, 1, &many) == BA_RING_OK, "create");
  ba_spsc_producer p, p2;
  ba_spsc_consumer c;
  CHECK(ba_spsc_producer_open(one, &p) == BA_RING_OK && ba_spsc_producer_open(one, &p2) == BA_RING_TAKEN, "one");
  CHECK(ba_spsc_consumer_open(one, &c) == BA_RING_OK && ba_spsc_consumer_open(one, &c) == BA_RING_TAKEN, "one");
  ba_mpmc_producer m[3];
  CHECK(ba_mpmc_producer_open(many, &m[0]) == BA_RING_OK && ba_mpmc_producer_open(many, &m[1]) == BA_RING_OK, "two");
  CHECK(ba_mpmc_producer_open(many, &m[2]) == BA_RING_TAKEN, "a third");
  ba_mpmc_producer_leave(&m[0]);
  CHECK(ba_mpmc_producer_open(many, &m[2]) == BA_RING_OK, "a place given back");
  ba_span span;
  CHECK(ba_spsc_try_claim(&p, 0, 1, &span) == BA_RING_BAD_OPTION, "none");
  CHECK(ba_spsc_try_claim(&p, 2, 1, &span) == BA_RING_BAD_OPTION, "least above most");
  CHECK(ba_spsc_try_claim(&p, 9, 9, &span) == BA_RING_BAD_OPTION, "above the capacity");
  CHECK(ba_spsc_try_poll(&c, 9, 9, &span) == BA_RING_BAD_OPTION, "above the capacity");
  CHECK(ba_mpmc_try_claim(&m[2], 9, 9, &span) == BA_RING_BAD_OPTION, "above the capacity");
  ba_spsc_destroy(one);
  ba_mpmc_destroy(many);
  ba_spsc_destroy(NULL);
  ba_mpmc_destroy(NULL);
  for (int result = BA_RING_OK; result <= BA_RING_SYSTEM + 1; result++) {
    CHECK(ba_ring_result_text((ba_ring_result)result)[0] != 0, "a text");
  }
}

static void a_failed_allocation_is_a_result_and_leaks_nothing(void) {
  for (uint64_t every = 1; every <= 3; every++) {
    ba_alloc_fail_every(every);
    for (int i = 0; i < 6; i++) {
      const ba_ring_options options = {.capacity = 8, .item_bytes = 32};
      ba_spsc_ring *one;
      ba_mpmc_ring *many;
      ba_ring_result result = ba_spsc_create(&options, &one);
      CHECK(result == (one != NULL ? BA_RING_OK : BA_RING_NO_MEMORY), "spsc");
      ba_spsc_destroy(one);
      result = ba_mpmc_create(&options, 1, 1, &many);
      CHECK(result == (many != NULL ? BA_RING_OK : BA_RING_NO_MEMORY), "mpmc");
      CHECK(every > 1 || (one == NULL && many == NULL), "made of nothing");
      ba_mpmc_destroy(many);
    }
    CHECK(ba_alloc_failures() > 0, "none failed");
  }
  ba_alloc_fail_every(0);
}

static void a_wait_ends_when_its_time_is_over_and_not_before(bool one) {
  ring r = ring_make(one, 8, 0);
  consumer c = ring_consumer(&r);
  ba_span span;
  for (int turn = 0; turn < 200 && ring_statistics(&r).consumer_parks == 0;
       turn++) { /* a busy machine: spun till then */
    const uint64_t begin = ba_monotonic_ns();
    CHECK(poll(&c, 1, 1, 20000000, &span) == BA_RING_TIMEOUT, "poll");
    CHECK(ba_monotonic_ns() - begin >= 20000000, "too early");
  }
  CHECK(ring_statistics(&r).consumer_parks >= 1, "it did not sleep");
  ring_free(&r);
}

/* --- signals through a ring in the order of the wire --- */

static void signals_survive_the_way_to_big_endian_through_a_ring_and_back(bool one) {
  ring r = ring_make(one, 128, UINT64_MAX - 50);
  producer p = ring_producer(&r);
  consumer c = ring_consumer(&r);
  uint64_t state = dice_seed(seed, 0), n;
  ba_signal signals[100], back[100];
  uint8_t wire[100 * sizeof(ba_signal)], got[100 * sizeof(ba_signal)];
  for (int i = 0; i < 100; i++) {
    signals[i] = (ba_signal){.kind = (uint16_t)dice(&state),
                             .flags = (uint16_t)dice(&state),
                             .aux = (uint32_t)dice(&state),
                             .key = dice(&state),
                             .time = dice(&state),
                             .value = dice(&state)};
  }
  signals[0] = (ba_signal){.kind = 0x0102,
                           .flags = 0x0304,
                           .aux = 0x05060708,
                           .key = UINT64_C(0x090a0b0c0d0e0f10),
                           .time = UINT64_C(0x1112131415161718),
                           .value = UINT64_C(0x191a1b1c1d1e1f20)};
  for (int lap = 0; lap < 5; lap++) {
    ba_signals_to_be(signals, wire, 100);
    for (uint8_t i = 0; i < 32; i++) CHECK(wire[i] == i + 1, "byte %u is %u", i, wire[i]);
    CHECK(try_push(&p, (const item *)(const void *)wire, 100, &n) == BA_RING_OK && n == 100, "push");
    CHECK(try_pop(&c, (item *)(void *)got, 100, &n) == BA_RING_OK && n == 100, "pop");
    ba_signals_from_be(got, back, 100);
    CHECK(memcmp(signals, back, sizeof(signals)) == 0, "other signals came back");
  }
  ring_free(&r);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : ba_monotonic_ns();
  printf("test_bitactor_fixes %llu\n", (unsigned long long)seed);
  fflush(stdout);
  /* Sequences wrap within the first laps; marks of the many-to-many ring, modulo 2^32, wrap at 2^31 laps. */
  const uint64_t starts[] = {
      0, UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 40, (UINT64_C(1) << 31) * 8 - 20, (UINT64_C(1) << 32) * 64 - 50};
  wrong_options_and_handles_are_refused();
  a_failed_allocation_is_a_result_and_leaks_nothing();
  for (int one = 0; one <= 1; one++) {
    a_wait_ends_when_its_time_is_over_and_not_before(one);
    signals_survive_the_way_to_big_endian_through_a_ring_and_back(one);
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
      a_ring_holds_exactly_its_capacity_lap_after_lap(one, starts[i]);
      what_is_not_published_is_not_seen(one, starts[i]);
      producers_do_not_overwrite_what_a_stopped_consumer_holds(one, starts[i]);
      if (!one && i % 2 == 0) consumers_do_not_pass_a_stopped_producer_and_all_goes_on_when_it_resumes(starts[i]);
    }
    closing_loses_nothing_that_was_taken(one, UINT64_MAX - 20);
  }
  for (uint64_t capacity = 1; capacity <= 256; capacity *= 16) {
    every_item_comes_once_whole_and_in_its_producers_order(true, capacity, 0, 1, 1);
    every_item_comes_once_whole_and_in_its_producers_order(true, capacity, UINT64_MAX - 700, 1, 1);
    every_item_comes_once_whole_and_in_its_producers_order(false, capacity, 0, 1, 1);
    every_item_comes_once_whole_and_in_its_producers_order(false, capacity, UINT64_MAX - 700, 4, 4);
    every_item_comes_once_whole_and_in_its_producers_order(false, capacity, (UINT64_C(1) << 31) * capacity - 700, 3, 1);
    every_item_comes_once_whole_and_in_its_producers_order(false, capacity, 0, 1, 3);
  }
  puts("test_bitactor_fixes: ok");
  return 0;
}
