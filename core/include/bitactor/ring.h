/*
 * What every bounded ring of the core has in common: results, options, spans, statistics.
 *
 * A ring holds `capacity` items of `item_bytes` each, in order of their sequence, a free-running u64 (it wraps; only
 * differences have a meaning). A producer claims room, writes in place, publishes; a consumer polls, handles,
 * releases:
 *     0 <= claimed - published, 0 <= published - polled, 0 <= polled - released, claimed - released <= capacity
 * Full means wait or a clear refusal; a drop is a choice of the caller and is counted.
 *
 * Three shapes, by who may enter: spsc.h (one producer thread, one consumer thread), mpmc.h (many of either),
 * shm_ring.h (one of each, in two processes). Each has endpoint types: an item can only be written through a producer
 * and only be read through a consumer, and opening more endpoints than the shape allows is refused.
 */
#ifndef BITACTOR_RING_H
#define BITACTOR_RING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <bitactor/wait.h>

typedef enum ba_ring_result {
  BA_RING_OK = 0,
  BA_RING_FULL,       /* try_: no room, or less than asked for; nothing was claimed */
  BA_RING_EMPTY,      /* try_: nothing published, or less than asked for; nothing was polled */
  BA_RING_TIMEOUT,    /* wait_: the time is over; nothing was claimed or polled */
  BA_RING_CLOSED,     /* producer: the ring takes no more; consumer: it is drained and nothing will follow */
  BA_RING_TAKEN,      /* the ring's only producer or consumer is open already */
  BA_RING_BAD_OPTION, /* capacity, item size or a count is outside its range */
  BA_RING_NO_MEMORY,
  BA_RING_PEER_DEAD, /* shm: the process at the other end has died; consumer: after the last published item */
  BA_RING_CORRUPT,   /* shm: what the segment says cannot be true; do not go on with it */
  BA_RING_FOREIGN,   /* shm: not a segment of this program, or of another version or byte order */
  BA_RING_EXISTS,    /* shm: create: the name is in use */
  BA_RING_ABSENT,    /* shm: attach: no segment of that name, or not ready yet */
  BA_RING_SYSTEM     /* shm: the operating system refused; errno says why */
} ba_ring_result;

/* A short English sentence about a result. Any thread; never null; static. */
const char *ba_ring_result_text(ba_ring_result result);

enum {
  BA_RING_ITEM_BYTES_MAX = 65536,
  BA_RING_CAPACITY_LOG2_MAX = 30,
  BA_RING_APART = 128 /* bytes between what different threads write: x86 fetches cache lines in pairs */
};

typedef struct ba_ring_options {
  uint64_t capacity;   /* items: a power of two, 1..2^30 */
  uint32_t item_bytes; /* a multiple of 8, 8..BA_RING_ITEM_BYTES_MAX */
  uint32_t type_tag;   /* any number that says what an item is; a shared ring keeps it for who attaches */
  uint64_t start;      /* first sequence; 0 except in tests of the wrap-around */
} ba_ring_options;

static inline bool ba_ring_options_valid(const ba_ring_options *o) {
  return o->capacity >= 1 && o->capacity <= (UINT64_C(1) << BA_RING_CAPACITY_LOG2_MAX) &&
         (o->capacity & (o->capacity - 1)) == 0 && o->item_bytes >= 8 && o->item_bytes <= BA_RING_ITEM_BYTES_MAX &&
         o->item_bytes % 8 == 0;
}

/*
 * Slots that were claimed or polled: n items from `sequence` on, in order first[0..first_n), then second[0..n -
 * first_n), which begins at the ring's first slot. The memory is the caller's until it publishes or releases.
 */
typedef struct ba_span {
  uint8_t *first;
  uint8_t *second; /* null where first_n == n */
  uint64_t sequence;
  uint32_t first_n;
  uint32_t n;
} ba_span;

/*
 * A moment's counts. `queued` is the difference of the two counters, not a count of its own, so pushed - popped =
 * queued holds by construction and proves nothing: that items are neither lost nor doubled is shown by tests that look
 * at each item. `refused` and `dropped` are counted where it happens.
 */
typedef struct ba_ring_statistics {
  uint64_t capacity;
  uint64_t pushed;         /* claimed by producers (many) or published (one) since creation */
  uint64_t popped;         /* polled (many) or released (one) by consumers since creation */
  uint64_t queued;         /* published and not yet popped */
  uint64_t refused;        /* items a try_push could not take */
  uint64_t dropped;        /* items given up by ba_*_drop */
  uint64_t consumer_parks; /* times a consumer slept for want of items */
  uint64_t producer_parks; /* times a producer slept for want of room */
} ba_ring_statistics;

/* Copies n items of item_bytes between plain memory; the common size gets its own loop. */
static inline void ba_ring_copy(void *to, const void *from, uint64_t n, uint32_t item_bytes) {
  if (n == 1 && item_bytes == 32) {
    memcpy(to, from, 32);
  } else {
    memcpy(to, from, n * item_bytes);
  }
}

/* items[0..span->n) into the span / out of it. */
static inline void ba_span_write(const ba_span *span, const void *items, uint32_t item_bytes) {
  ba_ring_copy(span->first, items, span->first_n, item_bytes);
  if (span->first_n < span->n) {
    ba_ring_copy(span->second, (const uint8_t *)items + (uint64_t)span->first_n * item_bytes, span->n - span->first_n,
                 item_bytes);
  }
}

static inline void ba_span_read(const ba_span *span, void *items, uint32_t item_bytes) {
  ba_ring_copy(items, span->first, span->first_n, item_bytes);
  if (span->first_n < span->n) {
    ba_ring_copy((uint8_t *)items + (uint64_t)span->first_n * item_bytes, span->second, span->n - span->first_n,
                 item_bytes);
  }
}

#endif
