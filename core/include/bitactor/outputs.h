/*
 * Subscriptions: each shard appends its outputs, in order, to a queue of its own; the reader merges the queues.
 *
 * Key of an output: (position, index), compared lexicographically. Each queue's keys grow. A shard's frontier is a key
 * that all its later outputs reach or pass; the reader delivers what lies before every frontier, so outputs arrive in
 * one order whatever the number of shards. A shard that finds its queue full publishes the key of the output in its
 * hand as its frontier in every subscription (not only in the one it waits for: shards may wait for different ones), so
 * the oldest output of all is always deliverable and nobody waits in a circle.
 *
 * Invariants: released <= published; published - released <= capacity, but for an inline engine, whose queue grows
 * within a step because its only thread cannot wait for itself.
 */
#ifndef BITACTOR_OUTPUTS_H
#define BITACTOR_OUTPUTS_H

#include <bitactor/atomic.h>
#include <bitactor/engine.h>
#include <bitactor/wait.h>
#include <pthread.h>

typedef struct ba_output_key {
  uint64_t position;
  uint64_t index;
} ba_output_key;

typedef struct ba_output_queue {
  BA_ALIGNED_LINE BA_ATOMIC(uint64_t) published; /* written by the shard */
  uint64_t released_seen;                        /* shard's copy, may be stale (too small) */
  /* The frontier, behind a sequence that is odd while it changes; written by the shard. */
  BA_ATOMIC(uint64_t) frontier_sequence;
  BA_ATOMIC(uint64_t) frontier_position;
  BA_ATOMIC(uint64_t) frontier_index;
  BA_ALIGNED_LINE BA_ATOMIC(uint64_t) released; /* written by the reader */
  ba_output *items;
  uint64_t mask;
} ba_output_queue;

struct ba_subscription {
  ba_engine *engine;
  uint32_t queues; /* one for each shard; 1 inline */
  uint32_t capacity;
  bool inline_mode;
  bool drop;
  int event_fd;        /* owned; closed in ba_outputs_destroy */
  uint8_t wanted[256]; /* by kind index; with remote, none */
  bool remote;         /* reads the remote emits, and only those */
  BA_ATOMIC(uint32_t) armed;
  BA_ATOMIC(uint32_t) ended;    /* the engine is closed: no output will come */
  BA_ATOMIC(uint32_t) detached; /* nobody reads: outputs go nowhere */
  BA_ATOMIC(uint64_t) dropped;  /* full (drop, closing), or no memory */
  ba_wait_point news;           /* the reader waits here */
  ba_wait_point room;           /* shards wait here */
  pthread_mutex_t growth;       /* inline: guards the queue against a reader in another thread */
  ba_output_queue *queue;
  struct ba_subscription *next;
};

ba_subscription *ba_outputs_create(uint32_t queues, uint32_t capacity, bool inline_mode, bool drop, int event_fd,
                                   uint64_t position);
void ba_outputs_destroy(ba_subscription *subscription);

/* Appends one output if there is room; false: none, and the subscription is one to wait for (with drop, or detached,
 * the output is dropped, and true). The shard that owns the queue; never waits. */
bool ba_outputs_try_push(ba_subscription *subscription, uint32_t shard, const ba_output *output);
/* Appends one output, after waiting for the reader if need be; drops it when the engine closes or the reader goes. */
void ba_outputs_push(ba_subscription *subscription, uint32_t shard, const ba_output *output,
                     const BA_ATOMIC(uint32_t) *closing);
/* Counts an output that could not be kept for this reader. The shard. */
void ba_outputs_lose(ba_subscription *subscription);
/* All later outputs of the shard have keys at or past this one. The shard. */
void ba_outputs_advance(ba_subscription *subscription, uint32_t shard, ba_output_key frontier);
/* Wakes the reader if it waits. The shard, after pushes; any thread, after `ended`. */
void ba_outputs_notify(ba_subscription *subscription);
/* Inline: no step may begin while this holds. */
bool ba_outputs_full(ba_subscription *subscription);

#endif
