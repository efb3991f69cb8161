/*
 * A shard: one worker, the partitions it owns, and what it needs to run their actors.
 *
 * Everything here but the published counters, the wave exchange and the barrier is touched by the shard's thread alone
 * (or, inline, by the thread that holds the engine's turn; or by the thread that holds a pause, see state.c).
 */
#ifndef BITACTOR_SHARD_H
#define BITACTOR_SHARD_H

#include <bitactor/atomic.h>
#include <bitactor/engine.h>
#include <bitactor/outputs.h>
#include <bitactor/step_ring.h>
#include <bitactor/store.h>
#include <pthread.h>

#define BA_ENDED UINT64_MAX

enum { BA_CHUNK = 2048 }; /* most signals in one call of a handler; their order and slots stay in the L1 cache */

/* Which actors handle a kind, in order of declaration. Kind index 0: not declared. */
typedef struct ba_route {
  uint8_t first; /* the first actor, or the index past the last actor: nobody */
  uint8_t count;
  uint8_t actors[BA_ACTORS_MAX];
} ba_route;

/* One run-time actor of a shard. */
typedef struct ba_actor {
  const ba_actor_spec *spec;
  ba_store *store;
  uint64_t tick_ns; /* of idle time; 0: never expires */
  uint32_t tick;    /* of the step at hand */
  bool expiring;    /* due instances are left from the step before */
  bool emits;
  uint32_t sample;              /* signals until one is timed alone */
  BA_ATOMIC(uint64_t) imported; /* of `signals`, what came with an imported state: not timed here */
  /* Written by the shard, read by ba_engine_actor_statistics; relaxed: counts that nothing else hangs on. */
  BA_ATOMIC(uint64_t) signals;
  BA_ATOMIC(uint64_t) refused;
  BA_ATOMIC(uint64_t) ticks;
  BA_ATOMIC(uint64_t) exceeded;
  BA_ATOMIC(uint64_t) raised;
  BA_ATOMIC(uint64_t) keys;
  BA_ATOMIC(uint64_t) key_bytes;
  BA_ATOMIC(uint64_t) histogram[BA_HISTOGRAM_BUCKETS];
} ba_actor;

typedef struct ba_kind_counts {
  BA_ATOMIC(uint64_t) signals;
  BA_ATOMIC(uint64_t) histogram[BA_HISTOGRAM_BUCKETS];
} ba_kind_counts;

/* Emits of one wave of one shard: cause is the ordinal in the wave, reserved the index among the cause's emits. */
typedef struct ba_emits {
  ba_emit *items;
  uint32_t n, capacity;
  bool sorted; /* by (cause, index), as appended */
} ba_emits;

/* What a shard made in one wave. Written by the shard before the barrier, read by all after it. */
typedef struct ba_wave_made {
  ba_emits to[BA_SHARDS_MAX]; /* for actors, by owner of the target partition */
  ba_emits outward;           /* for readers */
  uint32_t *counts;           /* emits of each ordinal of the wave, dropped ones included */
  uint32_t counts_capacity;
  uint32_t n;      /* ordinals in counts */
  uint64_t total;  /* sum of counts */
  uint64_t routed; /* of these, to actors */
  uint64_t stored; /* entries in to[] and outward */
  uint32_t cut;    /* emits of ordinals past it are dropped at once: their rank is past the bound for sure */
} ba_wave_made;

/* A batch to dispatch: signals of one wave, at most BA_CHUNK. */
typedef struct ba_batch {
  const ba_signal *signals;
  const uint8_t *parts;
  const uint32_t *ordinals; /* in the wave; null: consecutive from `ordinal` */
  uint32_t ordinal;
  uint32_t n;
  uint32_t wave;     /* 0: the step's own signals */
  uint64_t position; /* of the step's (or, in a stream, of the batch's) first signal */
  bool uniform;      /* all of one kind */
  bool mine;         /* all in partitions of this shard */
} ba_batch;

typedef struct ba_shard {
  BA_ALIGNED_LINE ba_engine *engine;
  uint32_t index;
  pthread_t thread;
  bool started;
  ba_actor *actors;
  ba_kind_counts *kinds; /* by kind index */
  uint8_t owners[BA_PARTITIONS];
  ba_shard_statistics now; /* counted where it happens; copied out at step boundaries */
  uint64_t position;       /* of the next signal to handle */
  uint64_t wall;           /* of the step at hand */
  uint64_t rounds;         /* of the loop that handled something */

  /* Scratch of one batch. */
  uint16_t *order; /* BA_CHUNK for each actor, one more for nobody */
  uint32_t *order_n;
  uint16_t every[BA_CHUNK]; /* 0, 1, 2, ...: the order of a batch that an actor handles all of */
  uint32_t *slots;          /* BA_CHUNK */
  uint8_t *failed;          /* BA_CHUNK: 1 + enum ba_drop of the first failure of each signal */
  bool any_failed;
  ba_emit *emit_buffer;
  ba_wave_made made[2]; /* two, by turns: one is read by others while the other is written */
  uint32_t turn;
  ba_signal *wave_signals;
  uint8_t *wave_parts;
  uint32_t *wave_ordinals;
  uint32_t wave_capacity;
  uint32_t *prefix; /* rank of the first emit of each ordinal */
  uint32_t prefix_capacity;
  const ba_emit **place; /* scratch: the emit of each rank */
  uint32_t place_capacity;

  pthread_mutex_t letters_lock;
  ba_dead_letter letters[BA_DEAD_LETTERS];
  uint32_t letters_first, letters_n;

  /* The pause for which the shard stands still, by its generation; 0: none; BA_ENDED: for ever. */
  BA_ATOMIC(uint64_t) stands;

  /* Published at step boundaries behind a sequence that is odd while they change. */
  BA_ALIGNED_LINE BA_ATOMIC(uint64_t) published_sequence;
  BA_ATOMIC(uint64_t) published[sizeof(ba_shard_statistics) / sizeof(uint64_t)];
} ba_shard;

struct ba_engine {
  ba_step_ring ring;    /* inline: only its lock, tail, wall and counts are used */
  uint32_t shard_count; /* at least 1 */
  uint32_t lane, lanes; /* lane < lanes, which divides BA_PARTITIONS */
  bool inline_mode;
  bool feedback;  /* some actor may emit what some actor handles */
  bool stepwise;  /* one step at a time: feedback, expiry, or a handler that reads the wall time */
  uint32_t chunk; /* most signals in a batch */
  uint32_t depth; /* waves that can emit anything */
  uint32_t emitters;
  uint32_t actor_count, kind_count;
  ba_actor_spec *specs;
  uint16_t *kind_numbers;
  uint8_t kind_index[65536];
  ba_route routes[256];
  uint8_t *may_emit;   /* [actor * 256 + kind index] */
  uint8_t wanted[256]; /* by kind index: some subscription reads it; changes only while every shard is paused */
  bool remote_wanted;  /* the same of remote emits */
  ba_shard *shards;
  void *owned[3 * BA_ACTORS_MAX + 2]; /* copies of what the configuration pointed to */
  uint32_t owned_n;
  ba_subscription *subscriptions; /* changes only while every shard is paused, and under subscriptions_lock */
  pthread_mutex_t subscriptions_lock;
  BA_ATOMIC(uint32_t) closing; /* no more steps are admitted; shards end when the ring is empty */
  BA_ATOMIC(uint32_t) discard; /* shards end at the next step boundary */
  bool closed;

  bool has_ring;
  uint32_t shards_made;
  bool shards_ended;                    /* under ring.lock */
  BA_ALIGNED_LINE pthread_mutex_t turn; /* inline: who holds it handles steps */

  /* Pause: one at a time. */
  BA_ATOMIC(uint32_t) pause_taken;
  ba_wait_point pause_free;
  /* Written before pause_generation. A shard that looks at a pause that was given up may read those of the next one:
   * both are boundaries that it may stand at, and it says which generation it stands for. */
  BA_ATOMIC(uint64_t) pause_mask, pause_position;
  BA_ATOMIC(uint64_t) pause_generation;
  BA_ATOMIC(uint64_t) resume_generation;
  ba_wait_point paused_news, resumed_news;

  /* Barrier between waves. */
  BA_ALIGNED_LINE BA_ATOMIC(uint32_t) barrier_arrived;
  BA_ALIGNED_LINE BA_ATOMIC(uint32_t) barrier_generation;
  ba_wait_point barrier_news;
};

/* Whether a partition is of the engine's lane. */
static inline bool ba_in_lane(const ba_engine *engine, uint8_t partition) {
  return (partition & (engine->lanes - 1)) == engine->lane;
}

/* The shard that owns a partition: those of a lane, lanes apart, are dealt out in turn. */
static inline uint32_t ba_owner_of(const ba_engine *engine, uint32_t partition) {
  return partition / engine->lanes % engine->shard_count;
}

/* dispatch.c: handles one batch: finds the actors, the states, calls the handlers, collects emits and failures. */
void ba_dispatch(ba_shard *shard, const ba_batch *batch);

/* waves.c */
int ba_waves_init(ba_shard *shard);
void ba_waves_destroy(ba_shard *shard);
void ba_wave_begin(ba_shard *shard, uint32_t n); /* before the first batch of a wave of n signals */
void ba_wave_collect(ba_shard *shard, const ba_batch *batch, uint32_t actor, const ba_emit *emits, uint32_t n);
/* After the batches of a step's first wave: delivers outputs and runs the waves that follow. n: of the step. */
void ba_waves_run(ba_shard *shard, uint64_t position, uint32_t n);
/* After a batch of a stream (no feedback): delivers its outputs. */
void ba_wave_deliver_stream(ba_shard *shard, const ba_batch *batch);

/* shard.c */
void *ba_shard_main(void *shard);
/* One step whose signals lie at signals[0..n) (inline), in full. */
void ba_shard_step(ba_shard *shard, const ba_signal *signals, const uint8_t *parts, uint32_t n, bool uniform,
                   uint64_t wall);
void ba_shard_publish(ba_shard *shard);
/* An empty step: wall time moves and what is due expires. Between steps. */
void ba_shard_beat(ba_shard *shard, uint64_t wall);
/* Counts the keys for statistics. Between steps. */
void ba_shard_count_keys(ba_shard *shard);
void ba_shard_read_published(ba_shard *shard, ba_shard_statistics *out);
void ba_shard_dead_letter(ba_shard *shard, const ba_batch *batch, uint32_t i, uint32_t actor, uint32_t error,
                          enum ba_drop drop);

extern _Thread_local const ba_engine *ba_inside; /* the engine whose handler this thread is running, if any */

static inline void ba_count(BA_ATOMIC(uint64_t) *counter, uint64_t n) {
  /* relaxed, load and store: the shard alone writes it; readers want a recent value, whole. */
  ba_store_relaxed(counter, ba_load_relaxed(counter) + n);
}

#endif
