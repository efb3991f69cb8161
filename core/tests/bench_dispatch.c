/*
 * What dispatch costs: 8 kinds in random order, a compiled handler each, warm, one thread; ticks a signal as JSON
 * lines.
 *
 *   bench_dispatch [batches, default 20000]
 *
 * The engine's own ba_dispatch is called on batches of an inline engine, then its parts are timed alone on the same
 * batch: resolving (keys to states, by the same calls), and what is left, which is the look-up of each signal's kind
 * and actors, the calls of the handlers, what they do (one addition each) and the accounting. Beside it the survey of a
 * step on its way in, and a call of each signal's handler through a pointer found by its kind: what a hand-written
 * dispatcher does, with the state's address given.
 */
#include <bitactor/shard.h>
#include <bitactor/ticks.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { KINDS = 8, KEYS = 1000, ROUNDS = 21 };

typedef struct counted {
  uint64_t count;
} counted;

static uint32_t count_all(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                          const uint16_t *order, uint32_t n) {
  (void)signals;
  (void)order;
  for (uint32_t i = 0; i < n; i++) ((counted *)(void *)(states + (size_t)slots[i] * sizeof(counted)))->count++;
  ctx->status = BA_DONE;
  return n;
}

typedef void (*one_fn)(counted *state, const ba_signal *signal);

#define ONE(name)                                                                                                      \
  static __attribute__((noinline)) void name(counted *state, const ba_signal *signal) {                                \
    (void)signal;                                                                                                      \
    state->count++;                                                                                                    \
    __asm__ __volatile__(""); /* not to be merged with its like */                                                     \
  }
ONE(one_0)
ONE(one_1)
ONE(one_2)
ONE(one_3)
ONE(one_4)
ONE(one_5)
ONE(one_6)
ONE(one_7)

static const one_fn by_kind[KINDS] = {one_0, one_1, one_2, one_3, one_4, one_5, one_6, one_7};
static const uint16_t kinds[KINDS] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t zero[sizeof(counted)];

static ba_signal signals[BA_CHUNK];
static uint8_t parts[BA_CHUNK];
static counted plain[KINDS * KEYS];

static void resolve_alone(ba_shard *shard) {
  for (uint32_t a = 0; a < KINDS; a++) {
    (void)ba_store_resolve(shard->actors[a].store, signals, parts, shard->order + a * BA_CHUNK, shard->order_n[a],
                           shard->actors[a].tick, shard->slots);
  }
}

static void through_pointers(void) {
  for (uint32_t i = 0; i < BA_CHUNK; i++) {
    const uint32_t kind = signals[i].kind - 1u;
    by_kind[kind](&plain[kind * KEYS + signals[i].key % KEYS], &signals[i]);
  }
}

static int by_size(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static double median(double *values) {
  qsort(values, ROUNDS, sizeof *values, by_size);
  return values[ROUNDS / 2];
}

static void report(const char *figure, double value) {
  printf("{\"figure\": \"%s\", \"value\": %.2f, \"unit\": \"ticks a signal\"}\n", figure, value);
}

int main(int argc, char **argv) {
  const uint64_t batches = (argc > 1 ? strtoull(argv[1], NULL, 10) : 20000) / ROUNDS + 1;
  ba_actor_spec specs[KINDS];
  for (int a = 0; a < KINDS; a++) {
    specs[a] = (ba_actor_spec){
        .handler = count_all, .stride = sizeof(counted), .init = zero, .kinds = &kinds[a], .kind_count = 1};
  }
  ba_engine *engine;
  CHECK(ba_engine_create(&(ba_engine_config){.kinds = kinds,
                                             .kind_count = KINDS,
                                             .actors = specs,
                                             .actor_count = KINDS,
                                             .secret = {0x243f6a8885a308d3, 0x13198a2e03707344}},
                         &engine) == BA_OK,
        "create");
  for (uint32_t i = 0; i < BA_CHUNK; i++) {
    signals[i] = (ba_signal){.kind = kinds[ba_mix64(i) % KINDS], .key = ba_mix64(i ^ 77) % KEYS};
  }
  ba_partitions(signals, BA_CHUNK, parts);
  ba_shard *shard = &engine->shards[0];
  const ba_batch batch = {.signals = signals, .parts = parts, .n = BA_CHUNK, .mine = true};
  double whole[ROUNDS], resolved[ROUNDS], left[ROUNDS], surveyed[ROUNDS], pointers[ROUNDS];
  for (int round = -1; round < ROUNDS; round++) { /* the first one warms */
    uint64_t ticks[4] = {0};
    for (uint64_t b = 0; b < batches; b++) {
      const uint64_t t0 = ba_ticks();
      ba_dispatch(shard, &batch);
      const uint64_t t1 = ba_ticks();
      resolve_alone(shard);
      const uint64_t t2 = ba_ticks();
      (void)ba_survey(signals, BA_CHUNK, parts);
      const uint64_t t3 = ba_ticks();
      through_pointers();
      const uint64_t t4 = ba_ticks();
      ticks[0] += t1 - t0, ticks[1] += t2 - t1, ticks[2] += t3 - t2, ticks[3] += t4 - t3;
    }
    if (round < 0) continue;
    const double handled = (double)batches * BA_CHUNK;
    whole[round] = (double)ticks[0] / handled, resolved[round] = (double)ticks[1] / handled;
    left[round] = whole[round] - resolved[round];
    surveyed[round] = (double)ticks[2] / handled, pointers[round] = (double)ticks[3] / handled;
  }
  uint64_t handled = 0;
  for (uint32_t a = 0; a < KINDS; a++) handled += shard->actors[a].signals;
  CHECK(handled == (ROUNDS + 1) * batches * BA_CHUNK, "%llu signals handled", (unsigned long long)handled);
  report("look-up and call", median(left));
  report("resolving", median(resolved));
  report("survey", median(surveyed));
  report("a call through a pointer each", median(pointers));
  ba_engine_destroy(engine);
  return 0;
}
