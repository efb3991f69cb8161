/*
 * Engines of lanes against a plain model of them: what they refuse, what their actors emit to keys of other lanes and
 * in which order, what they count. The emits are carried between the engines in one fixed schedule, and by the model
 * too.
 *
 * Two actors: `walk` (kinds IN and HOP) passes signals on to other keys as often as aux says, emits outwards, and
 * sometimes raises; `tally` (kind HOP) emits outwards. Seed: first argument, or the time; printed.
 */
#include <bitactor/engine.h>
#include <bitactor/state.h>
#include <bitactor/wait.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { IN = 7, HOP = 300, OUT = 65535, KEYS = 300, ACTORS = 2, SIGNALS = 12000, ROUNDS_MAX = 200, OUTPUTS = 16384 };

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

static void emit(made *out, uint16_t kind, uint64_t key, uint64_t value, uint32_t aux) {
  out->signals[out->n++] = (ba_signal){.kind = kind, .aux = aux, .key = key % KEYS, .time = value ^ 5, .value = value};
}

static int act(int actor, uint64_t *hash, const ba_signal *in, made *out) {
  out->n = 0;
  *hash = *hash * 31 + in->value + in->aux + in->kind;
  uint64_t h = ba_mix64(*hash);
  if (actor == 1) {
    if (h % 2) emit(out, OUT, in->key, h, 3);
    return out->n;
  }
  if (h % 13 == 0) return -1;
  if (in->aux) emit(out, HOP, h >> 7, h, in->aux - 1);
  if (h % 3 == 0) emit(out, OUT, h >> 11, h, 1);
  if (in->aux && h % 5 < 2) emit(out, HOP, h >> 9, h + 1, 0);
  return out->n;
}

static uint32_t run(int actor, ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                    const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    uint64_t *hash = (uint64_t *)(void *)(states + (size_t)slots[i] * sizeof *hash), undo = *hash;
    made out;
    int emits = act(actor, hash, &signals[order[i]], &out);
    if (emits < 0 || ctx->emit_n + (uint32_t)out.n > ctx->emit_cap) {
      *hash = undo;
      ctx->status = emits < 0 ? BA_RAISED : BA_EMIT_FULL;
      return i;
    }
    for (int e = 0; e < out.n; e++) ctx->emits[ctx->emit_n++] = (ba_emit){out.signals[e], order[i], 0};
  }
  ctx->status = BA_DONE;
  return n;
}

static uint32_t walk(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(0, c, st, sl, si, o, n);
}
static uint32_t tally(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(1, c, st, sl, si, o, n);
}

static const uint16_t kinds[] = {IN, HOP, OUT};
static const uint8_t zero[sizeof(uint64_t)];
static const ba_actor_spec specs[ACTORS] = {
    {.handler = walk, .stride = 8, .init = zero, .kinds = kinds, .kind_count = 2, .emits = kinds + 1, .emit_count = 2},
    {.handler = tally,
     .stride = 8,
     .init = zero,
     .kinds = kinds + 1,
     .kind_count = 1,
     .emits = kinds + 2,
     .emit_count = 1},
};

static ba_engine *create(const ba_actor_spec *actors, uint32_t n, uint32_t shards, uint64_t secret, uint32_t lane,
                         uint32_t lanes) {
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = 3,
                             .actors = actors,
                             .actor_count = n,
                             .shards = shards,
                             .secret = {secret, ~secret * 3},
                             .manual_clock = true,
                             .lane = lane,
                             .lanes = lanes};
  ba_engine *engine;
  int result = ba_engine_create(&config, &engine);
  CHECK(result == BA_OK, "create: %d", result);
  return engine;
}

static ba_subscription *subscribe_remote(ba_engine *engine, uint32_t capacity) {
  ba_subscription *s;
  uint64_t position;
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  int result = ba_subscribe_remote_paused(engine, capacity, -1, &s);
  ba_engine_resume(engine);
  CHECK(result == BA_OK, "subscribe: %d", result);
  return s;
}

static ba_shard_statistics sums(ba_engine *engine, uint64_t *accepted) {
  ba_statistics total;
  ba_shard_statistics shards[BA_SHARDS_MAX], sum = {0};
  CHECK(ba_engine_statistics(engine, &total, shards) == BA_OK, "statistics");
  for (uint32_t s = 0; s < (total.shards ? total.shards : 1); s++) {
    sum.processed += shards[s].processed;
    sum.queued += shards[s].queued;
    sum.emitted += shards[s].emitted;
    sum.emits_processed += shards[s].emits_processed;
    sum.emits_outward += shards[s].emits_outward;
    sum.emits_remote += shards[s].emits_remote;
    for (int d = 0; d < BA_DROPS; d++) {
      sum.dropped[d] += shards[s].dropped[d];
      sum.emits_dropped[d] += shards[s].emits_dropped[d];
    }
  }
  uint64_t in = sum.processed + sum.queued, out = sum.emits_processed + sum.emits_outward + sum.emits_remote;
  for (int d = 0; d < BA_DROPS; d++) {
    in += sum.dropped[d];
    out += sum.emits_dropped[d];
  }
  CHECK(total.accepted == in, "accepted is not conserved");
  CHECK(sum.emitted == out, "%llu emitted, %llu accounted for", (unsigned long long)sum.emitted,
        (unsigned long long)out);
  if (accepted) *accepted = total.accepted;
  return sum;
}

/* --- a lane's result, however it came about --- */

typedef struct list {
  ba_output *items;
  uint64_t n, capacity;
} list;

static void add(list *to, ba_output output) {
  if (to->n == to->capacity) {
    to->capacity = to->capacity ? to->capacity * 2 : 256;
    to->items = realloc(to->items, to->capacity * sizeof *to->items);
    CHECK(to->items, "no memory");
  }
  to->items[to->n++] = output;
}

typedef struct result {
  list outward, hops, remote;
  uint64_t keys[ACTORS][KEYS], hashes[ACTORS][KEYS], rows[ACTORS];
  ba_shard_statistics sum;
} result;

static void forget(result *r) {
  free(r->outward.items);
  free(r->hops.items);
  free(r->remote.items);
  memset(r, 0, sizeof *r);
}

/* --- a lane, as a plain model or an engine, with what waits for it --- */

typedef struct lane {
  uint32_t index, lanes;
  list pending; /* emits of other lanes, in the order in which they were carried */
  uint64_t position;
  result got;
  /* the model's */
  int present[ACTORS][KEYS];
  uint64_t hashes[ACTORS][KEYS];
  uint64_t dense[ACTORS][BA_PARTITIONS][KEYS];
  uint32_t dense_n[ACTORS][BA_PARTITIONS];
  /* the engine's; null: the model */
  ba_engine *engine;
  ba_subscription *outward, *hops, *remote;
} lane;

static int handles(int actor, uint16_t kind) { return kind == HOP || (actor == 0 && kind == IN); }

static void model_signal(lane *l, const ba_signal *in, uint64_t position, uint64_t *index, int later, list *next) {
  uint64_t per_cause = 0;
  int failed = 0;
  for (int a = 0; a < ACTORS; a++) {
    if (!handles(a, in->kind)) continue;
    unsigned p = ba_partition(in->key);
    if (!l->present[a][in->key]) {
      l->present[a][in->key] = 1;
      l->dense[a][p][l->dense_n[a][p]++] = in->key;
    }
    uint64_t undo = l->hashes[a][in->key];
    made out;
    if (act(a, &l->hashes[a][in->key], in, &out) < 0) {
      l->hashes[a][in->key] = undo;
      failed = 1;
      continue;
    }
    for (int e = 0; e < out.n; e++) {
      ba_output output = {out.signals[e], position, later ? (*index)++ : per_cause++};
      l->got.sum.emitted++;
      if (output.signal.kind == OUT) {
        l->got.sum.emits_outward++;
        add(&l->got.outward, output);
        continue;
      }
      add(&l->got.hops, output);
      if (ba_partition(output.signal.key) % l->lanes == l->index) {
        add(next, output);
      } else {
        l->got.sum.emits_remote++;
        add(&l->got.remote, output);
      }
    }
  }
  if (failed) {
    (later ? l->got.sum.emits_dropped : l->got.sum.dropped)[BA_DROP_RAISED]++;
  } else {
    ++*(later ? &l->got.sum.emits_processed : &l->got.sum.processed);
  }
}

static void model_step(lane *l, const ba_signal *signals, uint32_t n) {
  list now = {0}, next = {0};
  for (uint32_t i = 0; i < n; i++) add(&now, (ba_output){signals[i], 0, 0});
  for (uint64_t wave = 0; now.n; wave++) {
    uint64_t index = wave << 32;
    for (uint64_t i = 0; i < now.n; i++) {
      uint64_t position = l->position + (wave ? n - 1 : i);
      model_signal(l, &now.items[i].signal, position, &index, wave != 0, &next);
    }
    list swap = now;
    now = next;
    next = swap;
    next.n = 0;
  }
  free(now.items);
  free(next.items);
}

static void read_new(ba_subscription *s, list *to) {
  ba_output batch[100];
  uint32_t n;
  while (ba_subscription_read(s, batch, 100, 0, &n) == BA_OK) {
    for (uint32_t i = 0; i < n; i++) add(to, batch[i]);
  }
}

static void engine_step(lane *l, const ba_signal *signals, uint32_t n) {
  uint32_t bad;
  CHECK(ba_engine_send(l->engine, signals, n, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
  CHECK(ba_engine_flush(l->engine, UINT64_MAX) == BA_OK, "flush");
  read_new(l->outward, &l->got.outward);
  read_new(l->hops, &l->got.hops);
  read_new(l->remote, &l->got.remote);
}

static void finish(lane *l) {
  for (int a = 0; a < ACTORS; a++) {
    result *r = &l->got;
    if (l->engine) {
      uint32_t offset = 0, bytes = 8;
      uint8_t *column = (uint8_t *)r->hashes[a];
      uint64_t position;
      CHECK(ba_engine_pause(l->engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
      r->rows[a] = ba_engine_rows(l->engine, (uint32_t)a, r->keys[a], 1, &offset, &bytes, &column);
      for (uint64_t i = 0; i < r->rows[a]; i++) {
        CHECK(ba_engine_find(l->engine, (uint32_t)a, r->keys[a][i]), "key %llu", (unsigned long long)r->keys[a][i]);
      }
      ba_engine_resume(l->engine);
    } else {
      for (unsigned p = 0; p < BA_PARTITIONS; p++) {
        for (uint32_t i = 0; i < l->dense_n[a][p]; i++) {
          uint64_t key = l->dense[a][p][i];
          r->keys[a][r->rows[a]] = key;
          r->hashes[a][r->rows[a]++] = l->hashes[a][key];
        }
      }
    }
  }
  if (l->engine) l->got.sum = sums(l->engine, NULL);
}

/* --- lanes together --- */

/* Every round each lane in turn takes what was carried to it, and its part of the next inputs; what it emits to others
 * waits for their next turn. Returns the rounds that it took until nothing waited. */
static int run_lanes(lane *lanes, uint32_t count, const ba_signal *signals, uint32_t n, uint32_t a_round) {
  static ba_signal step[BA_FRAME_SIGNALS];
  int rounds = 0;
  uint64_t waiting = 1;
  for (uint32_t at = 0; at < n || waiting; rounds++) {
    CHECK(rounds < ROUNDS_MAX, "emits that never end");
    uint32_t end = n - at < a_round ? n : at + a_round;
    for (uint32_t l = 0; l < count; l++) {
      lane *of = &lanes[l];
      uint32_t m = 0;
      for (uint64_t i = 0; i < of->pending.n; i++) step[m++] = of->pending.items[i].signal;
      of->pending.n = 0;
      for (uint32_t i = at; i < end; i++) {
        if (ba_partition(signals[i].key) % count == l) step[m++] = signals[i];
      }
      CHECK(m <= BA_FRAME_SIGNALS, "a round of %u signals", m);
      uint64_t before = of->got.remote.n;
      if (!m) continue;
      (of->engine ? engine_step : model_step)(of, step, m);
      of->position += m;
      for (uint64_t i = before; i < of->got.remote.n; i++) {
        ba_output carried = of->got.remote.items[i];
        add(&lanes[ba_partition(carried.signal.key) % count].pending, carried);
      }
    }
    at = end;
    waiting = 0;
    for (uint32_t l = 0; l < count; l++) waiting += lanes[l].pending.n;
  }
  for (uint32_t l = 0; l < count; l++) finish(&lanes[l]);
  return rounds;
}

static void same_outputs(const list *got, const list *want, const char *what, uint32_t l) {
  CHECK(got->n == want->n, "lane %u: %llu %s, not %llu", l, (unsigned long long)got->n, what,
        (unsigned long long)want->n);
  for (uint64_t i = 0; i < want->n; i++) {
    CHECK(!memcmp(&got->items[i], &want->items[i], sizeof *want->items),
          "lane %u, %s %llu: (%llu, %llu) not (%llu, %llu)", l, what, (unsigned long long)i,
          (unsigned long long)got->items[i].position, (unsigned long long)got->items[i].index,
          (unsigned long long)want->items[i].position, (unsigned long long)want->items[i].index);
  }
}

static void compare(const result *got, const result *want, uint32_t l) {
  same_outputs(&got->outward, &want->outward, "outward", l);
  same_outputs(&got->hops, &want->hops, "of a handled kind", l);
  same_outputs(&got->remote, &want->remote, "remote", l);
  CHECK(got->sum.processed == want->sum.processed && got->sum.emitted == want->sum.emitted &&
            got->sum.emits_processed == want->sum.emits_processed &&
            got->sum.emits_outward == want->sum.emits_outward && got->sum.emits_remote == want->sum.emits_remote,
        "lane %u: counts", l);
  CHECK(!memcmp(got->sum.dropped, want->sum.dropped, sizeof want->sum.dropped) &&
            !memcmp(got->sum.emits_dropped, want->sum.emits_dropped, sizeof want->sum.emits_dropped),
        "lane %u: drops", l);
  for (int a = 0; a < ACTORS; a++) {
    CHECK(got->rows[a] == want->rows[a], "lane %u, actor %d: %llu keys", l, a, (unsigned long long)got->rows[a]);
    CHECK(!memcmp(got->keys[a], want->keys[a], 8 * want->rows[a]), "lane %u, actor %d: other keys or order", l, a);
    CHECK(!memcmp(got->hashes[a], want->hashes[a], 8 * want->rows[a]), "lane %u, actor %d: other states", l, a);
  }
}

static ba_subscription *subscribe_kind(ba_engine *engine, uint16_t kind) {
  ba_subscription *s;
  CHECK(ba_subscribe(engine, &kind, 1, OUTPUTS, false, -1, UINT64_MAX, &s) == BA_OK, "subscribe");
  return s;
}

static void lanes_are_those_of_the_model(uint32_t count, const ba_signal *signals, uint32_t n) {
  static const uint32_t shards[] = {0, 2, 7, 1};
  lane *want = calloc(count, sizeof *want);
  CHECK(want, "no memory");
  for (uint32_t l = 0; l < count; l++) want[l].index = l, want[l].lanes = count;
  int rounds = run_lanes(want, count, signals, n, 3000);
  uint64_t remote = 0, here = 0;
  for (uint32_t l = 0; l < count; l++) {
    remote += want[l].got.sum.emits_remote;
    here += want[l].got.sum.emits_processed;
    CHECK(want[l].got.sum.emits_dropped[BA_DROP_RAISED] || count > 4, "dull");
  }
  CHECK(count == 1 ? remote == 0 && here > 1000 : remote > 1000 && (here > 100 || count == 64), "dull: %llu, %llu",
        (unsigned long long)remote, (unsigned long long)here);
  for (int s = 0; s < (count > 16 ? 2 : 4); s++) { /* many engines of many threads take long to make */
    lane *got = calloc(count, sizeof *got);
    CHECK(got, "no memory");
    for (uint32_t l = 0; l < count; l++) {
      got[l].index = l, got[l].lanes = count;
      got[l].engine = create(specs, ACTORS, shards[s], s % 2 ? 12345 : seed, l, count);
      got[l].outward = subscribe_kind(got[l].engine, OUT);
      got[l].hops = subscribe_kind(got[l].engine, HOP);
      got[l].remote = subscribe_remote(got[l].engine, OUTPUTS);
    }
    CHECK(run_lanes(got, count, signals, n, 3000) == rounds, "other rounds");
    for (uint32_t l = 0; l < count; l++) {
      compare(&got[l].got, &want[l].got, l);
      CHECK(ba_subscription_dropped(got[l].remote) == 0, "remote emits dropped");
      ba_engine_destroy(got[l].engine);
      forget(&got[l].got);
      free(got[l].pending.items);
    }
    free(got);
  }
  for (uint32_t l = 0; l < count; l++) {
    forget(&want[l].got);
    free(want[l].pending.items);
  }
  free(want);
}

static void any_lanes_shards_and_secret_give_the_models_state_and_emits(void) {
  static ba_signal signals[SIGNALS];
  for (uint32_t i = 0; i < SIGNALS; i++) {
    signals[i] = (ba_signal){.kind = random64() % 5 ? IN : HOP,
                             .aux = (uint32_t)(random64() % 4),
                             .key = random64() % KEYS,
                             .time = i,
                             .value = random64() >> 40};
  }
  lanes_are_those_of_the_model(1, signals, SIGNALS);
  lanes_are_those_of_the_model(2, signals, SIGNALS);
  lanes_are_those_of_the_model(16, signals, SIGNALS);
  lanes_are_those_of_the_model(64, signals, SIGNALS / 4);
}

/* --- what is refused --- */

static uint64_t key_of(uint32_t index, uint32_t lanes, uint64_t from) {
  while (ba_partition(from) % lanes != index) from++;
  return from;
}

/* How many shards have handled something: a lane of sixteen has four partitions to deal out. */
static uint32_t busy(ba_engine *engine) {
  ba_statistics total;
  ba_shard_statistics shards[BA_SHARDS_MAX];
  CHECK(ba_engine_statistics(engine, &total, shards) == BA_OK, "statistics");
  uint32_t n = 0;
  for (uint32_t s = 0; s < (total.shards ? total.shards : 1); s++) n += shards[s].processed != 0;
  return n;
}

static void a_signal_of_another_lane_is_refused_before_anything_is_admitted(void) {
  enum { N = 20000 };
  static ba_signal signals[N];
  for (uint64_t i = 0, key = 0; i < N; i++, key++) {
    key = key_of(3, 16, key);
    signals[i] = (ba_signal){.kind = IN, .key = key};
  }
  const uint64_t other = key_of(4, 16, 0);
  static const uint32_t shards[] = {0, 1, 2, 7};
  for (int s = 0; s < 4; s++) {
    ba_engine *engine = create(specs, ACTORS, shards[s], seed, 3, 16);
    uint64_t accepted, done = 0, kept;
    uint32_t bad = 0;
    kept = signals[15000].key;
    signals[15000].key = other;
    CHECK(ba_engine_apply(engine, signals, N, 5, UINT64_MAX, &done, &bad) == BA_WRONG_LANE && done == 0 && bad == 15000,
          "apply: done %llu, bad %u", (unsigned long long)done, bad);
    signals[15000].key = kept;
    kept = signals[700].key;
    signals[700].key = other;
    CHECK(
        ba_engine_apply(engine, signals, 1000, 5, UINT64_MAX, &done, &bad) == BA_WRONG_LANE && done == 0 && bad == 700,
        "apply of one step: bad %u", bad);
    CHECK(ba_engine_send(engine, signals, 1000, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_WRONG_LANE && bad == 700,
          "send: bad %u", bad);
    signals[600].kind = 9;
    CHECK(ba_engine_send(engine, signals, 1000, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_BAD_KIND && bad == 600, "kind");
    signals[600].kind = HOP;
    CHECK(ba_engine_send(engine, signals, 1000, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_WRONG_LANE && bad == 700,
          "a step of two kinds: bad %u", bad);
    signals[600].kind = IN;
    signals[700].key = kept;
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
    ba_shard_statistics sum = sums(engine, &accepted);
    CHECK(accepted == 0 && sum.processed == 0, "%llu accepted", (unsigned long long)accepted);
    CHECK(ba_engine_apply(engine, signals, N, 5, UINT64_MAX, &done, &bad) == BA_OK && done == N, "all of this lane");
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
    (void)sums(engine, &accepted);
    CHECK(accepted == N, "%llu accepted", (unsigned long long)accepted);
    CHECK(busy(engine) == (shards[s] > 4 ? 4
                           : shards[s]   ? shards[s]
                                         : 1),
          "%u of %u shards work", busy(engine), shards[s]);
    ba_engine_destroy(engine);
  }
}

static void lanes_that_do_not_divide_the_partitions_are_no_configuration(void) {
  static const uint32_t bad[][2] = {{0, 3}, {0, 48}, {0, 128}, {2, 2}, {64, 64}, {1, 0}, {1, 1}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ba_engine_config config = {
        .kinds = kinds, .kind_count = 3, .actors = specs, .actor_count = ACTORS, .lane = bad[i][0], .lanes = bad[i][1]};
    ba_engine *engine;
    CHECK(ba_engine_create(&config, &engine) == BA_BAD_CONFIG && !engine, "lane %u of %u", bad[i][0], bad[i][1]);
  }
}

static void a_state_with_rows_of_another_lane_is_not_taken(void) {
  ba_engine *engine = create(specs, ACTORS, 2, seed, 3, 16);
  ba_actor_state actors[ACTORS] = {0};
  uint64_t counts[3] = {0}, position;
  ba_state state = {.actors = actors, .kind_signals = counts};
  actors[1].counts[20] = 1; /* lane 4 */
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  CHECK(ba_engine_import(engine, &state) == BA_WRONG_LANE, "another lane's");
  actors[1].counts[20] = 0;
  state.counts.emits_remote = state.counts.emitted = 12;
  CHECK(ba_engine_import(engine, &state) == BA_OK, "ours");
  memset(&state.counts, 0, sizeof state.counts);
  CHECK(ba_engine_export(engine, &state) == BA_OK && state.counts.emits_remote == 12, "the count goes round");
  ba_engine_resume(engine);
  CHECK(sums(engine, NULL).emits_remote == 12, "and is told");
  ba_engine_destroy(engine);
}

/* --- bounds, and readers who are slow --- */

static uint32_t fan; /* emits of `spread` for one signal: to so many keys in a row */

static uint32_t spread(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                       const uint16_t *order, uint32_t n) {
  (void)states, (void)slots;
  for (uint32_t i = 0; i < n; i++) {
    if (ctx->emit_n + fan > ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    for (uint32_t e = 0; e < fan && signals[order[i]].kind == IN; e++) {
      ba_signal s = {.kind = HOP, .key = signals[order[i]].value * fan + e, .value = e};
      ctx->emits[ctx->emit_n++] = (ba_emit){s, order[i], 0};
    }
  }
  ctx->status = BA_DONE;
  return n;
}

static const ba_actor_spec spread_specs[] = {{.handler = spread,
                                              .stride = 8,
                                              .init = zero,
                                              .kinds = kinds,
                                              .kind_count = 2,
                                              .emits = kinds + 1,
                                              .emit_count = 1}};

typedef struct reader {
  ba_subscription *subscription;
  uint64_t n, hash;
} reader;

static void *read_all(void *argument) {
  reader *r = argument;
  ba_output batch[512];
  uint32_t n;
  ba_output last = {.position = 0, .index = 0};
  while (ba_subscription_read(r->subscription, batch, 512, UINT64_MAX, &n) != BA_CLOSED) {
    for (uint32_t i = 0; i < n; i++, r->n++) {
      const ba_output *o = &batch[i];
      CHECK(!r->n || o->position > last.position || (o->position == last.position && o->index > last.index), "order");
      last = *o;
      r->hash = ba_mix64(r->hash ^ o->signal.key) + o->position * 3 + o->index;
    }
  }
  return NULL;
}

/* One step of all the signals a step has, each spread over `each` keys: what it counts, and what a reader reads. */
static ba_shard_statistics run_spread(uint32_t each, uint32_t shards, uint32_t capacity, reader *r) {
  static ba_signal signals[BA_FRAME_SIGNALS];
  fan = each;
  for (uint64_t i = 0, key = 0; i < BA_FRAME_SIGNALS; i++, key++) {
    key = key_of(1, 2, key);
    signals[i] = (ba_signal){.kind = IN, .key = key, .value = i};
  }
  ba_engine *engine = create(spread_specs, 1, shards, seed, 1, 2);
  *r = (reader){.subscription = subscribe_remote(engine, capacity)};
  pthread_t thread;
  pthread_create(&thread, NULL, read_all, r);
  uint32_t bad;
  CHECK(ba_engine_send(engine, signals, BA_FRAME_SIGNALS, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
  ba_shard_statistics sum = sums(engine, NULL);
  ba_engine_close(engine, false);
  pthread_join(thread, NULL);
  CHECK(ba_subscription_dropped(r->subscription) == 0, "dropped");
  ba_engine_destroy(engine);
  return sum;
}

static void the_bound_of_a_step_counts_emits_to_other_lanes(void) {
  enum { EACH = 150 };
  uint64_t remote = 0;
  for (uint64_t key = 0; key < BA_STEP_EMITS_MAX; key++) remote += ba_partition(key) % 2 != 1;
  static const uint32_t shards[] = {0, 1, 2, 7};
  uint64_t hash = 0;
  for (int s = 0; s < 4; s++) {
    reader r;
    ba_shard_statistics sum = run_spread(EACH, shards[s], 64, &r);
    CHECK(sum.emitted == (uint64_t)EACH * BA_FRAME_SIGNALS, "emitted");
    CHECK(sum.emits_remote == remote && r.n == remote, "%llu remote, %llu read, not %llu",
          (unsigned long long)sum.emits_remote, (unsigned long long)r.n, (unsigned long long)remote);
    CHECK(sum.emits_processed == BA_STEP_EMITS_MAX - remote, "processed");
    CHECK(sum.emits_dropped[BA_DROP_BOUND] == sum.emitted - BA_STEP_EMITS_MAX, "dropped");
    CHECK(s == 0 || r.hash == hash, "other emits, or in another order");
    hash = r.hash;
  }
#if !defined(__SANITIZE_THREAD__) /* of one thread, and gigabytes there */
  reader r;                       /* so many that those past the bound are forgotten while they are made */
  ba_shard_statistics sum = run_spread(600, 0, 64, &r);
  CHECK(sum.emits_remote == remote && r.n == remote && sum.emits_processed == BA_STEP_EMITS_MAX - remote, "forgotten");
  CHECK(sum.emits_dropped[BA_DROP_BOUND] == sum.emitted - BA_STEP_EMITS_MAX, "dropped");
#endif
}

static void a_queue_of_remote_emits_that_is_full_makes_its_shard_wait(void) {
  ba_engine *engine = create(spread_specs, 1, 2, seed, 1, 2);
  ba_subscription *s = subscribe_remote(engine, 2);
  ba_signal signal = {.kind = IN, .key = key_of(1, 2, 0), .value = 0};
  uint32_t bad, n;
  fan = 64;
  CHECK(ba_engine_send(engine, &signal, 1, BA_FULL_WAIT, UINT64_MAX, &bad) == BA_OK, "send");
  CHECK(ba_engine_flush(engine, 20000000) == BA_TIMEOUT, "nobody reads");
  ba_output batch[64], last = {.index = 0};
  uint32_t read = 0;
  while (ba_engine_flush(engine, 0) == BA_TIMEOUT || ba_subscription_arm(s)) {
    if (ba_subscription_read(s, batch, 64, 1000000, &n) != BA_OK) continue;
    for (uint32_t i = 0; i < n; i++, read++) {
      CHECK(ba_partition(batch[i].signal.key) % 2 == 0 && (!read || batch[i].index > last.index), "remote, in order");
      last = batch[i];
    }
  }
  CHECK(read == sums(engine, NULL).emits_remote && read > 10, "%u read", read);
  ba_engine_destroy(engine);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  random_state = seed;
  printf("test_engine_lanes: seed %llu\n", (unsigned long long)seed);
  setenv("BITACTOR_RESERVE_KEYS", "2000000", 1); /* of many engines; sanitizers leave little address space */
  any_lanes_shards_and_secret_give_the_models_state_and_emits();
  a_signal_of_another_lane_is_refused_before_anything_is_admitted();
  lanes_that_do_not_divide_the_partitions_are_no_configuration();
  a_state_with_rows_of_another_lane_is_not_taken();
  the_bound_of_a_step_counts_emits_to_other_lanes();
  a_queue_of_remote_emits_that_is_full_makes_its_shard_wait();
  puts("test_engine_lanes: ok");
  return 0;
}
