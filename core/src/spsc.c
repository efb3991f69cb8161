/* The one-to-one ring: making it, waiting at it, copying through it. spsc.h has the threads and the argument. */
#include <bitactor/spsc.h>

#include <bitactor/alloc.h>

struct ba_spsc_ring {
  ba_spsc_control control;
  ba_ring_options options;
  uint8_t *slots;
};

void ba_spsc_control_init(ba_spsc_control *control, uint64_t start, bool shared, bool asymmetric) {
  /* relaxed, all of them: nobody else knows the ring yet */
  ba_store_relaxed(&control->published, start);
  ba_store_relaxed(&control->released, start);
  ba_store_relaxed(&control->stopped, 0);
  ba_store_relaxed(&control->ended, 0);
  ba_store_relaxed(&control->refused, 0);
  ba_store_relaxed(&control->dropped, 0);
  ba_store_relaxed(&control->producer_open, 0);
  ba_store_relaxed(&control->consumer_open, 0);
  ba_wait_point_init(&control->items, shared, asymmetric);
  ba_wait_point_init(&control->space, shared, asymmetric);
}

ba_ring_result ba_spsc_create(const ba_ring_options *options, ba_spsc_ring **ring) {
  *ring = NULL;
  if (!ba_ring_options_valid(options)) return BA_RING_BAD_OPTION;
  ba_spsc_ring *made = ba_alloc_aligned(sizeof(*made), BA_RING_APART);
  if (made == NULL) return BA_RING_NO_MEMORY;
  made->slots = ba_alloc_aligned(options->capacity * options->item_bytes, BA_RING_APART);
  if (made->slots == NULL) {
    ba_free(made);
    return BA_RING_NO_MEMORY;
  }
  made->options = *options;
  ba_spsc_control_init(&made->control, options->start, false, true);
  *ring = made;
  return BA_RING_OK;
}

void ba_spsc_destroy(ba_spsc_ring *ring) {
  if (ring == NULL) return;
  ba_free(ring->slots);
  ba_free(ring);
}

ba_spsc_producer ba_spsc_producer_of(ba_spsc_control *control, uint8_t *slots, const ba_ring_options *options) {
  /* acquire: an earlier producer's items precede what this one publishes */
  const uint64_t published = ba_load_acquire(&control->published);
  return (ba_spsc_producer){.control = control,
                            .slots = slots,
                            .mask = options->capacity - 1,
                            .next = published,
                            .room_until = published, /* none seen yet */
                            .claimed = published,
                            .item_bytes = options->item_bytes};
}

ba_spsc_consumer ba_spsc_consumer_of(ba_spsc_control *control, const uint8_t *slots, const ba_ring_options *options) {
  const uint64_t released = ba_load_acquire(&control->released); /* acquire: as above, for an earlier consumer */
  return (ba_spsc_consumer){.control = control,
                            .slots = slots,
                            .mask = options->capacity - 1,
                            .next = released,
                            .items_until = released,
                            .polled = released,
                            .item_bytes = options->item_bytes};
}

ba_ring_result ba_spsc_producer_open(ba_spsc_ring *ring, ba_spsc_producer *producer) {
  if (ba_exchange_acq_rel(&ring->control.producer_open, 1) != 0) return BA_RING_TAKEN;
  *producer = ba_spsc_producer_of(&ring->control, ring->slots, &ring->options);
  return BA_RING_OK;
}

ba_ring_result ba_spsc_consumer_open(ba_spsc_ring *ring, ba_spsc_consumer *consumer) {
  if (ba_exchange_acq_rel(&ring->control.consumer_open, 1) != 0) return BA_RING_TAKEN;
  *consumer = ba_spsc_consumer_of(&ring->control, ring->slots, &ring->options);
  return BA_RING_OK;
}

void ba_spsc_control_stop(ba_spsc_control *control) {
  /* release would do: the read-modify-write of ba_wake_all either precedes a waiter's announcement, which then reads
   * from it and sees this store, or follows it and keeps the waiter awake. seq_cst for one kind of argument only. */
  ba_store_seq_cst(&control->stopped, 1);
  ba_wake_all(&control->space);
}

void ba_spsc_stop(ba_spsc_ring *ring) { ba_spsc_control_stop(&ring->control); }

void ba_spsc_producer_close(ba_spsc_producer *producer) {
  /* release: pairs with the acquire in ba_spsc_look_for_items; what was published is seen no later than the end. And
   * seq_cst: the condition of wait.h for a consumer that waits for items. */
  ba_store_seq_cst(&producer->control->ended, 1);
  ba_store_seq_cst(&producer->control->stopped, 1);
  ba_wake_all(&producer->control->items);
}

ba_ring_statistics ba_spsc_control_statistics(const ba_spsc_control *control, uint64_t capacity, uint64_t start) {
  ba_spsc_control *c = (ba_spsc_control *)(uintptr_t)control; /* atomic loads take no pointers to const */
  /* acquire, in this order: `published` is then at least as late as `released`, so queued is never negative */
  const uint64_t released = ba_load_acquire(&c->released);
  const uint64_t published = ba_load_acquire(&c->published);
  const uint64_t queued = published - released;
  return (ba_ring_statistics){
      .capacity = capacity,
      .pushed = published - start,
      .popped = released - start,
      .queued = queued < capacity ? queued : capacity, /* the consumer may have gone on between the two loads */
      /* relaxed, the rest: figures that order nothing */
      .refused = ba_load_relaxed(&c->refused),
      .dropped = ba_load_relaxed(&c->dropped),
      .consumer_parks = ba_load_relaxed(&c->items.parks),
      .producer_parks = ba_load_relaxed(&c->space.parks),
  };
}

ba_ring_statistics ba_spsc_statistics(const ba_spsc_ring *ring) {
  return ba_spsc_control_statistics(&ring->control, ring->options.capacity, ring->options.start);
}

ba_ring_result ba_spsc_wait_claim(ba_spsc_producer *p, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                  ba_span *span) {
  ba_ring_result result = ba_spsc_try_claim(p, least, most, span);
  if (result != BA_RING_FULL) return result;
  ba_waiter w = ba_waiter_begin(&p->control->space, timeout_ns);
  while (result == BA_RING_FULL && ba_waiter_step(&w)) result = ba_spsc_try_claim(p, least, most, span);
  ba_waiter_end(&w);
  return result == BA_RING_FULL ? BA_RING_TIMEOUT : result;
}

ba_ring_result ba_spsc_wait_poll(ba_spsc_consumer *c, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                 ba_span *span) {
  ba_ring_result result = ba_spsc_try_poll(c, least, most, span);
  if (result != BA_RING_EMPTY) return result;
  ba_waiter w = ba_waiter_begin(&c->control->items, timeout_ns);
  while (result == BA_RING_EMPTY && ba_waiter_step(&w)) result = ba_spsc_try_poll(c, least, most, span);
  ba_waiter_end(&w);
  return result == BA_RING_EMPTY ? BA_RING_TIMEOUT : result;
}

static uint32_t batch(uint64_t n) { return n < UINT32_C(1) << 30 ? (uint32_t)n : UINT32_C(1) << 30; }

/* Pushes what there is room for now. */
static ba_ring_result push_now(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed) {
  *pushed = 0;
  while (*pushed < n) {
    ba_span span;
    const ba_ring_result result = ba_spsc_try_claim(p, 1, batch(n - *pushed), &span);
    if (result != BA_RING_OK) return result;
    ba_span_write(&span, (const uint8_t *)items + *pushed * p->item_bytes, p->item_bytes);
    ba_spsc_publish(p, span.n);
    *pushed += span.n;
  }
  return BA_RING_OK;
}

/* Only the producer writes these counters, so a load and a store make no update disappear. */
static void count(BA_ATOMIC(uint64_t) *counter, uint64_t n) {
  ba_store_relaxed(counter, ba_load_relaxed(counter) + n); /* relaxed: a figure that orders nothing */
}

ba_ring_result ba_spsc_try_push(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed) {
  const ba_ring_result result = push_now(p, items, n, pushed);
  if (result == BA_RING_FULL) count(&p->control->refused, n - *pushed);
  return result;
}

ba_ring_result ba_spsc_push_or_drop(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed) {
  const ba_ring_result result = push_now(p, items, n, pushed);
  if (result != BA_RING_FULL) return result;
  count(&p->control->dropped, n - *pushed);
  return BA_RING_OK;
}

ba_ring_result ba_spsc_wait_push(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t timeout_ns,
                                 uint64_t *pushed) {
  uint64_t part = 0;
  ba_ring_result result = push_now(p, items, n, pushed);
  if (result != BA_RING_FULL) return result;
  ba_waiter w = ba_waiter_begin(&p->control->space, timeout_ns);
  while (result == BA_RING_FULL && ba_waiter_step(&w)) {
    result = push_now(p, (const uint8_t *)items + *pushed * p->item_bytes, n - *pushed, &part);
    *pushed += part;
    if (part > 0) ba_waiter_progress(&w);
  }
  ba_waiter_end(&w);
  return result == BA_RING_FULL ? BA_RING_TIMEOUT : result;
}

ba_ring_result ba_spsc_try_pop(ba_spsc_consumer *c, void *items, uint64_t most, uint64_t *popped) {
  ba_span span;
  *popped = 0;
  const ba_ring_result result = ba_spsc_try_poll(c, 1, batch(most), &span);
  if (result != BA_RING_OK) return result;
  ba_span_read(&span, items, c->item_bytes);
  ba_spsc_release(c, span.n);
  *popped = span.n;
  return BA_RING_OK;
}

ba_ring_result ba_spsc_wait_pop(ba_spsc_consumer *c, void *items, uint64_t most, uint64_t timeout_ns,
                                uint64_t *popped) {
  ba_span span;
  *popped = 0;
  const ba_ring_result result = ba_spsc_wait_poll(c, 1, batch(most), timeout_ns, &span);
  if (result != BA_RING_OK) return result;
  ba_span_read(&span, items, c->item_bytes);
  ba_spsc_release(c, span.n);
  *popped = span.n;
  return BA_RING_OK;
}
