/*
 * The step ring: many senders, and every shard reads every step.
 *
 * A sender claims room and the step's place in the one order under `lock` (a step's position and its claim are the
 * same number), writes outside it, and publishes block by block: the mark of a block's first slot tells readers that
 * the block is there, how long it is, and whether it ends its step. Each reader owns one head. Slots are reused once
 * every head has passed them.
 *
 * Invariants: head[r] <= tail; tail - min(head) <= capacity; a block is read only after its mark carries its lap.
 * A sender stopped between claim and publish stops the readers at its block, and nothing is lost.
 */
#ifndef BITACTOR_STEP_RING_H
#define BITACTOR_STEP_RING_H

#include <bitactor/atomic.h>
#include <bitactor/engine.h>
#include <bitactor/wait.h>
#include <pthread.h>

enum { BA_BLOCK_SIGNALS = 1024 };

typedef struct ba_ring_head {
  BA_ALIGNED_LINE BA_ATOMIC(uint64_t) position; /* written by its reader alone */
} ba_ring_head;

typedef struct ba_step_ring {
  unsigned bits;
  uint64_t mask;
  uint32_t readers;
  bool needs_wall;
  ba_signal *signals;
  uint8_t *parts;  /* partition of each slot's signal, written by the sender */
  uint64_t *walls; /* wall time of the block that begins at the slot */
  BA_ATOMIC(uint64_t) *marks;
  ba_ring_head *heads;
  ba_wait_point news; /* readers wait here for marks */
  ba_wait_point room; /* senders and flushers wait here for heads */
  BA_ATOMIC(uint64_t) manual_wall;
  bool manual_clock;
  BA_ATOMIC(uint32_t) ended;            /* no reader will go on */
  BA_ALIGNED_LINE pthread_mutex_t lock; /* guards what follows */
  uint64_t tail;
  uint64_t head_seen; /* a lower bound of min(head) */
  uint64_t wall;      /* of the newest step; never decreases */
  uint64_t accepted;
  uint64_t refused;
  uint64_t dropped;
  uint64_t steps;
  uint64_t waits;
  bool closed;
} ba_step_ring;

typedef struct ba_block {
  uint32_t n;
  bool last;    /* ends its step */
  bool uniform; /* all of one kind */
} ba_block;

int ba_step_ring_init(ba_step_ring *ring, uint32_t capacity, uint32_t readers, uint64_t position);
void ba_step_ring_destroy(ba_step_ring *ring);
/* Goes on from another position. Holds `lock`; nothing is in the ring and every reader stands still. */
void ba_step_ring_restart(ba_step_ring *ring, uint64_t position);
/* Wall time of a step that would be admitted now. Holds `lock`. */
uint64_t ba_step_ring_wall(ba_step_ring *ring);

/* Claims n slots. Any thread; waits up to timeout_ns with BA_FULL_WAIT. BA_OK, BA_FULL (refused or dropped, counted),
 * BA_TIMEOUT, BA_CLOSED. */
int ba_step_ring_claim(ba_step_ring *ring, uint32_t n, enum ba_full full, uint64_t timeout_ns, uint64_t *position,
                       uint64_t *wall);
/* An inline engine's claim: takes no room, never waits. BA_OK or BA_CLOSED. */
int ba_step_ring_admit(ba_step_ring *ring, uint32_t n, uint64_t *position, uint64_t *wall);
/* Counts n signals that were not admitted: dropped with BA_FULL_DROP, else refused. */
void ba_step_ring_turn_away(ba_step_ring *ring, uint32_t n, enum ba_full full);
/* Writes and publishes a claimed step; uniform: all of one kind. The claiming thread; never waits. */
void ba_step_ring_write(ba_step_ring *ring, uint64_t position, uint64_t wall, const ba_signal *signals,
                        const uint8_t *parts, uint32_t n, bool uniform);

/* Whether a block begins at position and is published. Its reader. */
static inline bool ba_step_ring_ready(ba_step_ring *ring, uint64_t position, ba_block *block) {
  /* seq_cst: pairs with the store in ba_step_ring_write. As an acquire it makes the block's slots, partitions and wall
   * time visible (relaxed could read those of the lap before); as seq_cst it loses no wake-up (wait.h). */
  uint64_t mark = ba_load_seq_cst(&ring->marks[position & ring->mask]);
  if ((mark >> 16) != ((position >> ring->bits) & UINT64_C(0xffffffffffff))) return false;
  block->n = (uint32_t)(mark & 0x3fff);
  block->last = (mark >> 14) & 1;
  block->uniform = (mark >> 15) & 1;
  return true;
}

/* Gives back the slots before position. Its reader. */
static inline void ba_step_ring_release(ba_step_ring *ring, uint32_t reader, uint64_t position) {
  /* seq_cst: pairs with the loads in min_head and passed. As a release it puts this reader's reads of the slots before
   * their overwriting (relaxed would let them see it); as seq_cst it loses no wake-up (wait.h). */
  ba_store_seq_cst(&ring->heads[reader].position, position);
  ba_wake(&ring->room);
}

/* Waits until every reader has passed position. Any thread but a reader's. BA_OK, BA_TIMEOUT, or BA_CLOSED: the readers
 * have ended before it. */
int ba_step_ring_wait_passed(ba_step_ring *ring, uint64_t position, uint64_t timeout_ns);

/* Slots that are not free again. Holds `lock`. */
uint64_t ba_step_ring_used(ba_step_ring *ring);

/* Signals in [from, tail) whose partition's owner is `reader`, counted slot by slot. Holds `lock`. */
uint64_t ba_step_ring_count(ba_step_ring *ring, uint64_t from, const uint8_t *owners, uint8_t reader);

#endif
