/*
 * The ring with one producer thread and one consumer thread.
 *
 * Enter: one thread at a time through the ba_spsc_producer, one through the ba_spsc_consumer; ba_spsc_stop and
 * ba_spsc_statistics from any thread. A handle may move to another thread when the move itself orders the two (a join,
 * a lock); it may not be used by two at once.
 *
 *     claimed - capacity <= released <= polled <= published <= claimed      (differences, modulo 2^64)
 *
 * Correctness. `published` is written by the producer alone and `released` by the consumer alone. Both only grow. The
 * items below `published` were written before the store that the consumer's acquire load reads from, so their content
 * is visible to it; slots below released + capacity were read for the last time before the store that the producer's
 * acquire load reads from, so it may overwrite them. Each side keeps the last value it saw of the other's counter
 * (`room_until`, `items_until`): a stale one is smaller, so it only shows less room or fewer items than there are.
 * The stores double as the waker's half of the pair in wait.h; the loads on the waiting path are its waiter's half.
 *
 * Progress: every call but wait_ is wait-free.
 */
#ifndef BITACTOR_SPSC_H
#define BITACTOR_SPSC_H

#include <bitactor/ring.h>

/* What both sides reach. Free of pointers: in shared memory it means the same to two processes. */
typedef struct ba_spsc_control {
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) published; /* by the producer: items below it can be read */
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) released;  /* by the consumer: slots below it + capacity can be written */
  _Alignas(BA_RING_APART) ba_wait_point items;           /* the consumer waits here; the producer wakes */
  BA_ATOMIC(uint32_t) stopped;                           /* any thread, once: the producer is refused from now on */
  BA_ATOMIC(uint32_t) ended;                             /* by the producer, last of all: nothing will follow */
  _Alignas(BA_RING_APART) ba_wait_point space;           /* the producer waits here; the consumer wakes */
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) refused;   /* by the producer */
  BA_ATOMIC(uint64_t) dropped;                           /* by the producer */
  BA_ATOMIC(uint32_t) producer_open;                     /* 0 or 1 */
  BA_ATOMIC(uint32_t) consumer_open;                     /* 0 or 1 */
} ba_spsc_control;

/* Only the producer's thread touches it. */
typedef struct ba_spsc_producer {
  ba_spsc_control *control;
  uint8_t *slots;
  uint64_t mask;       /* capacity - 1 */
  uint64_t next;       /* sequence of the next item; equals published between calls */
  uint64_t room_until; /* released + capacity, as last seen; next <= room_until */
  uint64_t claimed;    /* next <= claimed <= room_until: may be written and published */
  uint32_t item_bytes;
} ba_spsc_producer;

/* Only the consumer's thread touches it. */
typedef struct ba_spsc_consumer {
  ba_spsc_control *control;
  const uint8_t *slots;
  uint64_t mask;
  uint64_t next;        /* sequence of the next item to release; equals released between calls */
  uint64_t items_until; /* published, as last seen; next <= items_until */
  uint64_t polled;      /* next <= polled <= items_until: may be read and released */
  uint32_t item_bytes;
} ba_spsc_consumer;

typedef struct ba_spsc_ring ba_spsc_ring;

/* Makes a ring. OK, BAD_OPTION or NO_MEMORY; *ring is null unless OK. */
ba_ring_result ba_spsc_create(const ba_ring_options *options, ba_spsc_ring **ring);

/* Frees it. No handle may be in use, or be used again. Null is allowed. */
void ba_spsc_destroy(ba_spsc_ring *ring);

/* Opens the producer / the consumer: OK or TAKEN. Any thread. What was taken stays taken. */
ba_ring_result ba_spsc_producer_open(ba_spsc_ring *ring, ba_spsc_producer *producer);
ba_ring_result ba_spsc_consumer_open(ba_spsc_ring *ring, ba_spsc_consumer *consumer);

/*
 * Asks the producer to stop: its next claim gives CLOSED, and then the consumer, once drained, sees CLOSED too. An item
 * being written while this is called is still delivered. Any thread, any number of times; wakes both sides.
 */
void ba_spsc_stop(ba_spsc_ring *ring);

/* By the producer's thread: nothing will follow. The consumer drains the rest and then sees CLOSED. */
void ba_spsc_producer_close(ba_spsc_producer *producer);

/* Counts of a moment; each is exact at some moment of the call. Any thread; does not wait. */
ba_ring_statistics ba_spsc_statistics(const ba_spsc_ring *ring);

/* The parts behind a ring, for shm_ring.c, which lays them out itself. */
void ba_spsc_control_init(ba_spsc_control *control, uint64_t start, bool shared, bool asymmetric);
ba_spsc_producer ba_spsc_producer_of(ba_spsc_control *control, uint8_t *slots, const ba_ring_options *options);
ba_spsc_consumer ba_spsc_consumer_of(ba_spsc_control *control, const uint8_t *slots, const ba_ring_options *options);
ba_ring_statistics ba_spsc_control_statistics(const ba_spsc_control *control, uint64_t capacity, uint64_t start);
void ba_spsc_control_stop(ba_spsc_control *control);

/* The producer's view of the other counter, again. OK, FULL (less than least), CLOSED or CORRUPT. */
static inline ba_ring_result ba_spsc_look_for_room(ba_spsc_producer *p, uint32_t least) {
  /* seq_cst: acquire, paired with the consumer's release of `released`: its reads of the slots are over; weaker could
   * overwrite an item that is being read. And the waiter's load of wait.h: weaker could sleep although there is room.
   */
  p->room_until = ba_load_seq_cst(&p->control->released) + p->mask + 1;
  if (p->room_until - p->next > p->mask + 1) return BA_RING_CORRUPT;
  return p->room_until - p->next >= least ? BA_RING_OK : BA_RING_FULL;
}

static inline ba_span ba_spsc_span(uint8_t *slots, uint64_t mask, uint64_t next, uint64_t n, uint32_t item_bytes) {
  const uint64_t index = next & mask;
  const uint64_t to_end = mask + 1 - index;
  return (ba_span){.first = slots + index * item_bytes,
                   .second = n > to_end ? slots : NULL,
                   .sequence = next,
                   .first_n = (uint32_t)(n > to_end ? to_end : n),
                   .n = (uint32_t)n};
}

/*
 * Claims between least and most slots, as many as there is room for; 1 <= least <= most. least == most: a whole batch
 * or nothing. Claims again from the first unpublished slot if the last claim was not published in full. Producer's
 * thread; does not wait. OK, FULL, CLOSED; BAD_OPTION if least is 0, above most or above the capacity.
 */
static inline ba_ring_result ba_spsc_try_claim(ba_spsc_producer *p, uint32_t least, uint32_t most, ba_span *span) {
  if (least == 0 || least > most || least > p->mask + 1) return BA_RING_BAD_OPTION;
  /* relaxed: nothing is read on the strength of it; the producer stops at its next claim, whenever it sees this */
  if (ba_load_relaxed(&p->control->stopped) != 0) {
    ba_spsc_producer_close(p);
    return BA_RING_CLOSED;
  }
  if (p->room_until - p->next < most) {
    const ba_ring_result result = ba_spsc_look_for_room(p, least);
    if (result != BA_RING_OK) return result;
  }
  const uint64_t room = p->room_until - p->next;
  const uint64_t n = room < most ? room : most;
  p->claimed = p->next + n;
  *span = ba_spsc_span(p->slots, p->mask, p->next, n, p->item_bytes);
  return BA_RING_OK;
}

/* The same, waiting up to timeout_ns for `least` slots: TIMEOUT instead of FULL. */
ba_ring_result ba_spsc_wait_claim(ba_spsc_producer *p, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                  ba_span *span);

/* The first n claimed slots, all written, become items. n <= what was claimed. Producer's thread; does not wait. */
static inline void ba_spsc_publish(ba_spsc_producer *p, uint32_t n) {
  p->next += n;
  /* release at least: pairs with the load in ba_spsc_look_for_items; the items are visible to who sees the counter.
   * Relaxed could show the counter before the items. */
  ba_store_and_wake(&p->control->published, p->next, &p->control->items);
}

/* Items that the consumer has not released, as last seen; at most that many are there. Producer's thread. */
static inline uint64_t ba_spsc_was_used(const ba_spsc_producer *p) { return p->mask + 1 - (p->room_until - p->next); }

/* OK, EMPTY (less than least), CLOSED or CORRUPT. */
static inline ba_ring_result ba_spsc_look_for_items(ba_spsc_consumer *c, uint32_t least) {
  /* acquire: pairs with the release of `ended`; then `published` below is the last one there will be. Relaxed could
   * report the end and miss the last items. */
  const bool ended = ba_load_acquire(&c->control->ended) != 0;
  /* seq_cst: acquire, paired with the store in ba_spsc_publish: the items are visible; weaker could read a stale slot.
   * And the waiter's load of wait.h: weaker could sleep although there are items. */
  c->items_until = ba_load_seq_cst(&c->control->published);
  const uint64_t items = c->items_until - c->next;
  if (items > c->mask + 1) return BA_RING_CORRUPT;
  if (items >= least) return BA_RING_OK;
  /* Who looks again and again has the next slot's line on its way together with the counter's: one transfer between
   * cores from publish to content, not two. */
  __builtin_prefetch(c->slots + (c->next & c->mask) * c->item_bytes);
  if (!ended) return BA_RING_EMPTY;
  return items == 0 ? BA_RING_CLOSED : BA_RING_OK; /* the end gives what is left, even if it is less than least */
}

/*
 * Polls between least and most items, as many as there are; 1 <= least <= most. After the producer's end the last poll
 * may give fewer than least. Polls again from the first unreleased item if the last poll was not released in full.
 * Consumer's thread; does not wait. OK, EMPTY, CLOSED; BAD_OPTION as for a claim.
 */
static inline ba_ring_result ba_spsc_try_poll(ba_spsc_consumer *c, uint32_t least, uint32_t most, ba_span *span) {
  if (least == 0 || least > most || least > c->mask + 1) return BA_RING_BAD_OPTION;
  if (c->items_until - c->next < most) {
    const ba_ring_result result = ba_spsc_look_for_items(c, least);
    if (result != BA_RING_OK) return result;
  }
  const uint64_t items = c->items_until - c->next;
  const uint64_t n = items < most ? items : most;
  c->polled = c->next + n;
  *span = ba_spsc_span((uint8_t *)(uintptr_t)c->slots, c->mask, c->next, n, c->item_bytes);
  return BA_RING_OK;
}

/* The same, waiting up to timeout_ns for `least` items: TIMEOUT instead of EMPTY. */
ba_ring_result ba_spsc_wait_poll(ba_spsc_consumer *c, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                 ba_span *span);

/* The first n polled items are handled; their slots may be written again. Consumer's thread; does not wait. */
static inline void ba_spsc_release(ba_spsc_consumer *c, uint32_t n) {
  c->next += n;
  /* release at least: pairs with the load in ba_spsc_look_for_room; the reads of the slots are over before they can be
   * written. Relaxed could let the producer overwrite an item that is still being read. */
  ba_store_and_wake(&c->control->released, c->next, &c->control->space);
}

/*
 * Copies items[0..n) in, as many as there is room for: *pushed of them, in order. OK if all, FULL if fewer (the rest is
 * counted as refused), CLOSED. Producer's thread; does not wait.
 */
ba_ring_result ba_spsc_try_push(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed);

/* The same, waiting for room up to timeout_ns in all, part by part: OK if all, TIMEOUT if fewer, CLOSED. */
ba_ring_result ba_spsc_wait_push(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t timeout_ns,
                                 uint64_t *pushed);

/* The same as try_push, but what finds no room is given up and counted as dropped: OK or CLOSED. */
ba_ring_result ba_spsc_push_or_drop(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed);

/* Copies out what is there, at least one and at most `most`: *popped. OK, EMPTY, CLOSED. Consumer's thread. */
ba_ring_result ba_spsc_try_pop(ba_spsc_consumer *c, void *items, uint64_t most, uint64_t *popped);

/* The same, waiting up to timeout_ns for the first item: TIMEOUT instead of EMPTY. */
ba_ring_result ba_spsc_wait_pop(ba_spsc_consumer *c, void *items, uint64_t most, uint64_t timeout_ns, uint64_t *popped);

#endif
