/*
 * The engine: signals in, keyed state and emitted signals out.
 *
 * Senders (any threads) admit steps into one step ring; each shard thread reads every step and handles the signals of
 * the partitions it owns (those of the engine, dealt out in turn). With 0 shards the sending thread does the work
 * itself, one at a time. The same steps give the same state and the same outputs, bit for bit, for any number of
 * shards.
 *
 * An engine of one lane of several takes signals of that lane's keys only. What its actors emit to keys of other lanes
 * is not delivered here: such emits are remote, counted apart, and read from a subscription of their own.
 *
 * Invariant at every step boundary: accepted = processed + queued + the sum of dropped[], each counted where it
 * happens.
 */
#ifndef BITACTOR_ENGINE_H
#define BITACTOR_ENGINE_H

#include <bitactor/actor.h>
#include <bitactor/signal.h>
#include <stdbool.h>

enum {
  BA_SHARDS_MAX = 64,
  BA_ACTORS_MAX = 255,
  BA_WAVES_MAX = 64,           /* waves of one step; emits to actors past it are dropped, counted */
  BA_STEP_EMITS_MAX = 1 << 20, /* emits of one step that reach actors or readers; the rest are dropped, counted */
  BA_HISTOGRAM_BUCKETS = 256,  /* ba_histogram_floor says where each begins */
  BA_TICK_SAMPLE = 256         /* one signal in so many is timed alone, for the histograms */
};

enum ba_result {
  BA_OK = 0,
  BA_TIMEOUT,   /* the wait ended first; nothing was done: call again to go on waiting */
  BA_FULL,      /* refused: no room now, and the policy is not to wait */
  BA_BAD_KIND,  /* a signal's kind is not declared */
  BA_BAD_FLAGS, /* a reserved flag bit is set */
  BA_CLOSED,    /* the engine is closed, or a shard has failed */
  BA_IN_ACTOR,  /* called from a handler: it would wait for itself */
  BA_NO_MEMORY,
  BA_BAD_CONFIG,
  BA_WRONG_LANE /* a signal's key, or a row of a state, is of another lane than the engine's */
};

/* Why a signal (or an emit) was dropped. */
enum ba_drop {
  BA_DROP_FULL,      /* the ring was full and the policy is to drop */
  BA_DROP_UNHANDLED, /* no actor handles its kind */
  BA_DROP_RAISED,    /* a handler raised; its state and emits are as before */
  BA_DROP_KEY_CAP,   /* a new key past the actor's key cap */
  BA_DROP_NO_MEMORY, /* a new key and no memory for it */
  BA_DROP_BOUND,     /* emits only: past the bound on waves or on emits of one step */
  BA_DROP_BAD_EMIT,  /* emits only: a handler of the C ABI emitted an undeclared kind or a reserved flag */
  BA_DROPS
};

enum ba_full { BA_FULL_WAIT = 0, BA_FULL_REFUSE = 1, BA_FULL_DROP = 2 };

typedef struct ba_actor_spec {
  ba_handler handler;
  uint32_t stride;             /* bytes of one state, a multiple of 8, at least 8 */
  const uint8_t *init;         /* stride bytes: a new instance's state; copied */
  uint32_t partition_keys_max; /* 0: no cap */
  uint64_t idle_ns;            /* 0: never expires; wall time since the key's last signal */
  uint64_t tick_budget;        /* 0: none; ticks allowed a signal */
  bool reads_wall;             /* the handler may read ctx->wall_ns */
  const uint16_t *kinds;       /* numbers it handles, in this order of declaration */
  uint32_t kind_count;
  const uint16_t *emits; /* numbers it may emit */
  uint32_t emit_count;
} ba_actor_spec;

typedef struct ba_engine_config {
  const uint16_t *kinds; /* declared numbers, each once, none 0 */
  uint32_t kind_count;   /* at most 255 */
  const ba_actor_spec *actors;
  uint32_t actor_count;
  uint32_t shards;       /* 0: inline */
  uint32_t ring_signals; /* power of two, at least 2 * BA_FRAME_SIGNALS; 0: default */
  uint64_t secret[2];    /* places keys in tables; nothing observable depends on it */
  uint64_t position;     /* of the first signal; 0 but in tests and recovery */
  bool manual_clock;     /* wall time comes from ba_engine_set_wall only */
  uint32_t lane, lanes;  /* holds the keys whose partition modulo lanes is lane; lanes: 0 or 1 (all), or divides 64 */
} ba_engine_config;

typedef struct ba_engine ba_engine;

/* An emitted signal as a reader sees it. (position, index) grows strictly within one subscription. */
typedef struct ba_output {
  ba_signal signal;
  uint64_t position; /* of the input signal that caused it; of the step's last signal for emits of later waves */
  uint64_t index;    /* among the emits of that signal; (wave - 1) << 32 | rank in its wave for later waves */
} ba_output;

_Static_assert(sizeof(ba_output) == 48, "layout is frozen");

/* Wall time is cut into ticks for expiry; length of one, for an actor whose keys are forgotten after idle_ns. Pure. */
uint64_t ba_idle_tick_ns(uint64_t idle_ns);

/* Result BA_OK, BA_NO_MEMORY or BA_BAD_CONFIG. Starts the shard threads. */
int ba_engine_create(const ba_engine_config *config, ba_engine **out);

/* Handles what is queued, stops and joins the shards. Later calls say BA_CLOSED. One thread, once; others may be in
 * calls that wait: they return BA_CLOSED. With discard, what is queued is not handled, and each shard ends where it is.
 * BA_OK, or BA_IN_ACTOR: nothing was done. */
int ba_engine_close(ba_engine *engine, bool discard);
void ba_engine_destroy(ba_engine *engine); /* closes if need be; frees; no other thread may be in a call */

/*
 * Admits n signals (1..BA_FRAME_SIGNALS) as one step. Any thread. BA_FULL_WAIT waits up to timeout_ns.
 * *bad is the index of the signal that BA_BAD_KIND, BA_BAD_FLAGS or BA_WRONG_LANE is about. Nothing is admitted unless
 * BA_OK.
 */
int ba_engine_send(ba_engine *engine, const ba_signal *signals, uint32_t n, enum ba_full full, uint64_t timeout_ns,
                   uint32_t *bad);

/* Waits until everything admitted before the call is handled. Any thread but a handler's. BA_CLOSED: the engine was
 * closed with discard before that. */
int ba_engine_flush(ba_engine *engine, uint64_t timeout_ns);

/* The same in slices of time: the position behind everything admitted so far, and a wait for a position taken once, so
 * that senders who go on do not move the goal. Any thread but a handler's. */
uint64_t ba_engine_tail(ba_engine *engine);
int ba_engine_wait_handled(ba_engine *engine, uint64_t position, uint64_t timeout_ns);

/* Wall time of the steps to come, with manual_clock; never goes back. Any thread. */
void ba_engine_set_wall(ba_engine *engine, uint64_t wall_ns);

/*
 * Stops the shards of `mask` at one step boundary, behind everything admitted before the call; *position is the
 * number of signals handled there. While it holds, the calling thread may use ba_engine_find and ba_engine_rows.
 * BA_TIMEOUT leaves nothing held. One thread at a time holds it; others wait their turn.
 */
int ba_engine_pause(ba_engine *engine, uint64_t mask, uint64_t timeout_ns, uint64_t *position);
void ba_engine_resume(ba_engine *engine);

/*
 * The same in slices of time. begin waits for the turn and sets the boundary, once; wait waits for the shards to stand
 * there and may be called again after BA_TIMEOUT. After begin said BA_OK, ba_engine_resume ends the pause, held or not.
 */
int ba_engine_pause_begin(ba_engine *engine, uint64_t mask, uint64_t timeout_ns);
int ba_engine_pause_wait(ba_engine *engine, uint64_t timeout_ns, uint64_t *position);
uint64_t ba_engine_owner_mask(const ba_engine *engine, uint64_t key);

/* The state of a key, or null; valid until ba_engine_resume. */
const uint8_t *ba_engine_find(ba_engine *engine, uint32_t actor, uint64_t key);
uint64_t ba_engine_count(ba_engine *engine, uint32_t actor);
/* Copies keys and, for each of n columns, `bytes[c]` bytes at `offsets[c]` of each state, in the order of partitions
 * and of the dense arrays. Arrays hold ba_engine_count rows. Returns the rows written. */
uint64_t ba_engine_rows(ba_engine *engine, uint32_t actor, uint64_t *keys, uint32_t n, const uint32_t *offsets,
                        const uint32_t *bytes, uint8_t *const *columns);

typedef struct ba_dead_letter {
  ba_signal signal;
  uint64_t position;
  uint32_t actor;
  uint32_t error; /* the handler's code */
  uint32_t drop;  /* enum ba_drop */
  uint32_t wave;  /* 0: an input signal */
} ba_dead_letter;

typedef struct ba_shard_statistics {
  uint64_t position; /* of the step boundary that the counters below belong to */
  uint64_t processed;
  uint64_t dropped[BA_DROPS];
  uint64_t emitted;         /* by handlers; = emits_processed + _outward + _remote + the sum of emits_dropped */
  uint64_t emits_processed; /* handled by actors in later waves */
  uint64_t emits_outward;   /* of kinds that no actor handles */
  uint64_t emits_remote;    /* of kinds that actors handle, to keys of another lane */
  uint64_t emits_dropped[BA_DROPS];
  uint64_t expired;
  uint64_t steps;
  uint64_t waves;
  /* Where the time went. A step is dispatch (finding actors, resolving keys, calling handlers), emits (keeping,
   * ordering and delivering them; waiting for readers too), waiting for other shards between waves, and the rest: the
   * ring. */
  uint64_t step_ticks;
  uint64_t dispatch_ticks;
  uint64_t emit_ticks;
  uint64_t barrier_ticks;
  uint64_t idle_ticks; /* between steps */
  uint64_t parked_ticks;
  uint64_t queued; /* counted in the ring */
} ba_shard_statistics;

typedef struct ba_statistics {
  uint64_t accepted;
  uint64_t refused; /* signals turned away with BA_FULL; never accepted */
  uint64_t dropped_full;
  uint64_t position; /* of the next signal to be admitted */
  uint64_t steps;
  uint64_t send_waits;
  uint64_t ring_signals; /* what the ring has room for; inline: 0 */
  uint64_t ring_used;    /* of these, not free again: claimed, and not passed by every shard */
  uint32_t shards;
} ba_statistics;

/* A consistent reading: the invariant above holds in it. shards[] has room for BA_SHARDS_MAX. Any thread; senders
 * wait for it for some microseconds; it waits for no shard. */
int ba_engine_statistics(ba_engine *engine, ba_statistics *total, ba_shard_statistics *shards);

typedef struct ba_actor_statistics {
  uint64_t signals;  /* given to the handler; those that it raised on among them */
  uint64_t refused;  /* not given to it: no instance, because of the key cap or for want of memory */
  uint64_t timed;    /* of these, the ones that `ticks` and the histogram are about: not those of an imported state */
  uint64_t ticks;    /* spent in the handler */
  uint64_t exceeded; /* signals of calls whose mean ticks a signal were above the budget */
  uint64_t raised;
  uint64_t keys;
  uint64_t key_bytes;                       /* beside the states */
  uint64_t histogram[BA_HISTOGRAM_BUCKETS]; /* sampled signals, timed alone */
} ba_actor_statistics;

typedef struct ba_kind_statistics {
  uint64_t signals; /* given to handlers, once for each actor */
  uint64_t histogram[BA_HISTOGRAM_BUCKETS];
} ba_kind_statistics;

/* Sums over the shards, each a little stale while they run. Any thread. */
void ba_engine_actor_statistics(ba_engine *engine, uint32_t actor, ba_actor_statistics *out);
void ba_engine_kind_statistics(ba_engine *engine, uint32_t kind_index, ba_kind_statistics *out);
uint64_t ba_histogram_floor(uint32_t bucket); /* smallest ticks counted in that bucket */

/* Takes up to max sampled dead letters (the newest BA_DEAD_LETTERS of each shard are kept). Any thread. */
enum { BA_DEAD_LETTERS = 64 };
uint32_t ba_engine_dead_letters(ba_engine *engine, ba_dead_letter *out, uint32_t max);

/* --- readers of emitted signals --- */

typedef struct ba_subscription ba_subscription;

/*
 * Reads the emits of the given kinds from the next step on. capacity: outputs held for each shard before it waits
 * (or, with drop, before outputs are dropped and counted). One reader at a time. event_fd: -1, or an eventfd that is
 * written when ba_subscription_arm was called and there is something to read; with BA_OK it belongs to the
 * subscription, which closes it when no shard can write to it any more.
 */
int ba_subscribe(ba_engine *engine, const uint16_t *kinds, uint32_t n, uint32_t capacity, bool drop, int event_fd,
                 uint64_t timeout_ns, ba_subscription **out);
/* The same, for who holds a pause of all shards; never waits. */
int ba_subscribe_paused(ba_engine *engine, const uint16_t *kinds, uint32_t n, uint32_t capacity, bool drop,
                        int event_fd, ba_subscription **out);
/* Reads the remote emits, of any kind, and no others: those for whoever has the other lanes. They stand where an output
 * would, and a full queue makes its shard wait. For who holds a pause of all shards; never waits. */
int ba_subscribe_remote_paused(ba_engine *engine, uint32_t capacity, int event_fd, ba_subscription **out);
/* Up to max outputs in order, or waits up to timeout_ns for the first: *n = 0 with BA_TIMEOUT; BA_CLOSED when the
 * engine is closed and all was read. */
int ba_subscription_read(ba_subscription *subscription, ba_output *out, uint32_t max, uint64_t timeout_ns, uint32_t *n);
bool ba_subscription_arm(ba_subscription *subscription); /* true: something is there already, the fd is not written */
/* Outputs that this reader lost: the queue was full (drop, or closing), or there was no memory for them. */
uint64_t ba_subscription_dropped(ba_subscription *subscription);
/* What is unread is gone, and shards that waited for this reader go on. Any thread, a handler's too. Waits 50 ms at
 * most for a pause in which to give the memory back; else that is left to the next subscribe or unsubscribe. */
void ba_unsubscribe(ba_subscription *subscription);

#endif
