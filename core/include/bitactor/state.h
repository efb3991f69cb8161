/*
 * State in and out of an engine: applying records of a log, copying everything out at a step boundary, and filling a
 * fresh engine with it, which then goes on bit for bit as the first one would have, with any number of shards and
 * another secret.
 *
 * What a ba_state holds is a function of the steps alone: two engines that handled the same steps give equal ones.
 */
#ifndef BITACTOR_STATE_H
#define BITACTOR_STATE_H

#include <bitactor/engine.h>

/* One actor's instances. Rows lie partition by partition, those of a partition in dense order. */
typedef struct ba_actor_state {
  uint64_t rows;     /* the sum of counts */
  uint64_t rows_max; /* export: what the arrays have room for */
  uint32_t counts[BA_PARTITIONS];
  uint64_t *keys;
  uint8_t *states; /* stride bytes a row */
  /* Actors with expiry only: each partition's rows from the one untouched for longest to the newest, by their place
   * among the partition's rows, and in the same order the wall tick of that touch, modulo 2^32. */
  uint32_t *touch_order;
  uint32_t *touch_ticks;
  uint64_t signals, refused, raised; /* as in ba_actor_statistics */
} ba_actor_state;

typedef struct ba_state {
  uint64_t wall_ns; /* of the newest step */
  uint64_t accepted, refused, dropped_full;
  ba_shard_statistics
      counts;             /* position, steps and waves as each shard has them; the rest summed; no ticks, no queue */
  ba_actor_state *actors; /* one for each actor of the engine, in its order */
  uint64_t *kind_signals; /* for each kind, in the order of declaration */
} ba_state;

/*
 * Applies a record: its signals in steps of BA_FRAME_SIGNALS (the last may be shorter), all at wall_ns. Without signals
 * an empty step: wall time moves, what is due expires, nothing is counted. Engines with manual_clock; one thread at a
 * time, not a handler's; wall_ns never goes back. Waits for room in the ring, and an empty step for what was sent
 * before, up to timeout_ns.
 * *done counts the signals admitted; begin with 0. BA_TIMEOUT: call again with the same arguments to go on from there.
 * BA_BAD_KIND, BA_BAD_FLAGS: about signal *done + *bad; the steps before its own are admitted. BA_WRONG_LANE: the same,
 * and nothing of the record is admitted. BA_FULL: inline, a subscription must be read first. BA_CLOSED, BA_IN_ACTOR.
 */
int ba_engine_apply(ba_engine *engine, const ba_signal *signals, uint64_t n, uint64_t wall_ns, uint64_t timeout_ns,
                    uint64_t *done, uint32_t *bad);

/*
 * The next three are for who holds a pause of all shards (ba_engine_erase: of the key's owner); they never wait.
 *
 * Export copies the state at the boundary. BA_OK. BA_FULL: some actor has more rows than rows_max; rows and counts are
 * set, nothing else is. BA_CLOSED: the engine was closed with discard, its shards ended at different positions.
 */
int ba_engine_export(ba_engine *engine, ba_state *state);

/*
 * Import fills an engine that has admitted nothing yet. The caller has checked the arrays (ba_store_fill says what).
 * BA_OK. BA_BAD_CONFIG: signals were admitted already; BA_WRONG_LANE; BA_CLOSED; nothing was done. BA_NO_MEMORY: the
 * engine holds a part of the state and is only good for closing.
 */
int ba_engine_import(ba_engine *engine, const ba_state *state);

/* Takes a key out of every actor; *held: how many had it. BA_OK or BA_CLOSED. */
int ba_engine_erase(ba_engine *engine, uint64_t key, uint32_t *held);

#endif
