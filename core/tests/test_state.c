/*
 * State out and in: an engine that is exported and imported again and again, with other shards and secrets, ends with
 * the very state (bytes, orders, touches, counters) and outputs of one that never was. Also: empty steps, erased keys,
 * exports beside a sender, failing allocations.
 *
 * Actors: `mix` (kind IN) is non-commutative, emits to `capped` and outwards, sometimes raises; `capped` (IN and HOP)
 * expires and has a key cap, so keys that are due are taken over; `crowd` (IN) expires, and its keys lie in two
 * partitions, so that more are due at once than one step removes. Seed: first argument, or the time; printed.
 */
#include <bitactor/alloc.h>
#include <bitactor/atomic.h>
#include <bitactor/state.h>
#include <bitactor/wait.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "check.h"

enum { IN = 7, PILE = 8, HOP = 300, OUT = 65535, ACTORS = 3, KINDS = 4, CAP = 12, ROWS_MAX = 1 << 14, KEYS = 2000 };

typedef struct state {
  uint64_t hash;
  double sum;
  uint64_t n;
} state;

static uint64_t random_state;

static uint64_t random64(void) {
  random_state += UINT64_C(0x9e3779b97f4a7c15);
  return ba_mix64(random_state);
}

static uint32_t run(bool emits, ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                    const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    state *s = (state *)(void *)(states + (size_t)slots[i] * sizeof(state)), undo = *s;
    const ba_signal *in = &signals[order[i]];
    s->hash = s->hash * 31 + in->value + in->aux;
    s->sum = s->sum * 1.25 + (double)in->value * 1e-19 + (double)(ctx->wall_ns % 1000);
    s->n++;
    const bool full = ctx->emit_n + 2 > ctx->emit_cap;
    if (emits && (full || s->hash % 11 == 0)) {
      *s = undo;
      ctx->status = full ? BA_EMIT_FULL : BA_RAISED;
      ctx->error = 77;
      return i;
    }
    const ba_signal hop = {.kind = HOP, .key = s->hash % KEYS, .value = s->hash}, out = {.kind = OUT, .key = in->key};
    if (emits && s->hash % 2) ctx->emits[ctx->emit_n++] = (ba_emit){hop, order[i], 0};
    if (emits && s->hash % 3) ctx->emits[ctx->emit_n++] = (ba_emit){out, order[i], 0};
  }
  ctx->status = BA_DONE;
  return n;
}

static uint32_t mix(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(true, c, st, sl, si, o, n);
}
static uint32_t plain(ba_ctx *c, uint8_t *st, const uint32_t *sl, const ba_signal *si, const uint16_t *o, uint32_t n) {
  return run(false, c, st, sl, si, o, n);
}

static const uint16_t kinds[KINDS] = {IN, HOP, OUT, PILE};
static const state fresh = {.hash = 5, .sum = -0.0};
static const ba_actor_spec specs[ACTORS] = {
    {.handler = mix,
     .stride = sizeof(state),
     .init = (const uint8_t *)&fresh,
     .kinds = kinds,
     .kind_count = 1,
     .emits = kinds + 1,
     .emit_count = 2},
    {.handler = plain,
     .stride = sizeof(state),
     .init = (const uint8_t *)&fresh,
     .kinds = kinds,
     .kind_count = 2,
     .idle_ns = UINT64_C(2000000000),
     .partition_keys_max = CAP},
    {.handler = plain,
     .stride = sizeof(state),
     .init = (const uint8_t *)&fresh,
     .kinds = kinds + 3,
     .kind_count = 1,
     .idle_ns = UINT64_C(3000000000)},
};

static ba_engine *create(uint32_t shards, uint64_t position) {
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = KINDS,
                             .actors = specs,
                             .actor_count = ACTORS,
                             .shards = shards,
                             .secret = {random64(), random64()},
                             .position = position,
                             .manual_clock = true};
  ba_engine *engine;
  const int made_it = ba_engine_create(&config, &engine);
  CHECK(made_it == BA_OK, "create: %d", made_it);
  return engine;
}

/* --- a state with arrays --- */

typedef struct image {
  ba_state state;
  ba_actor_state actors[ACTORS];
  uint64_t kinds[KINDS];
  uint64_t seen[ACTORS]; /* keys that a query sees: not those that are due and still there */
  uint64_t keys[ACTORS][ROWS_MAX];
  state states[ACTORS][ROWS_MAX];
  uint32_t order[ACTORS][ROWS_MAX], ticks[ACTORS][ROWS_MAX];
} image;

static image *image_new(void) {
  image *made = calloc(1, sizeof *made);
  CHECK(made, "no memory");
  made->state.actors = made->actors;
  made->state.kind_signals = made->kinds;
  for (int a = 0; a < ACTORS; a++) {
    made->actors[a].rows_max = ROWS_MAX;
    made->actors[a].keys = made->keys[a];
    made->actors[a].states = (uint8_t *)made->states[a];
    if (!specs[a].idle_ns) continue;
    made->actors[a].touch_order = made->order[a];
    made->actors[a].touch_ticks = made->ticks[a];
  }
  return made;
}

static void export(ba_engine *engine, image *into) {
  uint64_t position;
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  const int result = ba_engine_export(engine, &into->state);
  for (uint32_t a = 0; a < ACTORS; a++) into->seen[a] = ba_engine_count(engine, a);
  ba_engine_resume(engine);
  CHECK(result == BA_OK, "export: %d", result);
  CHECK(into->state.counts.position == position, "not the boundary of the pause");
}

static int import(ba_engine *engine, const image *from) {
  uint64_t position;
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  const int result = ba_engine_import(engine, &from->state);
  ba_engine_resume(engine);
  return result;
}

static void check_same(const image *a, const image *b) {
  CHECK(a->state.wall_ns == b->state.wall_ns, "wall");
  CHECK(a->state.accepted == b->state.accepted, "accepted %llu and %llu", (unsigned long long)a->state.accepted,
        (unsigned long long)b->state.accepted);
  CHECK(!memcmp(&a->state.counts, &b->state.counts, sizeof a->state.counts), "counters");
  CHECK(!memcmp(a->kinds, b->kinds, sizeof a->kinds), "signals of kinds");
  for (int i = 0; i < ACTORS; i++) {
    const ba_actor_state *x = &a->actors[i], *y = &b->actors[i];
    CHECK(!memcmp(x->counts, y->counts, sizeof x->counts), "actor %d: counts", i);
    CHECK(a->seen[i] == b->seen[i], "actor %d: keys seen by a query", i);
    CHECK(x->signals == y->signals && x->refused == y->refused && x->raised == y->raised, "actor %d: counters", i);
    CHECK(!memcmp(x->keys, y->keys, x->rows * sizeof *x->keys), "actor %d: keys", i);
    CHECK(!memcmp(x->states, y->states, x->rows * sizeof(state)), "actor %d: states", i);
    if (!specs[i].idle_ns) continue;
    CHECK(!memcmp(x->touch_order, y->touch_order, x->rows * sizeof(uint32_t)), "actor %d: touch order", i);
    CHECK(!memcmp(x->touch_ticks, y->touch_ticks, x->rows * sizeof(uint32_t)), "actor %d: touch ticks", i);
  }
}

static void check_conserved(const image *of) {
  uint64_t ends = of->state.counts.processed + of->state.dropped_full;
  for (int d = 0; d < BA_DROPS; d++) ends += of->state.counts.dropped[d];
  CHECK(of->state.accepted == ends, "accepted %llu, ended %llu", (unsigned long long)of->state.accepted,
        (unsigned long long)ends);
}

/* --- records --- */

enum { RECORDS = 120, SIGNALS_MAX = 3 * BA_FRAME_SIGNALS };

typedef struct record {
  ba_signal *signals;
  uint32_t n;
  uint64_t wall;
} record;

static uint64_t piled_key(uint64_t i) {
  while (ba_partition(i) > 1) i += UINT64_C(0x9e3779b97f4a7c15);
  return i;
}

static void make_records(record *records) {
  uint64_t wall = UINT64_C(1800000000000000000);
  for (int r = 0; r < RECORDS; r++) {
    const uint64_t what = random64() % 16;
    records[r].n = what < 4 ? 0 : what == 4 ? (uint32_t)(random64() % SIGNALS_MAX) : (uint32_t)(random64() % 300 + 1);
    records[r].wall = wall += random64() % 4 ? random64() % UINT64_C(200000000) : random64() % UINT64_C(4000000000);
    records[r].signals = calloc(records[r].n + 1u, sizeof(ba_signal));
    CHECK(records[r].signals, "no memory");
    for (uint32_t i = 0; i < records[r].n; i++) {
      const bool pile = random64() % 4 == 0;
      records[r].signals[i] = (ba_signal){.kind = pile ? PILE : IN,
                                          .key = pile ? piled_key(random64() % 100000) : random64() % KEYS,
                                          .value = random64(),
                                          .aux = (uint32_t)random64()};
    }
  }
}

static void apply(ba_engine *engine, const record *r) {
  uint64_t done = 0;
  uint32_t bad;
  int result;
  while ((result = ba_engine_apply(engine, r->signals, r->n, r->wall, 1000000, &done, &bad)) == BA_TIMEOUT) {
  }
  CHECK(result == BA_OK && done == r->n, "apply: %d after %llu of %u", result, (unsigned long long)done, r->n);
}

typedef struct outputs {
  ba_output *items;
  uint64_t n, capacity;
} outputs;

static void read_outputs(ba_subscription *subscription, outputs *into) {
  uint32_t n;
  do {
    if (into->capacity < into->n + 4096) {
      into->capacity = into->capacity * 2 + 4096;
      into->items = realloc(into->items, into->capacity * sizeof *into->items);
      CHECK(into->items, "no memory");
    }
    (void)ba_subscription_read(subscription, into->items + into->n, 4096, 0, &n);
    into->n += n;
  } while (n);
}

static void run_records(ba_engine *engine, const record *records, int from, int to, outputs *into) {
  ba_subscription *subscription;
  const uint16_t out = OUT;
  CHECK(ba_subscribe(engine, &out, 1, 1u << 17, false, -1, UINT64_MAX, &subscription) == BA_OK, "subscribe");
  for (int r = from; r < to; r++) {
    apply(engine, &records[r]);
    CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
    read_outputs(subscription, into);
  }
  ba_unsubscribe(subscription);
}

static void a_chain_of_imports_ends_like_one_engine(uint64_t position) {
  record records[RECORDS];
  make_records(records);
  image *whole = image_new(), *chain = image_new(), *again = image_new();
  outputs of_whole = {0}, of_chain = {0};
  ba_engine *engine = create(2, position);
  run_records(engine, records, 0, RECORDS, &of_whole);
  export(engine, whole);
  ba_engine_destroy(engine);
  check_conserved(whole);
  static const uint32_t shards[] = {0, 1, 2, 3, 7, 64};
  uint32_t links = 0;
  for (int at = 0; at < RECORDS; links++) {
    const int left = RECORDS - at, n = 1 + (int)(random64() % 30), to = at + (n < left ? n : left);
    engine = create(shards[random64() % 6], at ? 0 : position);
    if (at) {
      CHECK(import(engine, chain) == BA_OK, "import");
      export(engine, again);
      check_same(again, chain);
      CHECK(import(engine, chain) == BA_BAD_CONFIG || chain->state.accepted == 0, "imported twice");
    }
    run_records(engine, records, at, to, &of_chain);
    export(engine, chain);
    check_conserved(chain);
    ba_engine_destroy(engine);
    at = to;
  }
  check_same(chain, whole);
  CHECK(whole->state.counts.expired > 0 && whole->actors[1].refused > 0 && whole->actors[0].raised > 0,
        "nothing expired, was refused or raised: the test tests less than it says");
  CHECK(of_chain.n == of_whole.n && !memcmp(of_chain.items, of_whole.items, of_whole.n * sizeof *of_whole.items),
        "outputs: %llu and %llu", (unsigned long long)of_chain.n, (unsigned long long)of_whole.n);
  printf("test_state: %u engines, %llu outputs, %llu expired\n", links, (unsigned long long)of_whole.n,
         (unsigned long long)whole->state.counts.expired);
  for (int r = 0; r < RECORDS; r++) free(records[r].signals);
  free(of_whole.items);
  free(of_chain.items);
  free(whole);
  free(chain);
  free(again);
}

/* --- more than one step removes is due --- */

static void removal_goes_on_where_the_exported_engine_was(void) {
  enum { N = 5000 };
  image *states[2] = {image_new(), image_new()};
  ba_signal *signals = calloc(N, sizeof *signals);
  for (int i = 0; i < N; i++) signals[i] = (ba_signal){.kind = PILE, .key = piled_key((uint64_t)i * 7919)};
  const uint64_t wall = UINT64_C(1800000000000000000), late = wall + UINT64_C(9000000000);
  ba_engine *engine = create(1, 0), *other = create(3, 0);
  apply(engine, &(record){signals, N, wall});
  apply(engine, &(record){NULL, 0, late}); /* 1,024 of each partition go */
  export(engine, states[0]);
  CHECK(states[0]->state.counts.expired == 2048, "%llu", (unsigned long long)states[0]->state.counts.expired);
  CHECK(import(other, states[0]) == BA_OK, "import");
  for (int i = 0; i < 3; i++) {
    ba_engine *both[2] = {engine, other};
    for (int e = 0; e < 2; e++) {
      apply(both[e], &(record){signals + i, 1, late});
      export(both[e], states[e]);
    }
    check_same(states[0], states[1]);
  }
  CHECK(states[0]->actors[2].rows == 3, "%llu keys are left", (unsigned long long)states[0]->actors[2].rows);
  ba_engine_destroy(engine);
  ba_engine_destroy(other);
  free(signals);
  free(states[0]);
  free(states[1]);
}

/* --- empty steps --- */

static void empty_steps_alone_let_keys_expire(void) {
  for (uint32_t shards = 0; shards < 4; shards++) {
    ba_engine *engine = create(shards, 0);
    image *now = image_new();
    const uint64_t wall = UINT64_C(1800000000000000000);
    ba_signal signals[100];
    for (uint64_t i = 0; i < 100; i++) signals[i] = (ba_signal){.kind = IN, .key = i};
    apply(engine, &(record){signals, 100, wall});
    export(engine, now);
    const uint64_t there = now->actors[1].rows;
    for (uint64_t s = 1; s < 5; s++) {
      apply(engine, &(record){NULL, 0, wall + s * 500000000});
      uint64_t position;
      CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
      CHECK(ba_engine_count(engine, 1) == (s < 4 ? there : 0), "after %llu beats", (unsigned long long)s);
      CHECK(!ba_engine_find(engine, 1, 3) == (s >= 4), "key 3 after %llu beats", (unsigned long long)s);
      ba_engine_resume(engine);
    }
    export(engine, now);
    CHECK(now->state.counts.expired == there && now->state.counts.steps == 1 && now->state.counts.position == 100,
          "expired, steps or position");
    CHECK(now->state.wall_ns == wall + 2000000000, "wall");
    check_conserved(now);
    ba_engine_close(engine, false);
    uint64_t done = 0;
    uint32_t bad;
    CHECK(ba_engine_apply(engine, NULL, 0, wall + 3000000000, 0, &done, &bad) == BA_CLOSED, "a beat after the end");
    ba_engine_destroy(engine);
    free(now);
  }
}

/* --- erasing --- */

static void an_erased_key_is_gone_from_every_actor(void) {
  for (uint32_t shards = 0; shards < 3; shards++) {
    ba_engine *engine = create(shards, 0);
    ba_signal signals[100];
    for (uint64_t i = 0; i < 100; i++) signals[i] = (ba_signal){.kind = IN, .key = i};
    apply(engine, &(record){signals, 100, 1});
    for (uint64_t key = 0; key < 200; key++) {
      uint64_t position;
      uint32_t held;
      CHECK(ba_engine_pause(engine, ba_engine_owner_mask(engine, key), UINT64_MAX, &position) == BA_OK, "pause");
      const uint32_t had = (ba_engine_find(engine, 0, key) ? 1u : 0u) + (ba_engine_find(engine, 1, key) ? 1u : 0u);
      CHECK(ba_engine_erase(engine, key, &held) == BA_OK && held == had, "key %llu: %u, not %u",
            (unsigned long long)key, held, had);
      CHECK(!ba_engine_find(engine, 0, key) && !ba_engine_find(engine, 1, key), "it is still there");
      ba_engine_resume(engine);
    }
    uint64_t position;
    CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
    CHECK(ba_engine_count(engine, 0) + ba_engine_count(engine, 1) == 0, "keys are left");
    ba_engine_resume(engine);
    ba_engine_destroy(engine);
  }
}

/* --- beside a sender --- */

typedef struct sender {
  ba_engine *engine;
  BA_ATOMIC(uint32_t) stop;
  uint64_t sent;
} sender;

static void *send_on(void *argument) {
  sender *s = argument;
  ba_signal batch[64];
  uint32_t bad;
  while (!ba_load_relaxed(&s->stop) /* relaxed: a flag, nothing else is passed */) {
    for (uint64_t i = 0; i < 64; i++) batch[i] = (ba_signal){.kind = IN, .key = (s->sent + i) % KEYS, .value = i};
    int result;
    while ((result = ba_engine_send(s->engine, batch, 64, BA_FULL_WAIT, 1000000, &bad)) == BA_TIMEOUT) {
    }
    CHECK(result == BA_OK, "send: %d", result);
    s->sent += 64;
  }
  return NULL;
}

static void exports_beside_a_sender_are_of_step_boundaries(void) {
  ba_engine *engine = create(2, 0);
  image *now = image_new();
  sender one = {.engine = engine};
  pthread_t thread;
  pthread_create(&thread, NULL, send_on, &one);
  uint64_t before = 0;
  for (int i = 0; i < 50; i++) {
    export(engine, now);
    check_conserved(now);
    CHECK(now->state.accepted == now->state.counts.position && now->state.accepted % 64 == 0, "not a boundary");
    CHECK(now->state.counts.steps == now->state.accepted / 64, "steps");
    CHECK(now->state.accepted >= before, "backwards");
    before = now->state.accepted;
  }
  ba_store_relaxed(&one.stop, 1); /* relaxed: as above */
  pthread_join(thread, NULL);
  export(engine, now);
  CHECK(now->state.accepted == one.sent, "%llu of %llu", (unsigned long long)now->state.accepted,
        (unsigned long long)one.sent);
  ba_engine_destroy(engine);
  free(now);
}

/* --- failures --- */

static void too_little_room_is_said_and_copies_nothing(void) {
  ba_engine *engine = create(1, 0);
  image *now = image_new();
  ba_signal signals[10];
  for (uint64_t i = 0; i < 10; i++) signals[i] = (ba_signal){.kind = IN, .key = i};
  apply(engine, &(record){signals, 10, 1});
  now->actors[0].rows_max = 9;
  uint64_t position;
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  CHECK(ba_engine_export(engine, &now->state) == BA_FULL, "it fitted");
  ba_engine_resume(engine);
  CHECK(now->actors[0].rows == 10 && now->keys[1][0] == 0 && now->keys[1][1] == 0, "rows, or something was copied");
  ba_engine_destroy(engine);
  free(now);
}

static void every_failed_allocation_of_an_import_is_an_error_code(void) {
  ba_engine *engine = create(2, 0);
  image *full = image_new(), *got = image_new();
  ba_signal *signals = calloc(BA_FRAME_SIGNALS, sizeof *signals);
  for (uint64_t i = 0; i < BA_FRAME_SIGNALS; i++) {
    signals[i] = (ba_signal){.kind = i % 2 ? PILE : IN, .key = i % 2 ? piled_key(i) : i};
  }
  apply(engine, &(record){signals, BA_FRAME_SIGNALS, 1});
  export(engine, full);
  ba_engine_destroy(engine);
  uint32_t refused = 0, taken = 0;
  for (uint64_t n = 1; n < 60; n++) {
    engine = create((uint32_t)n % 3, 0);
    ba_alloc_fail_every(n);
    const int result = import(engine, full);
    ba_alloc_fail_every(0);
    CHECK(result == BA_OK || result == BA_NO_MEMORY, "import: %d", result);
    refused += result != BA_OK;
    taken += result == BA_OK;
    if (result == BA_OK) {
      export(engine, got);
      check_same(got, full);
    }
    ba_engine_destroy(engine);
  }
  CHECK(refused > 5 && taken > 5, "%u imports met a failed allocation, %u did not", refused, taken);
  free(signals);
  free(full);
  free(got);
}

int main(int argc, char **argv) {
  random_state = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  printf("test_state: seed %llu\n", (unsigned long long)random_state);
  fflush(stdout);
  setenv("BITACTOR_RESERVE_KEYS", "65536", 0); /* 64 shards, and a sanitizer that leaves little address space */
  for (int round = 0; round < 3; round++) a_chain_of_imports_ends_like_one_engine(0);
  a_chain_of_imports_ends_like_one_engine(UINT64_MAX - 20000); /* positions wrap */
  removal_goes_on_where_the_exported_engine_was();
  empty_steps_alone_let_keys_expire();
  an_erased_key_is_gone_from_every_actor();
  exports_beside_a_sender_are_of_step_boundaries();
  too_little_room_is_said_and_copies_nothing();
  every_failed_allocation_of_an_import_is_an_error_code();
  puts("test_state: ok");
  return 0;
}
