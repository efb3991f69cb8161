/*
 * The engine's edges: outputs without feedback, readers that are slow or go away, closing, pauses, figures.
 *
 * Two actors that emit outwards: `alpha` (kinds IN, and SIDE to both readers' kinds) and `beta` (kind IN). Every wait
 * in here ends; a test that hangs is a circle of waiting threads.
 */
#include <bitactor/engine.h>
#include <bitactor/ticks.h>
#include <bitactor/wait.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { IN = 1, A = 2, B = 3, KEYS = 500, SIGNALS = 20000, CAP = 6 };

static const uint16_t kinds[] = {IN, A, B};
static const uint8_t zero[16];
static BA_ATOMIC(uint32_t) gate;
static BA_ATOMIC(uint32_t) at_gate;

static void out(ba_ctx *ctx, const ba_signal *in, uint16_t cause, uint16_t kind, uint64_t value) {
  ba_signal made = {.kind = kind, .key = in->key, .time = in->time, .value = value};
  ctx->emits[ctx->emit_n++] = (ba_emit){made, cause, 0};
}

#define ARGUMENTS                                                                                                      \
  ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals, const uint16_t *order, uint32_t n

/* value % 3 outputs of kind A and one of B for odd values; counts in the state; raises 41 for values that end in 99. */
static uint32_t alpha(ARGUMENTS) {
  for (uint32_t i = 0; i < n; i++) {
    const ba_signal *in = &signals[order[i]];
    if (ctx->emit_n + 3 > ctx->emit_cap || in->value % 100 == 99) {
      ctx->status = in->value % 100 == 99 ? BA_RAISED : BA_EMIT_FULL;
      ctx->error = 41;
      return i;
    }
    uint64_t *count = (uint64_t *)(void *)(states + (size_t)slots[i] * 8);
    ++*count;
    for (uint64_t e = 0; e < in->value % 3; e++) out(ctx, in, order[i], A, *count * 10 + e);
    if (in->value % 2) out(ctx, in, order[i], B, *count);
  }
  ctx->status = BA_DONE;
  return n;
}

static uint32_t beta(ARGUMENTS) {
  for (uint32_t i = 0; i < n; i++) {
    const ba_signal *in = &signals[order[i]];
    if (ctx->emit_n == ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    uint64_t *count = (uint64_t *)(void *)(states + (size_t)slots[i] * 8);
    *count += in->value;
    if (*count % 2) out(ctx, in, order[i], A, *count);
  }
  ctx->status = BA_DONE;
  return n;
}

static uint32_t count_at_gate(ARGUMENTS) {
  (void)signals, (void)order;
  ba_fetch_add_relaxed(&at_gate, 1);
  while (!ba_load_acquire(&gate)) usleep(50);
  for (uint32_t i = 0; i < n; i++) ++*(uint64_t *)(void *)(states + (size_t)slots[i] * 8);
  ctx->status = BA_DONE;
  return n;
}

static ba_actor_spec spec_of(ba_handler handler, uint32_t emits) {
  return (ba_actor_spec){.handler = handler,
                         .stride = 8,
                         .init = zero,
                         .kinds = kinds,
                         .kind_count = 1,
                         .emits = kinds + 1,
                         .emit_count = emits};
}

static ba_engine *make(const ba_actor_spec *specs, uint32_t n, uint32_t shards) {
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = 3,
                             .actors = specs,
                             .actor_count = n,
                             .shards = shards,
                             .ring_signals = 2 * BA_FRAME_SIGNALS,
                             .secret = {shards, 99}};
  ba_engine *engine;
  CHECK(ba_engine_create(&config, &engine) == BA_OK, "create");
  return engine;
}

static ba_subscription *subscribe(ba_engine *engine, const uint16_t *which, uint32_t n, uint32_t capacity, bool drop) {
  ba_subscription *s;
  CHECK(ba_subscribe(engine, which, n, capacity, drop, -1, UINT64_MAX, &s) == BA_OK, "subscribe");
  return s;
}

static ba_signal input(uint64_t i) {
  return (ba_signal){.kind = IN, .key = ba_mix64(i) % KEYS, .time = i, .value = ba_mix64(i * 3 + 1) >> 40};
}

static void send(ba_engine *engine, uint64_t from, uint32_t n) {
  ba_signal batch[BA_FRAME_SIGNALS];
  uint32_t bad;
  for (uint32_t i = 0; i < n; i++) batch[i] = input(from + i);
  CHECK(ba_engine_send(engine, batch, n, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
}

/* What the shards counted, summed; checks both sums of promise 1. */
static ba_shard_statistics sums(ba_engine *engine, ba_statistics *total) {
  ba_shard_statistics shards[BA_SHARDS_MAX], sum = {0};
  CHECK(ba_engine_statistics(engine, total, shards) == BA_OK, "statistics");
  for (uint32_t s = 0; s < (total->shards ? total->shards : 1); s++) {
    const uint64_t *from = (const uint64_t *)&shards[s];
    uint64_t *to = (uint64_t *)&sum;
    for (size_t w = 0; w < sizeof sum / sizeof *to; w++) to[w] += from[w];
  }
  uint64_t ends = sum.processed + sum.queued + total->dropped_full, emits = sum.emits_processed + sum.emits_outward;
  for (int d = 0; d < BA_DROPS; d++) ends += sum.dropped[d], emits += sum.emits_dropped[d];
  CHECK(total->accepted == ends, "accepted %llu, accounted for %llu", (unsigned long long)total->accepted,
        (unsigned long long)ends);
  CHECK(sum.emitted == emits, "emitted %llu, accounted for %llu", (unsigned long long)sum.emitted,
        (unsigned long long)emits);
  return sum;
}

typedef struct reader {
  ba_subscription *subscription;
  ba_output *all;
  uint64_t n, capacity;
  uint32_t every_us; /* sleeps so long between reads */
} reader;

static void *read_all(void *argument) {
  reader *r = argument;
  ba_output batch[64];
  uint32_t n;
  int got;
  while ((got = ba_subscription_read(r->subscription, batch, 64, UINT64_MAX, &n)) != BA_CLOSED) {
    CHECK(got == BA_OK, "result %d", got);
    while (r->n + n > r->capacity) {
      r->capacity = r->capacity ? r->capacity * 2 : 1024;
      r->all = realloc(r->all, r->capacity * sizeof *r->all);
      CHECK(r->all, "no memory");
    }
    memcpy(r->all + r->n, batch, n * sizeof *batch);
    r->n += n;
    if (r->every_us) usleep(r->every_us);
  }
  return NULL;
}

static void check_grows(const reader *r) {
  for (uint64_t i = 1; i < r->n; i++) {
    const ba_output *a = &r->all[i - 1], *b = &r->all[i];
    CHECK(a->position < b->position || (a->position == b->position && a->index < b->index),
          "(%llu, %llu) is followed by (%llu, %llu)", (unsigned long long)a->position, (unsigned long long)a->index,
          (unsigned long long)b->position, (unsigned long long)b->index);
  }
}

/* The outputs of SIGNALS inputs through alpha and beta. */
static reader outputs_of(uint32_t shards, uint32_t capacity, uint32_t step, uint32_t every_us) {
  ba_actor_spec specs[] = {spec_of(alpha, 2), spec_of(beta, 1)};
  ba_engine *engine = make(specs, 2, shards);
  reader r = {.subscription = subscribe(engine, kinds + 1, 2, capacity, false), .every_us = every_us};
  pthread_t thread;
  pthread_create(&thread, NULL, read_all, &r);
  uint32_t all = every_us ? SIGNALS / 10 : SIGNALS;
  for (uint32_t at = 0; at < all; at += step) send(engine, at, step < all - at ? step : all - at);
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
  ba_engine_close(engine, false);
  pthread_join(thread, NULL);
  ba_statistics total;
  ba_shard_statistics sum = sums(engine, &total);
  CHECK(sum.emits_outward == r.n && ba_subscription_dropped(r.subscription) == 0, "%llu outputs of %llu",
        (unsigned long long)r.n, (unsigned long long)sum.emits_outward);
  ba_engine_destroy(engine);
  check_grows(&r);
  return r;
}

static void check_same(const reader *a, const reader *b) {
  CHECK(a->n == b->n && !memcmp(a->all, b->all, a->n * sizeof *a->all), "other outputs: %llu, %llu",
        (unsigned long long)a->n, (unsigned long long)b->n);
}

static void several_emitting_actors_give_one_order_for_any_number_of_shards(void) {
  /* The order of one signal's emits: alpha's, then beta's; straight from the handlers' text. */
  static uint64_t count[KEYS], sum[KEYS];
  reader want = {.all = malloc(SIGNALS * 4 * sizeof(ba_output))};
  for (uint64_t i = 0; i < SIGNALS; i++) {
    ba_signal in = input(i), made = {.key = in.key, .time = i};
    uint64_t index = 0;
    if (in.value % 100 != 99) {
      ++count[in.key];
      made.kind = A;
      for (uint64_t e = 0; e < in.value % 3; e++) {
        made.value = count[in.key] * 10 + e;
        want.all[want.n++] = (ba_output){made, i, index++};
      }
      made.kind = B, made.value = count[in.key];
      if (in.value % 2) want.all[want.n++] = (ba_output){made, i, index++};
    }
    made.kind = A, made.value = sum[in.key] += in.value;
    if (made.value % 2) want.all[want.n++] = (ba_output){made, i, index++};
  }
  static const uint32_t shards[] = {0, 1, 2, 7};
  for (int s = 0; s < 4; s++) {
    reader got = outputs_of(shards[s], 1 << 18, s % 2 ? 777 : 8192, 0);
    check_same(&got, &want);
    free(got.all);
  }
  free(want.all);
}

static void a_slow_reader_with_tiny_queues_stops_nobody_for_ever(void) {
  reader got = outputs_of(5, 2, 1500, 20), want = outputs_of(1, 1 << 16, 300, 1);
  check_same(&got, &want);
  free(got.all);
  free(want.all);
}

/* Keys of an even partition emit A alone, those of an odd one B alone: two shards, each with outputs for one reader. */
static uint32_t by_shard(ARGUMENTS) {
  (void)states, (void)slots;
  for (uint32_t i = 0; i < n; i++) {
    if (ctx->emit_n == ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    out(ctx, &signals[order[i]], order[i], ba_partition(signals[order[i]].key) % 2 ? B : A, 0);
  }
  ctx->status = BA_DONE;
  return n;
}

static void shards_that_wait_for_different_readers_do_not_wait_in_a_circle(void) {
  ba_actor_spec spec = spec_of(by_shard, 2);
  ba_engine *engine = make(&spec, 1, 2);
  ba_subscription *of[2] = {subscribe(engine, kinds + 1, 1, 2, false), subscribe(engine, kinds + 2, 1, 2, false)};
  enum { EACH_ONE = 600 };
  send(engine, 0, EACH_ONE);
  uint64_t seen = 0, until = ba_monotonic_ns() + UINT64_C(20000000000);
  while (seen < EACH_ONE) {
    uint64_t before = seen;
    for (int s = 0; s < 2; s++) { /* one thread reads both, and waits for neither */
      ba_output batch[16];
      uint32_t n;
      if (ba_subscription_read(of[s], batch, 16, 0, &n) == BA_OK) seen += n;
    }
    CHECK(ba_monotonic_ns() < until, "stuck after %llu outputs", (unsigned long long)seen);
    if (seen == before) usleep(20);
  }
  ba_engine_destroy(engine);
}

static void a_reader_that_drops_counts_every_output_it_did_not_get(void) {
  for (uint32_t shards = 0; shards < 4; shards++) {
    ba_actor_spec spec = spec_of(alpha, 2);
    ba_engine *engine = make(&spec, 1, shards);
    reader r = {.subscription = subscribe(engine, kinds + 1, 2, 16, true)};
    for (uint32_t i = 0; i < 10; i++) send(engine, i * 500, 500);
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush waits for no reader");
    ba_engine_close(engine, false);
    read_all(&r);
    check_grows(&r);
    ba_statistics total;
    ba_shard_statistics sum = sums(engine, &total);
    uint64_t dropped = ba_subscription_dropped(r.subscription);
    CHECK(r.n && dropped && r.n + dropped == sum.emits_outward, "%llu read, %llu dropped, %llu emitted",
          (unsigned long long)r.n, (unsigned long long)dropped, (unsigned long long)sum.emits_outward);
    free(r.all);
    ba_engine_destroy(engine);
  }
}

static void shards_that_wait_for_a_reader_go_on_when_it_goes(void) {
  ba_actor_spec spec = spec_of(alpha, 2);
  ba_engine *engine = make(&spec, 1, 3);
  ba_subscription *s = subscribe(engine, kinds + 1, 2, 2, false);
  send(engine, 0, 5000);
  CHECK(ba_engine_flush(engine, 50000000) == BA_TIMEOUT, "nobody waits for the reader");
  ba_unsubscribe(s);
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
  ba_statistics total;
  ba_shard_statistics sum = sums(engine, &total);
  CHECK(sum.queued == 0 && sum.emits_outward > 1000, "counts");
  ba_engine_destroy(engine);
}

static void closing_does_not_wait_for_a_reader_who_loses_what_has_no_room(void) {
  ba_actor_spec spec = spec_of(alpha, 2);
  ba_engine *engine = make(&spec, 1, 3);
  reader r = {.subscription = subscribe(engine, kinds + 1, 2, 8, false)};
  send(engine, 0, 5000);
  CHECK(ba_engine_flush(engine, 20000000) == BA_TIMEOUT, "nobody waits for the reader");
  ba_engine_close(engine, false);
  read_all(&r);
  check_grows(&r);
  ba_statistics total;
  ba_shard_statistics sum = sums(engine, &total);
  CHECK(sum.queued == 0 && r.n + ba_subscription_dropped(r.subscription) == sum.emits_outward, "read and dropped");
  free(r.all);
  ba_engine_destroy(engine);
}

static uint32_t one_stops(ARGUMENTS) { /* partition 1 (of shard 1) stops at the gate; all emit */
  (void)states, (void)slots;
  for (uint32_t i = 0; i < n; i++) {
    if (ctx->emit_n == ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    if (ba_partition(signals[order[i]].key) % 2) {
      ba_store_release(&at_gate, 1);
      while (!ba_load_acquire(&gate)) usleep(50);
    }
    out(ctx, &signals[order[i]], order[i], A, 1);
  }
  ctx->status = BA_DONE;
  return n;
}

static void *close_discarding(void *engine) {
  ba_engine_close(engine, true);
  return NULL;
}

static void *flush_for_ever(void *engine) {
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_CLOSED, "a flush ends with the engine");
  return NULL;
}

static void a_close_that_discards_ends_flushes_and_loses_no_output_that_was_made(void) {
  ba_store_relaxed(&gate, 0);
  ba_store_relaxed(&at_gate, 0);
  ba_actor_spec spec = spec_of(one_stops, 2);
  ba_engine *engine = make(&spec, 1, 2);
  reader r = {.subscription = subscribe(engine, kinds + 1, 2, 1 << 14, false)};
  for (uint32_t i = 0; i < 8; i++) send(engine, i * 2000, 2000);
  while (!ba_load_acquire(&at_gate)) usleep(100);
  usleep(50000); /* shard 0 runs ahead */
  pthread_t closer, flusher;
  pthread_create(&flusher, NULL, flush_for_ever, engine);
  pthread_create(&closer, NULL, close_discarding, engine);
  usleep(50000);
  ba_store_release(&gate, 1);
  pthread_join(closer, NULL);
  pthread_join(flusher, NULL);
  read_all(&r);
  check_grows(&r);
  ba_statistics total;
  ba_shard_statistics sum = sums(engine, &total);
  CHECK(sum.queued > 0, "nothing was discarded: a dull run");
  CHECK(r.n == sum.emits_outward, "%llu outputs read, %llu made", (unsigned long long)r.n,
        (unsigned long long)sum.emits_outward);
  free(r.all);
  ba_engine_destroy(engine);
}

static void an_inline_engine_refuses_while_a_reader_is_full(void) {
  ba_actor_spec spec = spec_of(by_shard, 2);
  ba_engine *engine = make(&spec, 1, 0);
  reader r = {.subscription = subscribe(engine, kinds + 1, 2, 4, false)};
  send(engine, 0, 10); /* a step that has begun ends: its outputs are kept past the capacity */
  ba_signal in = input(10);
  uint32_t bad, n;
  CHECK(ba_engine_send(engine, &in, 1, BA_FULL_WAIT, 0, &bad) == BA_FULL, "waits for itself");
  CHECK(ba_engine_send(engine, &in, 1, BA_FULL_DROP, 0, &bad) == BA_FULL, "drops");
  ba_statistics total;
  sums(engine, &total);
  CHECK(total.accepted == 11 && total.refused == 1 && total.dropped_full == 1, "counts");
  ba_output batch[16];
  CHECK(ba_subscription_read(r.subscription, batch, 16, 0, &n) == BA_OK && n == 10, "%u outputs", n);
  CHECK(ba_engine_send(engine, &in, 1, BA_FULL_WAIT, 0, &bad) == BA_OK, "room again");
  ba_engine_destroy(engine);
}

/* --- figures --- */

static uint32_t slow(ARGUMENTS) {
  (void)states, (void)slots, (void)signals, (void)order;
  for (uint64_t until = ba_ticks() + 2000 * n; ba_ticks() < until;) {
  }
  ctx->status = BA_DONE;
  return n;
}

static void ticks_are_sampled_one_in_256_and_budgets_are_counted(void) {
  ba_actor_spec specs[] = {spec_of(slow, 0), spec_of(slow, 0)};
  specs[0].tick_budget = 100;
  specs[1].tick_budget = UINT64_C(1) << 40;
  ba_engine *engine = make(specs, 2, 0);
  send(engine, 0, 256 * 12);
  ba_actor_statistics over, under;
  ba_engine_actor_statistics(engine, 0, &over);
  ba_engine_actor_statistics(engine, 1, &under);
  ba_kind_statistics kind;
  ba_engine_kind_statistics(engine, 0, &kind);
  uint64_t samples = 0, of_kind = 0, low = 0;
  for (uint32_t b = 0; b < BA_HISTOGRAM_BUCKETS; b++) {
    samples += over.histogram[b], of_kind += kind.histogram[b];
    if (b + 1 < BA_HISTOGRAM_BUCKETS && ba_histogram_floor(b + 1) <= 2000) low += over.histogram[b];
  }
  CHECK(over.signals == 3072 && over.exceeded == 3072 && under.signals == 3072 && under.exceeded == 0, "budgets");
  CHECK(samples == 12 && of_kind == 24 && low == 0, "%llu and %llu samples, %llu too low", (unsigned long long)samples,
        (unsigned long long)of_kind, (unsigned long long)low);
  CHECK(over.ticks >= 2000 * 3072, "ticks");
  CHECK(kind.signals == 2 * 3072, "deliveries");
  ba_engine_destroy(engine);
}

static void signals_that_are_refused_a_key_are_counted_apart(void) {
  for (uint32_t shards = 0; shards < 3; shards++) {
    ba_actor_spec spec = spec_of(alpha, 2);
    spec.partition_keys_max = CAP;
    ba_engine *engine = make(&spec, 1, shards);
    for (uint32_t i = 0; i < 5; i++) send(engine, i * 1000, 1000);
    ba_engine_flush(engine, UINT64_MAX);
    ba_actor_statistics s;
    ba_kind_statistics kind;
    ba_statistics total;
    ba_engine_actor_statistics(engine, 0, &s);
    ba_engine_kind_statistics(engine, 0, &kind);
    ba_shard_statistics sum = sums(engine, &total);
    CHECK(s.refused && s.refused == sum.dropped[BA_DROP_KEY_CAP], "refused %llu", (unsigned long long)s.refused);
    CHECK(s.signals + s.refused == 5000 && kind.signals == s.signals, "given %llu", (unsigned long long)s.signals);
    CHECK(s.raised == sum.dropped[BA_DROP_RAISED] && s.raised, "raised");
    ba_engine_destroy(engine);
  }
}

static uint64_t cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void an_idle_engine_uses_no_cpu(void) {
  ba_actor_spec specs[] = {spec_of(alpha, 2), spec_of(beta, 1)};
  ba_engine *engine = make(specs, 2, 3);
  ba_subscription *s = subscribe(engine, kinds + 1, 2, 1 << 16, false);
  send(engine, 0, 100);
  ba_engine_flush(engine, UINT64_MAX);
  usleep(20000); /* spins and yields end */
  uint64_t begun = cpu_ns();
  usleep(300000);
  uint64_t used = cpu_ns() - begun;
  CHECK(used < 10000000, "%llu us of CPU time in 0.3 s", (unsigned long long)used / 1000);
  ba_unsubscribe(s);
  ba_engine_destroy(engine);
}

static void dead_letters_say_which_signal_where_and_why(void) {
  for (uint32_t shards = 0; shards < 3; shards++) {
    ba_actor_spec specs[] = {spec_of(beta, 1), spec_of(alpha, 2)};
    ba_engine *engine = make(specs, 2, shards);
    ba_signal in[7];
    for (uint64_t i = 0; i < 7; i++)
      in[i] = (ba_signal){.kind = IN, .key = i, .time = 50 + i, .value = i == 5 ? 399 : 2};
    uint32_t bad;
    send(engine, 0, 0 + 1);
    ba_engine_send(engine, in, 7, BA_FULL_WAIT, UINT64_MAX, &bad);
    ba_engine_flush(engine, UINT64_MAX);
    ba_dead_letter letters[256];
    uint32_t n = ba_engine_dead_letters(engine, letters, 256);
    CHECK(n == 1, "%u letters", n);
    CHECK(letters[0].position == 6 && letters[0].actor == 1 && letters[0].error == 41 && letters[0].wave == 0 &&
              letters[0].drop == BA_DROP_RAISED && !memcmp(&letters[0].signal, &in[5], sizeof in[5]),
          "position %llu, actor %u, error %u", (unsigned long long)letters[0].position, letters[0].actor,
          letters[0].error);
    CHECK(ba_engine_dead_letters(engine, letters, 256) == 0, "taken twice");
    ba_engine_destroy(engine);
  }
}

/* --- many at once --- */

static ba_engine *shared;
static BA_ATOMIC(uint32_t) stop;
static BA_ATOMIC(uint64_t) readings;

static void *send_on(void *argument) {
  for (uint64_t at = (uint64_t)(uintptr_t)argument; !ba_load_relaxed(&stop); at += 300) send(shared, at, 300);
  return NULL;
}

static void *read_figures(void *argument) {
  (void)argument;
  while (!ba_load_relaxed(&stop)) {
    ba_statistics total;
    sums(shared, &total);
    ba_fetch_add_relaxed(&readings, 1);
  }
  return NULL;
}

/* While it is held, nothing moves: every state is read twice. Short times, so that many pauses are given up; one in
 * eight waits. */
static void *pause_on(void *argument) {
  uint64_t which = (uint64_t)(uintptr_t)argument, held = 0;
  uint32_t offset = 0, bytes = 8;
  for (uint64_t i = 0; !ba_load_relaxed(&stop); i++) {
    uint64_t mask = i % 3 ? UINT64_MAX : ba_engine_owner_mask(shared, i), position;
    uint64_t keys[KEYS], first[KEYS], again[KEYS];
    uint8_t *one = (uint8_t *)first, *two = (uint8_t *)again;
    uint64_t wait_ns = i % 8 == 7 ? UINT64_MAX : (i * 7 + which) % 60 * 10000;
    if (ba_engine_pause(shared, mask, wait_ns, &position) != BA_OK) continue;
    held++;
    if (mask == UINT64_MAX) {
      uint64_t n = ba_engine_rows(shared, 0, keys, 1, &offset, &bytes, &one), sum = 0;
      CHECK(ba_engine_rows(shared, 0, keys, 1, &offset, &bytes, &two) == n && !memcmp(first, again, n * 8), "it moves");
      for (uint64_t k = 0; k < n; k++) sum += first[k];
      CHECK(sum == position, "%llu signals were handled at position %llu", (unsigned long long)sum,
            (unsigned long long)position);
    } else {
      const uint64_t *state = (const void *)ba_engine_find(shared, 0, i);
      uint64_t before = state ? *state : 0;
      ba_pause();
      CHECK(!state || *state == before, "it moves");
    }
    ba_engine_resume(shared);
  }
  CHECK(held, "no pause was ever had");
  return NULL;
}

static void pauses_and_figures_hold_while_senders_run(void) {
  ba_actor_spec spec = spec_of(count_at_gate, 0);
  ba_store_relaxed(&gate, 1);
  ba_store_relaxed(&stop, 0);
  ba_store_relaxed(&readings, 0);
  shared = make(&spec, 1, 3);
  pthread_t threads[7];
  for (uintptr_t t = 0; t < 2; t++) pthread_create(&threads[t], NULL, send_on, (void *)(t * 1000));
  for (uintptr_t t = 2; t < 5; t++) pthread_create(&threads[t], NULL, pause_on, (void *)t);
  for (uintptr_t t = 5; t < 7; t++) pthread_create(&threads[t], NULL, read_figures, NULL);
  usleep(1000000);
  ba_store_relaxed(&stop, 1);
  for (int t = 0; t < 7; t++) pthread_join(threads[t], NULL);
  CHECK(ba_load_relaxed(&readings) > 20, "only %llu readings", (unsigned long long)ba_load_relaxed(&readings));
  ba_engine_destroy(shared);
}

static void a_flush_in_slices_ends_while_senders_run(void) {
  ba_actor_spec spec = spec_of(slow, 0);
  ba_store_relaxed(&stop, 0);
  shared = make(&spec, 1, 1);
  pthread_t threads[2];
  for (uintptr_t t = 0; t < 2; t++) pthread_create(&threads[t], NULL, send_on, (void *)t);
  usleep(30000);
  uint64_t position = ba_engine_tail(shared), until = ba_monotonic_ns() + UINT64_C(20000000000), held_at;
  while (ba_engine_wait_handled(shared, position, 100000) == BA_TIMEOUT) CHECK(ba_monotonic_ns() < until, "flush");
  CHECK(ba_engine_pause_begin(shared, UINT64_MAX, UINT64_MAX) == BA_OK, "begin");
  position = ba_engine_tail(shared);
  while (ba_engine_pause_wait(shared, 100000, &held_at) == BA_TIMEOUT) CHECK(ba_monotonic_ns() < until, "pause");
  CHECK(held_at <= position, "the boundary moved");
  ba_engine_resume(shared);
  ba_store_relaxed(&stop, 1);
  for (int t = 0; t < 2; t++) pthread_join(threads[t], NULL);
  ba_engine_destroy(shared);
}

static void *come_and_go(void *argument) {
  (void)argument;
  uint32_t bad;
  for (uint64_t i = 0;; i++) {
    ba_subscription *s = NULL;
    ba_signal in = input(i);
    uint64_t position;
    if (ba_subscribe(shared, kinds + 1, 2, 64, true, -1, 1000000, &s) == BA_OK) ba_unsubscribe(s);
    if (ba_engine_pause(shared, UINT64_MAX, i % 2 ? UINT64_MAX : 1000000, &position) == BA_OK) ba_engine_resume(shared);
    if (ba_engine_send(shared, &in, 1, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_CLOSED) break;
  }
  return NULL;
}

static void an_engine_closes_under_pauses_and_readers_that_come_and_go(void) {
  for (int round = 0; round < 30; round++) {
    ba_actor_spec spec = spec_of(alpha, 2);
    shared = make(&spec, 1, 3);
    pthread_t threads[3];
    for (int t = 0; t < 3; t++) pthread_create(&threads[t], NULL, come_and_go, NULL);
    usleep(3000);
    ba_engine_close(shared, round % 2);
    for (int t = 0; t < 3; t++) pthread_join(threads[t], NULL);
    ba_statistics total;
    sums(shared, &total);
    ba_engine_destroy(shared);
  }
}

/* --- more emits in one step than are delivered, some of them for readers --- */

static uint32_t swell(ARGUMENTS) {
  (void)states, (void)slots;
  for (uint32_t i = 0; i < n; i++) {
    const ba_signal *in = &signals[order[i]];
    if (ctx->emit_n + 200 > ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    for (uint64_t e = 0; e < 200; e++) {
      ba_signal made = {.kind = e % 3 ? A : B, .key = in->key * 200 + e, .time = in->time, .value = e};
      ctx->emits[ctx->emit_n++] = (ba_emit){made, order[i], 0};
    }
  }
  ctx->status = BA_DONE;
  return n;
}

static void a_step_of_too_many_emits_gives_actors_and_readers_the_same_first_million(void) {
  enum { STEP = 8192 }; /* 1.6 million emits, a third outward, two thirds to actors and to a reader too */
  uint64_t digest[3], outward[3];
  static const uint32_t shards[] = {0, 1, 3};
  for (int s = 0; s < 3; s++) {
    ba_actor_spec specs[] = {spec_of(swell, 2), spec_of(count_at_gate, 0), spec_of(count_at_gate, 0)};
    specs[1].kinds = kinds + 1; /* A goes to two actors and to the reader, B to the reader alone */
    specs[2].kinds = kinds + 1;
    ba_store_relaxed(&gate, 1);
    ba_engine *engine = make(specs, 3, shards[s]);
    reader r = {.subscription = subscribe(engine, kinds + 1, 2, 1 << 12, false)};
    pthread_t thread;
    pthread_create(&thread, NULL, read_all, &r);
    send(engine, 0, STEP);
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
    ba_engine_close(engine, false);
    pthread_join(thread, NULL);
    check_grows(&r);
    ba_statistics total;
    ba_shard_statistics sum = sums(engine, &total);
    CHECK(sum.emitted == STEP * 200u && sum.emits_dropped[BA_DROP_BOUND] == STEP * 200u - BA_STEP_EMITS_MAX, "bound");
    CHECK(r.n == BA_STEP_EMITS_MAX, "%llu outputs", (unsigned long long)r.n);
    outward[s] = sum.emits_outward;
    digest[s] = 0;
    for (uint64_t i = 0; i < r.n; i++) digest[s] = ba_mix64(digest[s] ^ r.all[i].signal.key) + r.all[i].index;
    CHECK(digest[s] == digest[0] && outward[s] == outward[0], "another first million");
    free(r.all);
    ba_engine_destroy(engine);
  }
}

int main(void) {
#define RUN(test) (fputs("  " #test "\n", stderr), test())
  RUN(several_emitting_actors_give_one_order_for_any_number_of_shards);
  RUN(a_slow_reader_with_tiny_queues_stops_nobody_for_ever);
  RUN(shards_that_wait_for_different_readers_do_not_wait_in_a_circle);
  RUN(a_reader_that_drops_counts_every_output_it_did_not_get);
  RUN(shards_that_wait_for_a_reader_go_on_when_it_goes);
  RUN(closing_does_not_wait_for_a_reader_who_loses_what_has_no_room);
  RUN(a_close_that_discards_ends_flushes_and_loses_no_output_that_was_made);
  RUN(an_inline_engine_refuses_while_a_reader_is_full);
  RUN(ticks_are_sampled_one_in_256_and_budgets_are_counted);
  RUN(signals_that_are_refused_a_key_are_counted_apart);
  RUN(an_idle_engine_uses_no_cpu);
  RUN(dead_letters_say_which_signal_where_and_why);
  RUN(pauses_and_figures_hold_while_senders_run);
  RUN(a_flush_in_slices_ends_while_senders_run);
  RUN(an_engine_closes_under_pauses_and_readers_that_come_and_go);
  RUN(a_step_of_too_many_emits_gives_actors_and_readers_the_same_first_million);
  puts("test_engine_outputs: ok");
  return 0;
}
