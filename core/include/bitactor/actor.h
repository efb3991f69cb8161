/*
 * The actor ABI: what a compiled handler looks like to the engine, version 1.
 *
 * A handler is a loop over a batch: for i in [0, n) it handles signals[order[i]] with the state at
 * states + slots[i] * stride (stride: the state's size rounded up to its alignment, known to both sides).
 * The engine calls it from one thread at a time for any one state; states of different partitions may be
 * handled by other threads at the same time, so a handler touches nothing but its arguments.
 *
 * Invariants: 0 <= returned <= n; emit_n <= emit_cap; order[i] strictly increases with i.
 */
#ifndef BITACTOR_ACTOR_H
#define BITACTOR_ACTOR_H

#include <bitactor/signal.h>

enum ba_status {
  BA_DONE = 0,      /* all n signals are handled; returned n */
  BA_EMIT_FULL = 1, /* signal `returned` was not begun, or was undone: call again from there with room */
  BA_RAISED = 2,    /* signal `returned` raised ctx->error: its state and its emits are as before it */
  BA_FAILED = 255   /* preset by the engine: a handler that returns without a status has failed */
};

/* One emitted signal and the index (a value of order[]) of the signal that caused it. */
typedef struct ba_emit {
  ba_signal signal;
  uint32_t cause;
  uint32_t reserved;
} ba_emit;

_Static_assert(sizeof(ba_emit) == 40, "layout is frozen");

typedef struct ba_ctx {
  uint32_t size;     /* bytes of this structure in the engine that calls; fields are only ever appended */
  uint32_t status;   /* enum ba_status; preset to BA_FAILED, set by the handler before it returns */
  uint32_t error;    /* with BA_RAISED: the handler's own code of what was raised */
  uint32_t emit_n;   /* emits[0..emit_n) are taken; the handler appends */
  uint32_t emit_cap; /* capacity of emits, at least BA_EMITS_MIN */
  uint32_t reserved;
  ba_emit *emits;
  uint64_t wall_ns;      /* wall time of the step, ns since the epoch; the same for every signal of the batch */
  uint64_t watermark_ns; /* zero: reserved for event-time windows */
  void *timer;           /* null: reserved for timers */
} ba_ctx;

_Static_assert(sizeof(ba_ctx) == 56, "version 1 of the context");

enum { BA_EMITS_MIN = 4096 }; /* a handler that emits more than this for one signal is stopped with BA_RAISED */

typedef uint32_t (*ba_handler)(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                               const uint16_t *order, uint32_t n);

#endif
