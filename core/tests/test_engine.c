/*
 * The engine against a plain model: one queue of signals, one map of states, waves as lists. For any number of shards
 * and any secret, states, dense order, outputs with their positions and indexes, and every counter are the model's.
 *
 * Three actors: `mix` (kind IN) is non-commutative, emits to `relay` and outwards, and sometimes raises; `relay` (kinds
 * IN and HOP) adds floats in order and passes on aux times, to other keys; `capped` (kind HOP) has a key cap. Seed:
 * first argument, or the time; printed.
 */
#include <bitactor/alloc.h>
#include <bitactor/engine.h>
#include <bitactor/ticks.h>
#include <bitactor/wait.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { IN = 7, HOP = 300, OUT = 65535, KEYS = 600, ACTORS = 3, CAP = 3, SIGNALS = 30000, LETTERS = 1 };

typedef struct state {
  uint64_t hash;
  double sum;
} state;

static uint64_t seed;
static uint64_t random_state;

static uint64_t random64(void) {
  random_state += UINT64_C(0x9e3779b97f4a7c15);
  return ba_mix64(random_state);
}

/* --- what the actors do, for one signal; shared by handlers and model. Returns the emits made, or -1: raised --- */

typedef struct made {
  ba_signal signals[4];
  int n;
} made;

static void emit(made *out, uint16_t kind, uint64_t key, uint64_t value, uint32_t aux, uint64_t time) {
  out->signals[out->n++] = (ba_signal){.kind = kind, .aux = aux, .key = key % KEYS, .time = time, .value = value};
}

static int act(int actor, state *s, const ba_signal *in, made *out) {
  out->n = 0;
  s->hash = s->hash * 31 + in->value + in->aux;
  if (actor == 0) {
    if (s->hash % 11 == 0) return -1;
    if (s->hash % 2) emit(out, HOP, s->hash >> 7, s->hash, (uint32_t)(s->hash % 4), in->time);
    if (s->hash % 3 == 0) emit(out, OUT, in->key, s->hash, 1, in->time);
    if (s->hash % 5 == 0) emit(out, HOP, s->hash >> 9, s->hash ^ 1, 0, in->time);
  } else if (actor == 1) {
    s->sum += (double)in->value * 1e-3 + s->sum * 0.25;
    if (in->kind == HOP && in->aux) emit(out, HOP, s->hash >> 5, s->hash, in->aux - 1, in->time);
    if (s->hash % 4 == 0) emit(out, OUT, in->key, in->value, 2, in->time);
  } else if (s->hash % 2) {
    emit(out, OUT, in->key, s->hash, 3, in->time);
  }
  return 0;
}

static uint32_t run(int actor, ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                    const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    state *s = (state *)(void *)(states + (size_t)slots[i] * sizeof(state)), undo = *s;
    made out;
    int raised = act(actor, s, &signals[order[i]], &out);
    if (raised || ctx->emit_n + (uint32_t)out.n > ctx->emit_cap) {
      *s = undo;
      ctx->status = raised ? BA_RAISED : BA_EMIT_FULL;
      ctx->error = 77;
      return i;
    }
    for (int e = 0; e < out.n; e++) ctx->emits[ctx->emit_n++] = (ba_emit){out.signals[e], order[i], 0};
  }
  ctx->status = BA_DONE;
  return n;
}

static uint32_t mix(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(0, c, st, sl, si, o, n);
}
static uint32_t relay(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(1, c, st, sl, si, o, n);
}
static uint32_t capped(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(2, c, st, sl, si, o, n);
}

static const uint16_t kinds[] = {IN, HOP, OUT};
static const uint16_t relay_kinds[] = {IN, HOP};
static const uint8_t zero[sizeof(state)];
static const ba_actor_spec specs[ACTORS] = {
    {.handler = mix,
     .stride = sizeof(state),
     .init = zero,
     .kinds = kinds,
     .kind_count = 1,
     .emits = kinds + 1,
     .emit_count = 2},
    {.handler = relay,
     .stride = sizeof(state),
     .init = zero,
     .kinds = relay_kinds,
     .kind_count = 2,
     .emits = kinds + 1,
     .emit_count = 2},
    {.handler = capped,
     .stride = sizeof(state),
     .init = zero,
     .kinds = kinds + 1,
     .kind_count = 1,
     .emits = kinds + 2,
     .emit_count = 1,
     .partition_keys_max = CAP},
};

/* --- a result, however it came about --- */

typedef struct result {
  uint64_t keys[ACTORS][KEYS];
  state states[ACTORS][KEYS];
  uint64_t rows[ACTORS];
  ba_output *outputs;
  uint64_t outputs_n, outputs_capacity;
  ba_shard_statistics sum;
} result;

static void add_output(result *r, ba_output output) {
  if (r->outputs_n == r->outputs_capacity) {
    r->outputs_capacity = r->outputs_capacity ? r->outputs_capacity * 2 : 1024;
    r->outputs = realloc(r->outputs, r->outputs_capacity * sizeof *r->outputs);
    CHECK(r->outputs, "no memory for outputs");
  }
  r->outputs[r->outputs_n++] = output;
}

/* --- the model --- */

typedef struct model {
  int present[ACTORS][KEYS];
  state states[ACTORS][KEYS];
  uint64_t dense[ACTORS][BA_PARTITIONS][KEYS];
  uint32_t dense_n[ACTORS][BA_PARTITIONS];
} model;

typedef struct wave {
  ba_signal *signals;
  uint64_t n;
} wave;

static int handles(int actor, uint16_t kind) {
  return actor == 0 ? kind == IN : actor == 1 ? kind != OUT : kind == HOP;
}

static void model_signal(model *m, result *r, const ba_signal *in, uint64_t position, uint64_t *index, int later,
                         wave *next) {
  int failed = 0;
  uint64_t *dropped = later ? r->sum.emits_dropped : r->sum.dropped;
  uint64_t per_cause = 0;
  for (int a = 0; a < ACTORS; a++) {
    if (!handles(a, in->kind)) continue;
    unsigned p = ba_partition(in->key);
    if (!m->present[a][in->key]) {
      if (a == 2 && m->dense_n[a][p] == CAP) {
        if (!failed) dropped[BA_DROP_KEY_CAP]++;
        failed = 1;
        continue;
      }
      m->present[a][in->key] = 1;
      m->dense[a][p][m->dense_n[a][p]++] = in->key;
    }
    state undo = m->states[a][in->key];
    made out;
    if (act(a, &m->states[a][in->key], in, &out)) {
      m->states[a][in->key] = undo;
      if (!failed) dropped[BA_DROP_RAISED]++;
      failed = 1;
      continue;
    }
    for (int e = 0; e < out.n; e++) {
      r->sum.emitted++;
      uint64_t at = later ? (*index)++ : per_cause++;
      if (out.signals[e].kind == OUT) {
        r->sum.emits_outward++;
        add_output(r, (ba_output){out.signals[e], position, at});
      } else {
        next->signals[next->n++] = out.signals[e];
      }
    }
  }
  if (!failed) ++*(later ? &r->sum.emits_processed : &r->sum.processed);
}

static void model_step(model *m, result *r, const ba_signal *signals, uint32_t n, uint64_t position) {
  static ba_signal buffers[2][400000];
  wave now = {buffers[0], n};
  memcpy(now.signals, signals, n * sizeof *signals);
  for (uint64_t w = 0; now.n; w++) {
    wave next = {buffers[(w + 1) % 2], 0};
    uint64_t index = w << 32;
    for (uint64_t i = 0; i < now.n; i++) {
      CHECK(next.n < 399990, "the model's wave is too large");
      model_signal(m, r, &now.signals[i], w ? position + n - 1 : position + i, &index, w != 0, &next);
    }
    now = next;
  }
}

static void model_rows(const model *m, result *r) {
  for (int a = 0; a < ACTORS; a++) {
    for (unsigned p = 0; p < BA_PARTITIONS; p++) {
      for (uint32_t i = 0; i < m->dense_n[a][p]; i++) {
        uint64_t key = m->dense[a][p][i];
        r->keys[a][r->rows[a]] = key;
        r->states[a][r->rows[a]++] = m->states[a][key];
      }
    }
  }
}

/* --- the engine --- */

typedef struct reader {
  ba_subscription *subscription;
  result *into;
  uint32_t max;
} reader;

static void *read_all(void *argument) {
  reader *r = argument;
  ba_output batch[512];
  uint32_t n;
  int got;
  while ((got = ba_subscription_read(r->subscription, batch, r->max, UINT64_MAX, &n)) != BA_CLOSED) {
    CHECK(got == BA_OK, "result %d", got);
    for (uint32_t i = 0; i < n; i++) add_output(r->into, batch[i]);
  }
  return NULL;
}

static void take_rows(ba_engine *engine, result *r) {
  uint64_t position;
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  for (uint32_t a = 0; a < ACTORS; a++) {
    uint32_t offset = 0, bytes = sizeof(state);
    uint8_t *column = (uint8_t *)r->states[a];
    r->rows[a] = ba_engine_rows(engine, a, r->keys[a], 1, &offset, &bytes, &column);
    CHECK(r->rows[a] == ba_engine_count(engine, a), "rows and count differ");
  }
  ba_engine_resume(engine);
}

static void check_conserved(ba_engine *engine, result *r) {
  ba_statistics total;
  ba_shard_statistics shards[BA_SHARDS_MAX];
  CHECK(ba_engine_statistics(engine, &total, shards) == BA_OK, "statistics");
  memset(&r->sum, 0, sizeof r->sum);
  uint32_t n = total.shards ? total.shards : 1;
  for (uint32_t s = 0; s < n; s++) {
    r->sum.processed += shards[s].processed;
    r->sum.emitted += shards[s].emitted;
    r->sum.emits_processed += shards[s].emits_processed;
    r->sum.emits_outward += shards[s].emits_outward;
    r->sum.queued += shards[s].queued;
    for (int d = 0; d < BA_DROPS; d++) {
      r->sum.dropped[d] += shards[s].dropped[d];
      r->sum.emits_dropped[d] += shards[s].emits_dropped[d];
    }
  }
  uint64_t ends = r->sum.processed + r->sum.queued + total.dropped_full;
  for (int d = 0; d < BA_DROPS; d++) ends += r->sum.dropped[d];
  CHECK(total.accepted == ends, "accepted %llu, accounted for %llu (queued %llu)", (unsigned long long)total.accepted,
        (unsigned long long)ends, (unsigned long long)r->sum.queued);
}

static ba_engine *create(uint32_t shards, uint64_t secret, uint64_t position, uint32_t ring) {
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = 3,
                             .actors = specs,
                             .actor_count = ACTORS,
                             .shards = shards,
                             .ring_signals = ring,
                             .secret = {secret, ~secret * 3},
                             .position = position};
  ba_engine *engine;
  int made_it = ba_engine_create(&config, &engine);
  CHECK(made_it == BA_OK, "create: %d", made_it);
  return engine;
}

static void run_engine(uint32_t shards, uint64_t secret, uint64_t position, const ba_signal *signals,
                       const uint32_t *steps, uint32_t steps_n, uint32_t capacity, result *r) {
  memset(r, 0, sizeof *r);
  ba_engine *engine = create(shards, secret, position, 2 * BA_FRAME_SIGNALS);
  reader to = {.into = r, .max = 512};
  uint16_t out = OUT;
  CHECK(ba_subscribe(engine, &out, 1, capacity, false, -1, UINT64_MAX, &to.subscription) == BA_OK, "subscribe");
  pthread_t thread;
  pthread_create(&thread, NULL, read_all, &to);
  uint32_t at = 0, bad;
  for (uint32_t s = 0; s < steps_n; s++) {
    int sent;
    while ((sent = ba_engine_send(engine, signals + at, steps[s], BA_FULL_WAIT, 50000000, &bad)) == BA_TIMEOUT ||
           sent == BA_FULL) {
    }
    CHECK(sent == BA_OK, "send: %d", sent);
    at += steps[s];
    if (s % 16 == 0) check_conserved(engine, r);
  }
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
  check_conserved(engine, r);
  CHECK(r->sum.queued == 0, "queued after flush");
  take_rows(engine, r);
  ba_engine_close(engine, false);
  pthread_join(thread, NULL);
  CHECK(ba_subscription_dropped(to.subscription) == 0, "outputs dropped");
  ba_engine_destroy(engine);
}

static void compare(const result *got, const result *want, uint64_t first) {
  CHECK(got->sum.processed == want->sum.processed, "processed");
  CHECK(got->sum.emitted == want->sum.emitted, "emitted %llu, not %llu", (unsigned long long)got->sum.emitted,
        (unsigned long long)want->sum.emitted);
  CHECK(got->sum.emits_processed == want->sum.emits_processed, "emits processed");
  CHECK(got->sum.emits_outward == want->sum.emits_outward, "emits outward");
  CHECK(!memcmp(got->sum.dropped, want->sum.dropped, sizeof want->sum.dropped), "dropped");
  CHECK(!memcmp(got->sum.emits_dropped, want->sum.emits_dropped, sizeof want->sum.emits_dropped), "emits dropped");
  for (int a = 0; a < ACTORS; a++) {
    CHECK(got->rows[a] == want->rows[a], "actor %d has %llu keys, not %llu", a, (unsigned long long)got->rows[a],
          (unsigned long long)want->rows[a]);
    for (uint64_t i = 0; i < want->rows[a]; i++) {
      CHECK(got->keys[a][i] == want->keys[a][i], "actor %d row %llu: another key", a, (unsigned long long)i);
      CHECK(!memcmp(&got->states[a][i], &want->states[a][i], sizeof(state)),
            "actor %d key %llu: another state: hash %llx not %llx, sum %.17g not %.17g", a,
            (unsigned long long)want->keys[a][i], (unsigned long long)got->states[a][i].hash,
            (unsigned long long)want->states[a][i].hash, got->states[a][i].sum, want->states[a][i].sum);
    }
  }
  CHECK(got->outputs_n == want->outputs_n, "%llu outputs, not %llu", (unsigned long long)got->outputs_n,
        (unsigned long long)want->outputs_n);
  for (uint64_t i = 0; i < want->outputs_n; i++) {
    ba_output expected = want->outputs[i];
    expected.position += first;
    CHECK(!memcmp(&got->outputs[i], &expected, sizeof expected), "output %llu differs: (%llu, %llu) not (%llu, %llu)",
          (unsigned long long)i, (unsigned long long)got->outputs[i].position,
          (unsigned long long)got->outputs[i].index, (unsigned long long)expected.position,
          (unsigned long long)expected.index);
  }
}

static void any_number_of_shards_gives_the_models_state_and_outputs(void) {
  static ba_signal signals[SIGNALS];
  static uint32_t steps[SIGNALS];
  static model m;
  static result want, got;
  memset(&m, 0, sizeof m);
  memset(&want, 0, sizeof want);
  uint32_t steps_n = 0;
  for (uint32_t i = 0; i < SIGNALS; i++) {
    signals[i] = (ba_signal){.kind = random64() % 5 ? IN : HOP,
                             .aux = (uint32_t)(random64() % 3),
                             .key = random64() % KEYS,
                             .time = i,
                             .value = random64() >> 40};
    if (random64() % 40 == 0) signals[i].kind = OUT; /* nobody handles it */
  }
  for (uint32_t at = 0; at < SIGNALS; steps_n++) {
    uint32_t most = random64() % 4 ? 2000 : 3;
    steps[steps_n] = 1 + (uint32_t)(random64() % most);
    if (steps[steps_n] > SIGNALS - at) steps[steps_n] = SIGNALS - at;
    at += steps[steps_n];
  }
  for (uint32_t s = 0, at = 0; s < steps_n; at += steps[s++]) {
    /* The model counts an unhandled signal itself: no actor loops over it. */
    model_step(&m, &want, signals + at, steps[s], at);
  }
  uint64_t unhandled = 0;
  for (uint32_t i = 0; i < SIGNALS; i++) unhandled += signals[i].kind == OUT;
  want.sum.processed -= unhandled;
  want.sum.dropped[BA_DROP_UNHANDLED] = unhandled;
  model_rows(&m, &want);
  CHECK(want.outputs_n > 1000 && want.sum.emits_dropped[BA_DROP_KEY_CAP] && want.sum.dropped[BA_DROP_RAISED], "dull");
  static const uint32_t shards[] = {0, 1, 2, 7};
  for (int s = 0; s < 4; s++) {
    for (int secret = 0; secret < 2; secret++) {
      /* The second run begins near 2^64, so that positions wrap, and has a tiny output queue, so that shards wait. */
      uint64_t first = secret ? UINT64_MAX - SIGNALS / 2 : 0;
      run_engine(shards[s], secret ? 12345 : seed, first, signals, steps, steps_n, secret ? 4 : 65536, &got);
      compare(&got, &want, first);
      free(got.outputs);
    }
  }
  free(want.outputs);
}

/* --- two producers --- */

static ba_engine *shared_engine;

static void *produce(void *argument) {
  uint64_t who = (uint64_t)(uintptr_t)argument;
  ba_signal batch[100];
  for (uint64_t i = 0; i < 300; i++) {
    for (uint64_t k = 0; k < 100; k++) {
      batch[k] = (ba_signal){.kind = IN, .key = who, .time = i * 100 + k, .value = i * 100 + k};
    }
    uint32_t bad;
    CHECK(ba_engine_send(shared_engine, batch, 100, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
  }
  return NULL;
}

static uint32_t in_order(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                         const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    state *s = (state *)(void *)(states + (size_t)slots[i] * sizeof(state));
    s->sum += s->hash == signals[order[i]].value; /* counts the signals that came in their turn */
    s->hash = signals[order[i]].value + 1;
  }
  ctx->status = BA_DONE;
  return n;
}

static void producers_keep_their_order_and_lose_nothing(void) {
  ba_actor_spec spec = {.handler = in_order, .stride = sizeof(state), .init = zero, .kinds = kinds, .kind_count = 1};
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = 1,
                             .actors = &spec,
                             .actor_count = 1,
                             .shards = 2,
                             .ring_signals = 2 * BA_FRAME_SIGNALS};
  CHECK(ba_engine_create(&config, &shared_engine) == BA_OK, "create");
  enum { PRODUCERS = 4 };
  pthread_t threads[PRODUCERS];
  for (uintptr_t p = 0; p < PRODUCERS; p++) pthread_create(&threads[p], NULL, produce, (void *)(p + 1));
  for (int i = 0; i < 50; i++) {
    result r;
    check_conserved(shared_engine, &r);
  }
  for (int p = 0; p < PRODUCERS; p++) pthread_join(threads[p], NULL);
  uint64_t position;
  CHECK(ba_engine_pause(shared_engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  CHECK(position == PRODUCERS * 30000, "position %llu", (unsigned long long)position);
  for (uint64_t p = 1; p <= PRODUCERS; p++) {
    const state *s = (const void *)ba_engine_find(shared_engine, 0, p);
    CHECK(s && s->hash == 30000 && s->sum == 30000.0, "producer %llu: %f in order", (unsigned long long)p,
          s ? s->sum : -1);
  }
  ba_engine_resume(shared_engine);
  ba_engine_destroy(shared_engine);
}

/* --- bad input, full rings, runaways --- */

static void bad_signals_are_refused_with_their_index(void) {
  ba_engine *engine = create(1, 1, 0, 0);
  ba_signal batch[3] = {{.kind = IN}, {.kind = IN}, {.kind = 9}};
  uint32_t bad = 99;
  CHECK(ba_engine_send(engine, batch, 3, BA_FULL_WAIT, 0, &bad) == BA_BAD_KIND && bad == 2, "kind, at %u", bad);
  batch[2].kind = IN;
  batch[1].flags = 4;
  CHECK(ba_engine_send(engine, batch, 3, BA_FULL_WAIT, 0, &bad) == BA_BAD_FLAGS && bad == 1, "flags, at %u", bad);
  ba_statistics total;
  ba_shard_statistics shards[BA_SHARDS_MAX];
  ba_engine_statistics(engine, &total, shards);
  CHECK(total.accepted == 0, "something was accepted");
  ba_engine_close(engine, false);
  CHECK(ba_engine_send(engine, batch, 1, BA_FULL_WAIT, 0, &bad) == BA_CLOSED, "closed");
  ba_engine_destroy(engine);
}

static BA_ATOMIC(uint32_t) gate;

static uint32_t wait_at_gate(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                             const uint16_t *order, uint32_t n) {
  (void)states, (void)slots, (void)signals, (void)order;
  while (!ba_load_acquire(&gate)) ba_pause();
  ctx->status = BA_DONE;
  return n;
}

static void a_full_ring_waits_refuses_or_drops_and_counts(void) {
  ba_actor_spec spec = {.handler = wait_at_gate, .stride = 8, .init = zero, .kinds = kinds, .kind_count = 1};
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = 1,
                             .actors = &spec,
                             .actor_count = 1,
                             .shards = 1,
                             .ring_signals = 2 * BA_FRAME_SIGNALS};
  ba_engine *engine;
  ba_store_relaxed(&gate, 0);
  CHECK(ba_engine_create(&config, &engine) == BA_OK, "create");
  static ba_signal frame[BA_FRAME_SIGNALS];
  for (int i = 0; i < BA_FRAME_SIGNALS; i++) frame[i].kind = IN;
  uint32_t bad;
  CHECK(ba_engine_send(engine, frame, BA_FRAME_SIGNALS, BA_FULL_WAIT, 0, &bad) == BA_OK, "first");
  CHECK(ba_engine_send(engine, frame, BA_FRAME_SIGNALS, BA_FULL_WAIT, 0, &bad) == BA_OK, "second");
  CHECK(ba_engine_send(engine, frame, 10, BA_FULL_WAIT, 1000000, &bad) == BA_TIMEOUT, "waits");
  CHECK(ba_engine_send(engine, frame, 10, BA_FULL_REFUSE, 0, &bad) == BA_FULL, "refuses");
  CHECK(ba_engine_send(engine, frame, 7, BA_FULL_DROP, 0, &bad) == BA_FULL, "drops");
  uint64_t position;
  CHECK(ba_engine_pause(engine, UINT64_MAX, 1000000, &position) == BA_TIMEOUT, "a pause that cannot be had ends");
  ba_statistics total;
  ba_shard_statistics shards[BA_SHARDS_MAX];
  ba_engine_statistics(engine, &total, shards);
  CHECK(total.accepted == 2 * BA_FRAME_SIGNALS + 7 && total.refused == 10 && total.dropped_full == 7, "counts");
  CHECK(shards[0].queued == 2 * BA_FRAME_SIGNALS, "queued %llu", (unsigned long long)shards[0].queued);
  ba_store_release(&gate, 1);
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
  result r;
  check_conserved(engine, &r);
  ba_engine_destroy(engine);
}

static uint32_t flood(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                      const uint16_t *order, uint32_t n) {
  (void)states, (void)slots;
  for (uint32_t i = 0; i < n; i++) {
    if (ctx->emit_n + 100 > ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    for (uint64_t e = 0; e < 100; e++) {
      ba_signal out = signals[order[i]];
      out.key = out.key * 100 + e;
      ctx->emits[ctx->emit_n++] = (ba_emit){out, order[i], 0};
    }
    ++*(uint64_t *)(void *)(states + (size_t)slots[i] * 8);
  }
  ctx->status = BA_DONE;
  return n;
}

static void a_runaway_step_ends_at_the_same_place_for_any_number_of_shards(void) {
  ba_actor_spec spec = {.handler = flood,
                        .stride = 8,
                        .init = zero,
                        .kinds = kinds,
                        .kind_count = 1,
                        .emits = kinds,
                        .emit_count = 1,
                        .partition_keys_max = 1000};
  uint64_t digests[3] = {0}, counts[3][3];
  static const uint32_t shards[] = {0, 2, 5};
  for (int s = 0; s < 3; s++) {
    ba_engine_config config = {.kinds = kinds,
                               .kind_count = 1,
                               .actors = &spec,
                               .actor_count = 1,
                               .shards = shards[s],
                               .secret = {seed, (uint64_t)s}};
    ba_engine *engine;
    CHECK(ba_engine_create(&config, &engine) == BA_OK, "create");
    ba_signal in = {.kind = IN, .key = 3};
    uint32_t bad;
    CHECK(ba_engine_send(engine, &in, 1, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
    uint64_t position;
    CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
    uint64_t rows = ba_engine_count(engine, 0);
    uint64_t *keys = calloc(rows, 8), *values = calloc(rows, 8);
    uint32_t offset = 0, bytes = 8;
    uint8_t *column = (uint8_t *)values;
    ba_engine_rows(engine, 0, keys, 1, &offset, &bytes, &column);
    for (uint64_t i = 0; i < rows; i++) digests[s] = ba_mix64(digests[s] ^ keys[i]) + values[i];
    free(keys);
    free(values);
    ba_engine_resume(engine);
    result r;
    check_conserved(engine, &r);
    counts[s][0] = r.sum.emitted;
    counts[s][1] = r.sum.emits_dropped[BA_DROP_BOUND];
    counts[s][2] = r.sum.emits_processed + r.sum.emits_dropped[BA_DROP_KEY_CAP];
    CHECK(counts[s][2] == BA_STEP_EMITS_MAX, "%llu emits were delivered", (unsigned long long)counts[s][2]);
    CHECK(r.sum.emitted ==
              r.sum.emits_processed + r.sum.emits_dropped[BA_DROP_BOUND] + r.sum.emits_dropped[BA_DROP_KEY_CAP],
          "emits are accounted for");
    ba_engine_destroy(engine);
  }
  for (int s = 1; s < 3; s++) {
    CHECK(digests[s] == digests[0], "state after a runaway differs");
    CHECK(!memcmp(counts[s], counts[0], sizeof counts[0]), "counts after a runaway differ");
  }
}

static uint32_t forever(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                        const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    ++*(uint64_t *)(void *)(states + (size_t)slots[i] * 8);
    ctx->emits[ctx->emit_n++] = (ba_emit){signals[order[i]], order[i], 0};
  }
  ctx->status = BA_DONE;
  return n;
}

static void a_signal_that_echoes_for_ever_is_stopped_after_64_waves(void) {
  ba_actor_spec spec = {
      .handler = forever, .stride = 8, .init = zero, .kinds = kinds, .kind_count = 1, .emits = kinds, .emit_count = 1};
  for (uint32_t shards = 0; shards < 4; shards++) {
    ba_engine_config config = {.kinds = kinds, .kind_count = 1, .actors = &spec, .actor_count = 1, .shards = shards};
    ba_engine *engine;
    CHECK(ba_engine_create(&config, &engine) == BA_OK, "create");
    ba_signal in[5] = {{.kind = IN, .key = 1},
                       {.kind = IN, .key = 2},
                       {.kind = IN, .key = 3},
                       {.kind = IN, .key = 4},
                       {.kind = IN, .key = 5}};
    uint32_t bad;
    CHECK(ba_engine_send(engine, in, 5, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
    result r;
    check_conserved(engine, &r);
    CHECK(r.sum.emits_processed == 5 * 63 && r.sum.emits_dropped[BA_DROP_BOUND] == 5, "%llu, %llu",
          (unsigned long long)r.sum.emits_processed, (unsigned long long)r.sum.emits_dropped[BA_DROP_BOUND]);
    ba_engine_destroy(engine);
  }
}

/* --- expiry --- */

static uint32_t count_up(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                         const uint16_t *order, uint32_t n) {
  (void)signals, (void)order;
  for (uint32_t i = 0; i < n; i++) ++*(uint64_t *)(void *)(states + (size_t)slots[i] * 8);
  ctx->status = BA_DONE;
  return n;
}

static void idle_keys_expire_by_the_wall_time_of_steps(void) {
  ba_actor_spec spec = {
      .handler = count_up, .stride = 8, .init = zero, .kinds = kinds, .kind_count = 1, .idle_ns = UINT64_C(1000000000)};
  for (uint32_t shards = 0; shards < 3; shards++) {
    ba_engine_config config = {
        .kinds = kinds, .kind_count = 1, .actors = &spec, .actor_count = 1, .shards = shards, .manual_clock = true};
    ba_engine *engine;
    CHECK(ba_engine_create(&config, &engine) == BA_OK, "create");
    uint64_t now = UINT64_C(1800000000000000000), position;
    uint32_t bad;
    ba_signal in = {.kind = IN};
    for (uint64_t key = 0; key < 100; key++) {
      in.key = key;
      ba_engine_set_wall(engine, now + key * 1000000);
      ba_engine_send(engine, &in, 1, BA_FULL_WAIT, UINT64_MAX, &bad);
    }
    ba_engine_set_wall(engine, now + UINT64_C(900000000));
    in.key = 7; /* touched again: lives on */
    ba_engine_send(engine, &in, 1, BA_FULL_WAIT, UINT64_MAX, &bad);
    ba_engine_set_wall(engine, now + UINT64_C(1200000000));
    in.key = 1000;
    ba_engine_send(engine, &in, 1, BA_FULL_WAIT, UINT64_MAX, &bad);
    ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position);
    CHECK(ba_engine_count(engine, 0) == 2, "%llu keys are left", (unsigned long long)ba_engine_count(engine, 0));
    const uint8_t *kept = ba_engine_find(engine, 0, 7);
    CHECK(kept && *(const uint64_t *)(const void *)kept == 2, "the key touched again kept its state");
    CHECK(!ba_engine_find(engine, 0, 8), "the idle key is gone");
    ba_engine_resume(engine);
    ba_engine_destroy(engine);
  }
}

static void every_failed_allocation_is_an_error_code(void) {
  uint32_t refused = 0;
  for (uint64_t n = 1; n < 200; n++) {
    ba_alloc_fail_every(n);
    ba_engine_config config = {.kinds = kinds, .kind_count = 3, .actors = specs, .actor_count = ACTORS, .shards = 1};
    ba_engine *engine;
    int created = ba_engine_create(&config, &engine);
    CHECK(created == BA_OK || created == BA_NO_MEMORY, "create: %d", created);
    refused += created != BA_OK;
    if (created == BA_OK) {
      ba_signal batch[200];
      for (uint64_t i = 0; i < 200; i++) batch[i] = (ba_signal){.kind = IN, .key = random64() % KEYS, .value = i};
      uint32_t bad;
      CHECK(ba_engine_send(engine, batch, 200, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
      CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
      result r;
      check_conserved(engine, &r);
    }
    ba_engine_destroy(engine);
  }
  ba_alloc_fail_every(0);
  CHECK(refused > 10, "only %u creations met a failed allocation", refused);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  random_state = seed;
  printf("test_engine: seed %llu\n", (unsigned long long)seed);
  fflush(stdout);
  for (int round = 0; round < 3; round++) any_number_of_shards_gives_the_models_state_and_outputs();
  producers_keep_their_order_and_lose_nothing();
  bad_signals_are_refused_with_their_index();
  a_full_ring_waits_refuses_or_drops_and_counts();
  a_runaway_step_ends_at_the_same_place_for_any_number_of_shards();
  a_signal_that_echoes_for_ever_is_stopped_after_64_waves();
  idle_keys_expire_by_the_wall_time_of_steps();
  every_failed_allocation_is_an_error_code();
  puts("test_engine: ok");
  return 0;
}
