/* The many-to-many ring: making it, closing it, waiting at it, copying through it. mpmc.h has the argument. */
#include <bitactor/mpmc.h>

#include <bitactor/alloc.h>

ba_ring_result ba_mpmc_create(const ba_ring_options *options, uint32_t producers, uint32_t consumers,
                              ba_mpmc_ring **ring) {
  *ring = NULL;
  if (!ba_ring_options_valid(options) || producers < 1 || producers > BA_MPMC_MANY || consumers < 1 ||
      consumers > BA_MPMC_MANY) {
    return BA_RING_BAD_OPTION;
  }
  ba_mpmc_ring *r = ba_alloc_aligned(sizeof(*r), BA_RING_APART);
  if (r == NULL) return BA_RING_NO_MEMORY;
  r->slots = ba_alloc_aligned(options->capacity * options->item_bytes, BA_RING_APART);
  r->marks = ba_alloc_aligned(options->capacity * sizeof(*r->marks), BA_RING_APART);
  if (r->slots == NULL || r->marks == NULL) {
    ba_mpmc_destroy(r);
    return BA_RING_NO_MEMORY;
  }
  r->mask = options->capacity - 1;
  r->shift = (uint32_t)__builtin_ctzll(options->capacity);
  r->item_bytes = options->item_bytes;
  r->start = options->start;
  r->producers_max = producers;
  r->consumers_max = consumers;
  /* relaxed, all of them: nobody else knows the ring yet */
  for (uint64_t i = 0; i < options->capacity; i++) {
    const uint64_t s = options->start + i;
    ba_store_relaxed(&r->marks[s & r->mask], ba_mpmc_writable(r, s));
  }
  ba_store_relaxed(&r->claimed, options->start);
  ba_store_relaxed(&r->polled, options->start);
  ba_wait_point_init(&r->items, false, true);
  ba_wait_point_init(&r->space, false, true);
  *ring = r;
  return BA_RING_OK;
}

void ba_mpmc_destroy(ba_mpmc_ring *ring) {
  if (ring == NULL) return;
  ba_free(ring->slots);
  ba_free(ring->marks);
  ba_free(ring);
}

/* One more handle of a kind, if there are fewer than most. relaxed: the count orders nothing. */
static bool take(BA_ATOMIC(uint32_t) *open, uint32_t most) {
  uint32_t n = ba_load_relaxed(open);
  do {
    if (n >= most) return false;
  } while (!ba_cas_weak_relaxed(open, &n, n + 1));
  return true;
}

ba_ring_result ba_mpmc_producer_open(ba_mpmc_ring *ring, ba_mpmc_producer *producer) {
  if (!take(&ring->producers_open, ring->producers_max)) return BA_RING_TAKEN;
  *producer = (ba_mpmc_producer){.ring = ring};
  return BA_RING_OK;
}

ba_ring_result ba_mpmc_consumer_open(ba_mpmc_ring *ring, ba_mpmc_consumer *consumer) {
  if (!take(&ring->consumers_open, ring->consumers_max)) return BA_RING_TAKEN;
  *consumer = (ba_mpmc_consumer){.ring = ring};
  return BA_RING_OK;
}

void ba_mpmc_producer_leave(ba_mpmc_producer *producer) {
  ba_fetch_add_relaxed(&producer->ring->producers_open, (uint32_t)-1); /* relaxed: the count orders nothing */
  producer->ring = NULL;
}

void ba_mpmc_consumer_leave(ba_mpmc_consumer *consumer) {
  ba_fetch_add_relaxed(&consumer->ring->consumers_open, (uint32_t)-1); /* relaxed: the count orders nothing */
  consumer->ring = NULL;
}

void ba_mpmc_close(ba_mpmc_ring *r) {
  uint32_t open = BA_MPMC_OPEN;
  if (!ba_cas_strong_acq_rel(&r->state, &open, BA_MPMC_CLOSING)) return;
  /* acq_rel: release shows the state to whom loads the sealed value; acquire as in ba_mpmc_try_claim */
  const uint64_t head = ba_fetch_add_acq_rel(&r->claimed, BA_MPMC_SEAL);
  ba_store_relaxed(&r->end, head);             /* relaxed: published by the store below */
  ba_store_seq_cst(&r->state, BA_MPMC_SEALED); /* release: pairs with the acquire in nothing_at; seq_cst: wait.h */
  ba_wake_all(&r->items);
  ba_wake_all(&r->space);
}

ba_ring_result ba_mpmc_nothing_at(ba_mpmc_ring *r, uint64_t tail, uint32_t *least) {
  /* acquire: pairs with the store in ba_mpmc_close; `end` is then final. Relaxed could compare with an older end. */
  if (ba_load_acquire(&r->state) != BA_MPMC_SEALED) return BA_RING_EMPTY;
  const uint64_t left = ba_load_relaxed(&r->end) - tail; /* relaxed: ordered by the load above */
  if (left == 0) return BA_RING_CLOSED;
  if (left >= *least) return BA_RING_EMPTY; /* claimed before the close, not published yet */
  *least = (uint32_t)left;                  /* the last items: fewer than asked for is all there will be */
  return BA_RING_OK;
}

ba_ring_statistics ba_mpmc_statistics(const ba_mpmc_ring *ring) {
  ba_mpmc_ring *r = (ba_mpmc_ring *)(uintptr_t)ring; /* atomic loads take no pointers to const */
  /* acquire, `polled` first: `claimed` is then at least as late, so queued is never negative */
  const uint64_t polled = ba_load_acquire(&r->polled);
  uint64_t claimed = ba_load_acquire(&r->claimed);
  if (ba_load_acquire(&r->state) != BA_MPMC_OPEN && claimed - polled >= BA_MPMC_SEAL) claimed -= BA_MPMC_SEAL;
  const uint64_t queued = claimed - polled;
  return (ba_ring_statistics){
      .capacity = r->mask + 1,
      .pushed = claimed - r->start,
      .popped = polled - r->start,
      .queued = queued <= r->mask + 1 ? queued : r->mask + 1, /* consumers may have gone on between the two loads */
      /* relaxed, the rest: figures that order nothing */
      .refused = ba_load_relaxed(&r->refused),
      .dropped = ba_load_relaxed(&r->dropped),
      .consumer_parks = ba_load_relaxed(&r->items.parks),
      .producer_parks = ba_load_relaxed(&r->space.parks),
  };
}

/* After a wait that had parked: one thread is woken at a time, so pass it on if there is more (wait.h). */
static void pass_on_room(ba_mpmc_producer *p, const ba_waiter *w) {
  if (ba_waiter_was_parked(w) && ba_mpmc_scan(p->ring, p->claimed, 1, 0) != 0) ba_wake(&p->ring->space);
}

static void pass_on_items(ba_mpmc_consumer *c, const ba_waiter *w) {
  if (ba_waiter_was_parked(w) && ba_mpmc_scan(c->ring, c->polled, 1, 1) != 0) ba_wake(&c->ring->items);
}

ba_ring_result ba_mpmc_wait_claim(ba_mpmc_producer *p, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                  ba_span *span) {
  ba_ring_result result = ba_mpmc_try_claim(p, least, most, span);
  if (result != BA_RING_FULL) return result;
  ba_waiter w =
      least > 1 ? ba_waiter_begin_picky(&p->ring->space, timeout_ns) : ba_waiter_begin(&p->ring->space, timeout_ns);
  while (result == BA_RING_FULL && ba_waiter_step(&w)) result = ba_mpmc_try_claim(p, least, most, span);
  ba_waiter_end(&w);
  if (result == BA_RING_OK) pass_on_room(p, &w);
  return result == BA_RING_FULL ? BA_RING_TIMEOUT : result;
}

ba_ring_result ba_mpmc_wait_poll(ba_mpmc_consumer *c, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                 ba_span *span) {
  ba_ring_result result = ba_mpmc_try_poll(c, least, most, span);
  if (result != BA_RING_EMPTY) return result;
  ba_waiter w =
      least > 1 ? ba_waiter_begin_picky(&c->ring->items, timeout_ns) : ba_waiter_begin(&c->ring->items, timeout_ns);
  while (result == BA_RING_EMPTY && ba_waiter_step(&w)) result = ba_mpmc_try_poll(c, least, most, span);
  ba_waiter_end(&w);
  if (result == BA_RING_OK) pass_on_items(c, &w);
  return result == BA_RING_EMPTY ? BA_RING_TIMEOUT : result;
}

static uint32_t batch(uint64_t n) { return n < UINT32_C(1) << 30 ? (uint32_t)n : UINT32_C(1) << 30; }

static ba_ring_result push_now(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed) {
  *pushed = 0;
  while (*pushed < n) {
    ba_span span;
    const ba_ring_result result = ba_mpmc_try_claim(p, 1, batch(n - *pushed), &span);
    if (result != BA_RING_OK) return result;
    ba_span_write(&span, (const uint8_t *)items + *pushed * p->ring->item_bytes, p->ring->item_bytes);
    ba_mpmc_publish(p);
    *pushed += span.n;
  }
  return BA_RING_OK;
}

ba_ring_result ba_mpmc_try_push(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed) {
  const ba_ring_result result = push_now(p, items, n, pushed);
  if (result == BA_RING_FULL) ba_fetch_add_relaxed(&p->ring->refused, n - *pushed); /* relaxed: orders nothing */
  return result;
}

ba_ring_result ba_mpmc_push_or_drop(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed) {
  const ba_ring_result result = push_now(p, items, n, pushed);
  if (result != BA_RING_FULL) return result;
  ba_fetch_add_relaxed(&p->ring->dropped, n - *pushed); /* relaxed: orders nothing */
  return BA_RING_OK;
}

ba_ring_result ba_mpmc_wait_push(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t timeout_ns,
                                 uint64_t *pushed) {
  uint64_t part = 0;
  ba_ring_result result = push_now(p, items, n, pushed);
  if (result != BA_RING_FULL) return result;
  ba_waiter w = ba_waiter_begin(&p->ring->space, timeout_ns);
  while (result == BA_RING_FULL && ba_waiter_step(&w)) {
    result = push_now(p, (const uint8_t *)items + *pushed * p->ring->item_bytes, n - *pushed, &part);
    *pushed += part;
    if (part > 0 && result == BA_RING_FULL) ba_waiter_progress(&w);
  }
  ba_waiter_end(&w);
  if (result == BA_RING_OK) pass_on_room(p, &w);
  return result == BA_RING_FULL ? BA_RING_TIMEOUT : result;
}

ba_ring_result ba_mpmc_try_pop(ba_mpmc_consumer *c, void *items, uint64_t most, uint64_t *popped) {
  ba_span span;
  *popped = 0;
  const ba_ring_result result = ba_mpmc_try_poll(c, 1, batch(most), &span);
  if (result != BA_RING_OK) return result;
  ba_span_read(&span, items, c->ring->item_bytes);
  ba_mpmc_release(c);
  *popped = span.n;
  return BA_RING_OK;
}

ba_ring_result ba_mpmc_wait_pop(ba_mpmc_consumer *c, void *items, uint64_t most, uint64_t timeout_ns,
                                uint64_t *popped) {
  ba_span span;
  *popped = 0;
  const ba_ring_result result = ba_mpmc_wait_poll(c, 1, batch(most), timeout_ns, &span);
  if (result != BA_RING_OK) return result;
  ba_span_read(&span, items, c->ring->item_bytes);
  ba_mpmc_release(c);
  *popped = span.n;
  return BA_RING_OK;
}
