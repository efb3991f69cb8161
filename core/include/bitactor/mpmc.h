/*
 * The ring with many producer threads and many consumer threads.
 *
 * Enter: any number of threads, each through a producer or consumer handle of its own; ba_mpmc_close and
 * ba_mpmc_statistics from any thread. `producers` and `consumers` of the options bound how many handles may be open.
 *
 *     released <= polled <= published <= claimed <= released + capacity      (of any one slot's sequence, see below)
 *
 * Two shared counters, `claimed` and `polled`, each moved by compare-and-swap; and a mark for each slot, in an array
 * apart from the slots. The item with sequence s lives in slot s mod capacity in lap L = s / capacity, and the slot's
 * mark is, modulo 2^32:
 *     2 L      it may be written in lap L (released in lap L - 1, or never used)
 *     2 L + 1  it is published in lap L
 *     2 L + 2  it is released in lap L, which is the first of these for lap L + 1
 * A producer takes k slots in three steps: it reads `claimed` = h, finds the marks of h .. h + k - 1 writable
 * (the capacity check), and swaps h for h + k. It then writes in place and sets the marks to published. A consumer does
 * the same with `polled`, published marks, and released ones.
 *
 * Correctness. The counters are u64 and only grow, so a swap from h succeeds only if nobody claimed h before (they
 * would wrap after 2^64 items); marks that were read before the swap are then still what they were, because only the
 * owner of a slot changes its mark and the slot had no owner. That makes the claim exclusive. The acquire load of a
 * mark pairs with the release store by its last owner: what it wrote in the slot is visible, what it read there is
 * over. Within a lap and in a batch the marks of a batch are stored from the last slot to the first, so that who sees
 * the first one published sees the whole batch (ba_mpmc_publish says why this also makes waiting right).
 *
 * Progress: try_ calls are lock-free as a whole (a swap fails only because another succeeded), publish and release are
 * wait-free. But a thread that stops between claim and publish, or between poll and release, holds its slots: the
 * others go on until they come to them, at most one lap, and then see EMPTY or FULL, or wait, until it goes on. No ring
 * of this kind can pass it without giving up order or exactness.
 *
 * Closing is exact: ba_mpmc_close moves `claimed` out of every producer's reach in one atomic addition, so each claim
 * is either before it and will be delivered, or gets CLOSED.
 */
#ifndef BITACTOR_MPMC_H
#define BITACTOR_MPMC_H

#include <bitactor/ring.h>

enum { BA_MPMC_MANY = 0xffff }; /* most handles of a kind */

/* Offset that closing adds to `claimed`: no swap from an open value succeeds any more. */
#define BA_MPMC_SEAL (UINT64_C(1) << 63)

enum { BA_MPMC_BACK_OFF_MIN = 8, BA_MPMC_BACK_OFF_MAX = 64 };

enum { BA_MPMC_OPEN = 0, BA_MPMC_CLOSING = 1, BA_MPMC_SEALED = 2 };

typedef struct ba_mpmc_ring {
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) claimed; /* by producers: sequences below it are taken for writing */
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) polled;  /* by consumers: sequences below it are taken for reading */
  _Alignas(BA_RING_APART) ba_wait_point items;         /* consumers wait here; producers wake */
  _Alignas(BA_RING_APART) ba_wait_point space;         /* producers wait here; consumers wake */
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) refused; /* by producers */
  BA_ATOMIC(uint64_t) dropped;                         /* by producers */
  BA_ATOMIC(uint32_t) producers_open;
  BA_ATOMIC(uint32_t) consumers_open;
  _Alignas(BA_RING_APART) BA_ATOMIC(uint32_t) *marks; /* from here on: constant but for state and end */
  uint8_t *slots;
  uint64_t mask;             /* capacity - 1 */
  uint64_t start;            /* first sequence */
  BA_ATOMIC(uint64_t) end;   /* valid once sealed: sequence after the last item */
  BA_ATOMIC(uint32_t) state; /* BA_MPMC_OPEN, then CLOSING, then SEALED */
  uint32_t shift;            /* log2 of the capacity */
  uint32_t item_bytes;
  uint32_t producers_max, consumers_max;
} ba_mpmc_ring;

/* Only the thread that uses the handle touches it. */
typedef struct ba_mpmc_producer {
  ba_mpmc_ring *ring;
  uint64_t next;    /* first claimed and unpublished sequence */
  uint64_t claimed; /* next <= claimed */
} ba_mpmc_producer;

typedef struct ba_mpmc_consumer {
  ba_mpmc_ring *ring;
  uint64_t next;   /* first polled and unreleased sequence */
  uint64_t polled; /* next <= polled */
} ba_mpmc_consumer;

/*
 * Makes a ring for at most `producers` and `consumers` handles, 1..BA_MPMC_MANY each. OK, BAD_OPTION or NO_MEMORY;
 * *ring is null unless OK.
 */
ba_ring_result ba_mpmc_create(const ba_ring_options *options, uint32_t producers, uint32_t consumers,
                              ba_mpmc_ring **ring);

/* Frees it. No handle may be in use, or be used again. Null is allowed. */
void ba_mpmc_destroy(ba_mpmc_ring *ring);

/* Opens one more handle: OK or TAKEN. Any thread. */
ba_ring_result ba_mpmc_producer_open(ba_mpmc_ring *ring, ba_mpmc_producer *producer);
ba_ring_result ba_mpmc_consumer_open(ba_mpmc_ring *ring, ba_mpmc_consumer *consumer);

/* Gives a handle back; everything claimed was published, everything polled was released. */
void ba_mpmc_producer_leave(ba_mpmc_producer *producer);
void ba_mpmc_consumer_leave(ba_mpmc_consumer *consumer);

/* Producers are refused from now on; consumers drain the rest, then see CLOSED. Any thread, any number of times. */
void ba_mpmc_close(ba_mpmc_ring *ring);

/* Counts of a moment. Any thread; does not wait. */
ba_ring_statistics ba_mpmc_statistics(const ba_mpmc_ring *ring);

/* Mark of sequence s while its slot may be written. */
static inline uint32_t ba_mpmc_writable(const ba_mpmc_ring *r, uint64_t s) { return (uint32_t)(s >> r->shift) << 1; }

static inline ba_span ba_mpmc_span(const ba_mpmc_ring *r, uint64_t s, uint64_t n) {
  const uint64_t index = s & r->mask;
  const uint64_t to_end = r->mask + 1 - index;
  return (ba_span){.first = r->slots + index * r->item_bytes,
                   .second = n > to_end ? r->slots : NULL,
                   .sequence = s,
                   .first_n = (uint32_t)(n > to_end ? to_end : n),
                   .n = (uint32_t)n};
}

/* How many of the sequences from s on, at most `most`, have mark `writable + offset` in their lap. */
static inline uint32_t ba_mpmc_scan(const ba_mpmc_ring *r, uint64_t s, uint32_t most, uint32_t offset) {
  const uint64_t index = s & r->mask;
  const uint64_t to_end = r->mask + 1 - index;
  const uint32_t first_n = most > to_end ? (uint32_t)to_end : most;
  const uint32_t expected = ba_mpmc_writable(r, s) + offset;
  uint32_t n = 0;
  /*
   * seq_cst: acquire, paired with the release of the mark by the slot's last owner: what it wrote is visible, what it
   * read is over; relaxed could read a stale item or overwrite one that is being read. And the waiter's load of wait.h,
   * paired with the store in ba_mpmc_set; acquire alone could be served before the announcement.
   */
  while (n < first_n && ba_load_seq_cst(&r->marks[index + n]) == expected) n++;
  if (n < first_n || n == most) return n;
  while (n < most && ba_load_seq_cst(&r->marks[n - first_n]) == expected + 2) n++;
  return n;
}

/*
 * Sets the marks of n sequences from s on to `writable + offset`, last first, and wakes.
 *
 * The first slot's mark is stored last and is the waker's store of wait.h; the others before it with release (for
 * their content relaxed would do: who reads them has seen the first, or what a thread that saw it passed on by its
 * swap). A waiter whose scan fails at slot f has read an older mark there. If f is not the first of its batch here,
 * then the slot before it was either scanned as set, in this scan or in the one whose swap moved the counter past it,
 * and with it everything stored before it, f included: contradiction. So f is the first slot of its batch, and the pair
 * of wait.h holds for its mark.
 */
static inline void ba_mpmc_set(ba_mpmc_ring *r, uint64_t s, uint32_t n, uint32_t offset, ba_wait_point *point) {
  const uint64_t index = s & r->mask;
  const uint64_t to_end = r->mask + 1 - index;
  const uint32_t first_n = n > to_end ? (uint32_t)to_end : n;
  const uint32_t mark = ba_mpmc_writable(r, s) + offset;
  for (uint32_t i = n; i > first_n; i--) ba_store_release(&r->marks[i - 1 - first_n], mark + 2);
  for (uint32_t i = first_n; i > 1; i--) ba_store_release(&r->marks[index + i - 1], mark);
  ba_store_mark_and_wake(&r->marks[index], mark, point);
}

/*
 * After a lost swap: lets the winner's core keep the counter's line for some items, where both would otherwise move it
 * for each item. Doubles from BA_MPMC_BACK_OFF_MIN to BA_MPMC_BACK_OFF_MAX pauses, some 0.3 to 3 us. Returns the
 * counter anew.
 */
static inline uint64_t ba_mpmc_back_off(BA_ATOMIC(uint64_t) *counter, uint32_t *pauses) {
  for (uint32_t i = 0; i < *pauses; i++) ba_pause();
  if (*pauses < BA_MPMC_BACK_OFF_MAX) *pauses *= 2;
  return ba_load_acquire(counter); /* acquire: as at the first load of the counter in a claim */
}

/*
 * Claims between least and most slots, as many as there is contiguous room for; 1 <= least <= most <= capacity or
 * least <= capacity. What is claimed must be written and published, soon: see the head of the file. The handle must
 * have nothing claimed. Does not wait. OK, FULL, CLOSED or BAD_OPTION.
 */
static inline ba_ring_result ba_mpmc_try_claim(ba_mpmc_producer *p, uint32_t least, uint32_t most, ba_span *span) {
  ba_mpmc_ring *r = p->ring;
  if (least == 0 || least > most || least > r->mask + 1) return BA_RING_BAD_OPTION;
  if (most > r->mask + 1) most = (uint32_t)(r->mask + 1);
  /* acquire: pairs with the swaps of other producers (and of closing, for `state`): a slot that they scanned as
   * writable is seen as writable here too, see ba_mpmc_set. Relaxed would break that chain. */
  uint64_t head = ba_load_acquire(&r->claimed);
  uint32_t pauses = BA_MPMC_BACK_OFF_MIN;
  for (;;) {
    /* relaxed: if `head` is the sealed value, its acquire load made the store of the state visible */
    if (ba_load_relaxed(&r->state) != BA_MPMC_OPEN) return BA_RING_CLOSED;
    const uint32_t n = ba_mpmc_scan(r, head, most, 0);
    if (n < least) {
      const uint64_t again = ba_load_acquire(&r->claimed); /* acquire: as above */
      if (again == head) return BA_RING_FULL;
      head = again; /* the marks belonged to a claim that others made meanwhile */
      continue;
    }
    /* acq_rel: release passes on what this thread scanned, acquire takes on what others did: the chain above */
    if (ba_cas_weak_acq_rel(&r->claimed, &head, head + n)) {
      p->next = head;
      p->claimed = head + n;
      *span = ba_mpmc_span(r, head, n);
      return BA_RING_OK;
    }
    head = ba_mpmc_back_off(&r->claimed, &pauses);
  }
}

/* The same, waiting up to timeout_ns for `least` slots: TIMEOUT instead of FULL. */
ba_ring_result ba_mpmc_wait_claim(ba_mpmc_producer *p, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                  ba_span *span);

/* The claimed slots, all of them written, become items. Does not wait. */
static inline void ba_mpmc_publish(ba_mpmc_producer *p) {
  ba_mpmc_set(p->ring, p->next, (uint32_t)(p->claimed - p->next), 1, &p->ring->items);
  p->next = p->claimed;
}

/* EMPTY or CLOSED, for a poll that found nothing at `tail`. */
ba_ring_result ba_mpmc_nothing_at(ba_mpmc_ring *r, uint64_t tail, uint32_t *least);

/*
 * Polls between least and most published items, contiguous ones; bounds as for a claim. When the ring is closed the
 * last poll may give fewer than least. The handle must have nothing polled. Does not wait. OK, EMPTY, CLOSED,
 * BAD_OPTION.
 */
static inline ba_ring_result ba_mpmc_try_poll(ba_mpmc_consumer *c, uint32_t least, uint32_t most, ba_span *span) {
  ba_mpmc_ring *r = c->ring;
  if (least == 0 || least > most || least > r->mask + 1) return BA_RING_BAD_OPTION;
  if (most > r->mask + 1) most = (uint32_t)(r->mask + 1);
  uint64_t tail = ba_load_acquire(&r->polled); /* acquire: as in ba_mpmc_try_claim */
  uint32_t pauses = BA_MPMC_BACK_OFF_MIN;
  for (;;) {
    const uint32_t n = ba_mpmc_scan(r, tail, most, 1);
    if (n < least) {
      const uint64_t again = ba_load_acquire(&r->polled); /* acquire: as above */
      if (again == tail) {
        const ba_ring_result result = ba_mpmc_nothing_at(r, tail, &least);
        if (result != BA_RING_OK) return result;
      }
      tail = again;
      continue;
    }
    if (ba_cas_weak_acq_rel(&r->polled, &tail, tail + n)) { /* acq_rel: as in ba_mpmc_try_claim */
      c->next = tail;
      c->polled = tail + n;
      *span = ba_mpmc_span(r, tail, n);
      return BA_RING_OK;
    }
    tail = ba_mpmc_back_off(&r->polled, &pauses);
  }
}

/* The same, waiting up to timeout_ns for `least` items: TIMEOUT instead of EMPTY. */
ba_ring_result ba_mpmc_wait_poll(ba_mpmc_consumer *c, uint32_t least, uint32_t most, uint64_t timeout_ns,
                                 ba_span *span);

/* The polled items are handled; their slots may be written again. Does not wait. */
static inline void ba_mpmc_release(ba_mpmc_consumer *c) {
  ba_mpmc_set(c->ring, c->next, (uint32_t)(c->polled - c->next), 2, &c->ring->space);
  c->next = c->polled;
}

/* Copying calls, results as in spsc.h. A push may be cut into several batches; each batch is contiguous. */
ba_ring_result ba_mpmc_try_push(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed);
ba_ring_result ba_mpmc_wait_push(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t timeout_ns,
                                 uint64_t *pushed);
ba_ring_result ba_mpmc_push_or_drop(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed);
ba_ring_result ba_mpmc_try_pop(ba_mpmc_consumer *c, void *items, uint64_t most, uint64_t *popped);
ba_ring_result ba_mpmc_wait_pop(ba_mpmc_consumer *c, void *items, uint64_t most, uint64_t timeout_ns, uint64_t *popped);

#endif
