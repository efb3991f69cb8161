/*
 * A store against a plain model: same dense order, same states, same refusals, whatever the secret, the way keys are
 * compared and the size of batches. `test_store SEED` replays a run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bitactor/alloc.h>
#include <bitactor/store.h>

#include "check.h"

enum {
  BATCH = 4096,
  STRIDE = 24,
  LARGE_STRIDE = 640,
  RESERVE = 1 << 19, /* keys; not the default: qemu-user takes memory for address space, all there is */
  KEYS = 6000,
  STORES = 4
};

static uint64_t seed, random_state;

static uint64_t random64(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

static uint32_t below(uint32_t n) { return (uint32_t)(random64() % n); }

/* Few enough keys that they meet again; the two extreme ones among them. */
static uint64_t any_key(uint32_t keys) {
  const uint32_t i = below(keys);
  return i == 0 ? 0 : i == 1 ? UINT64_MAX : i * UINT64_C(0x9e3779b97f4a7c15);
}

typedef struct instance {
  uint64_t key, state, touch; /* touch: number of the operation that last moved it to the end of the expiry list */
  uint32_t tick;
} instance;

typedef struct model {
  instance in[BA_PARTITIONS][KEYS];
  uint32_t count[BA_PARTITIONS];
  uint64_t refused, touches;
  uint32_t cap, idle;
} model;

static model plain;
static ba_signal signals[BATCH];
static uint8_t parts[BATCH];
static uint16_t order[BATCH];
static uint32_t slots[BATCH];
static const uint8_t init[LARGE_STRIDE] = {42};
static uint32_t stride; /* of the store at hand: large ones take the path with prefetches */

static uint32_t stride_of(int which) { return which % 2 ? LARGE_STRIDE : STRIDE; }

static bool due(const instance *in, uint32_t tick) { return plain.idle && (uint64_t)in->tick + plain.idle <= tick; }

static uint32_t oldest(unsigned p) {
  uint32_t at = 0;
  for (uint32_t i = 1; i < plain.count[p]; i++) {
    if (plain.in[p][i].touch < plain.in[p][at].touch) at = i;
  }
  return at;
}

/* The instance a signal meets; null: refused. */
static instance *model_meet(uint64_t key, uint32_t tick) {
  const unsigned p = ba_partition(key);
  for (uint32_t i = 0; i < plain.count[p]; i++) {
    instance *in = &plain.in[p][i];
    if (in->key != key) continue;
    if (due(in, tick)) in->state = 42;
    if (in->tick != tick) in->touch = ++plain.touches;
    in->tick = tick;
    return in;
  }
  uint32_t at = plain.count[p];
  if (plain.cap && at >= plain.cap) {
    at = oldest(p);
    if (!due(&plain.in[p][at], tick)) return NULL;
  } else {
    plain.count[p]++;
  }
  plain.in[p][at] = (instance){.key = key, .state = 42, .touch = ++plain.touches, .tick = tick};
  return &plain.in[p][at];
}

static void model_remove(unsigned p, uint32_t at) { plain.in[p][at] = plain.in[p][--plain.count[p]]; }

static void same(const ba_store *store, int which) {
  stride = stride_of(which);
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    CHECK(ba_store_count(store, p) == plain.count[p], "store %d partition %u: %u, model %u, seed %llu", which, p,
          ba_store_count(store, p), plain.count[p], (unsigned long long)seed);
    for (uint32_t i = 0; i < plain.count[p]; i++) {
      const uint32_t slot = ba_store_slot_at(store, p, i);
      uint64_t state;
      memcpy(&state, ba_store_states(store) + (size_t)slot * stride, 8);
      CHECK(ba_store_key(store, slot) == plain.in[p][i].key && state == plain.in[p][i].state,
            "store %d partition %u place %u: key %llx state %llx, model %llx %llx, seed %llu", which, p, i,
            (unsigned long long)ba_store_key(store, slot), (unsigned long long)state,
            (unsigned long long)plain.in[p][i].key, (unsigned long long)plain.in[p][i].state, (unsigned long long)seed);
    }
  }
}

/* Resolves in batches of the store's own size and has each signal change its state in a way that depends on order. */
static uint32_t feed(ba_store *store, uint32_t n, uint32_t tick, uint32_t step) {
  uint32_t refused = 0;
  for (uint32_t from = 0; from < n; from += step) {
    const uint32_t m = n - from < step ? n - from : step;
    refused += ba_store_resolve(store, signals, parts, order + from, m, tick, slots + from);
    for (uint32_t i = from; i < from + m; i++) {
      if (slots[i] >= BA_SLOT_REFUSED) continue;
      CHECK(ba_store_key(store, slots[i]) == signals[order[i]].key, "signal %u got another key's slot, seed %llu", i,
            (unsigned long long)seed);
      uint8_t *at = ba_store_states(store) + (size_t)slots[i] * stride;
      uint64_t state;
      memcpy(&state, at, 8);
      state = state * 31 + signals[order[i]].value;
      memcpy(at, &state, 8);
    }
  }
  return refused;
}

static void a_store_does_what_a_plain_model_does_whatever_the_secret(uint32_t cap, uint32_t idle, uint32_t keys,
                                                                     uint32_t rounds) {
  memset(&plain, 0, sizeof plain);
  plain.cap = cap;
  plain.idle = idle;
  ba_store *stores[STORES];
  for (int s = 0; s < STORES; s++) {
    stores[s] = ba_store_create(&(ba_store_config){.stride = stride_of(s),
                                                   .init = init,
                                                   .partition_keys_max = cap,
                                                   .idle_ticks = idle,
                                                   .secret = {random64(), random64()},
                                                   .reserve_keys = RESERVE});
    CHECK(stores[s], "created");
    (void)ba_store_set_way(stores[s], (enum ba_store_way)(s % 4));
  }
  ba_store_set_hash(stores[3], (ba_hash){0, UINT64_C(1) << 32, 0}); /* the low half of the key itself */
  uint32_t tick = 0;
  for (uint32_t round = 0; round < rounds; round++) {
    tick += below(3);
    const uint32_t n = 1 + below(round % 8 ? 200 : BATCH);
    for (uint32_t i = 0; i < n; i++) {
      signals[i].key = any_key(keys);
      signals[i].value = random64();
      order[i] = (uint16_t)i;
    }
    ba_partitions(signals, n, parts);
    uint32_t refused = 0;
    for (uint32_t i = 0; i < n; i++) {
      instance *in = model_meet(signals[i].key, tick);
      if (in) in->state = in->state * 31 + signals[i].value;
      refused += !in;
    }
    plain.refused += refused;
    for (int s = 0; s < STORES; s++) {
      stride = stride_of(s);
      const uint32_t got = feed(stores[s], n, tick, s == 0 ? n : 1 + 37 * (uint32_t)s);
      CHECK(got == refused, "store %d refused %u, model %u, seed %llu", s, got, refused, (unsigned long long)seed);
    }
    for (uint32_t k = below(40); k > 0; k--) {
      const uint64_t key = any_key(keys);
      const unsigned p = ba_partition(key);
      uint32_t at = 0;
      while (at < plain.count[p] && plain.in[p][at].key != key) at++;
      const bool there = at < plain.count[p];
      const bool live = there && !due(&plain.in[p][at], tick);
      for (int s = 0; s < STORES; s++) {
        CHECK((ba_store_find(stores[s], key, tick) != BA_SLOT_NONE) == live, "find, seed %llu",
              (unsigned long long)seed);
        CHECK((ba_store_remove(stores[s], key) == 0) == there, "remove, seed %llu", (unsigned long long)seed);
      }
      if (there) model_remove(p, at);
    }
    const unsigned p = below(BA_PARTITIONS);
    const uint32_t max = below(20);
    uint32_t expired = 0;
    while (expired < max && plain.count[p] && due(&plain.in[p][oldest(p)], tick)) {
      model_remove(p, oldest(p));
      expired++;
    }
    for (int s = 0; s < STORES; s++) {
      const uint32_t got = ba_store_expire(stores[s], p, tick, max);
      CHECK(got == expired, "store %d expired %u, model %u, seed %llu", s, got, expired, (unsigned long long)seed);
    }
    if (round % 4 == 0) {
      for (int s = 0; s < STORES; s++) same(stores[s], s);
    }
  }
  for (int s = 0; s < STORES; s++) {
    same(stores[s], s);
    CHECK(ba_store_refused_keys(stores[s]) == plain.refused && ba_store_refused_memory(stores[s]) == 0, "counts");
    ba_store_destroy(stores[s]);
  }
}

static uint32_t resolve_one(ba_store *store, uint64_t key, uint32_t tick) {
  const ba_signal signal = {.key = key};
  const uint8_t p = ba_partition(key);
  const uint16_t zero = 0;
  uint32_t slot;
  (void)ba_store_resolve(store, &signal, &p, &zero, 1, tick, &slot);
  return slot;
}

static void a_key_is_due_at_its_last_tick_plus_the_idle_ticks_and_not_before(void) {
  ba_store *store =
      ba_store_create(&(ba_store_config){.stride = STRIDE, .init = init, .idle_ticks = 5, .reserve_keys = RESERVE});
  CHECK(store, "created");
  const uint32_t slot = resolve_one(store, 9, 10);
  (void)resolve_one(store, 9, 12);
  ba_store_states(store)[(size_t)slot * STRIDE] = 1;
  CHECK(ba_store_find(store, 9, 16) == slot && !ba_store_due(store, slot, 16), "live at 16");
  CHECK(ba_store_expire(store, ba_partition(9), 16, 10) == 0, "nothing due at 16");
  CHECK(ba_store_find(store, 9, 17) == BA_SLOT_NONE && ba_store_due(store, slot, 17), "due at 17");
  CHECK(resolve_one(store, 9, 17) == slot && ba_store_states(store)[(size_t)slot * STRIDE] == 42, "starts fresh");
  CHECK(ba_store_expire(store, ba_partition(9), 22, 10) == 1 && ba_store_count(store, ba_partition(9)) == 0, "gone");
  CHECK(ba_store_counted(store).expired == 2 && ba_store_counted(store).created == 2, "counted");
  ba_store_destroy(store);
  store = ba_store_create(
      &(ba_store_config){.stride = STRIDE, .init = init, .idle_ticks = UINT32_MAX, .reserve_keys = RESERVE});
  CHECK(resolve_one(store, 9, UINT32_MAX - 1) < BA_SLOT_REFUSED, "inserted");
  CHECK(ba_store_find(store, 9, UINT32_MAX) != BA_SLOT_NONE, "one tick later it is not due");
  ba_store_destroy(store);
  store = ba_store_create(&(ba_store_config){.stride = STRIDE, .init = init, .idle_ticks = 5, .reserve_keys = RESERVE});
  CHECK(store && resolve_one(store, 9, UINT32_MAX - 1) < BA_SLOT_REFUSED, "inserted");
  CHECK(ba_store_find(store, 9, 2) != BA_SLOT_NONE && ba_store_find(store, 9, 3) == BA_SLOT_NONE, "ticks may wrap");
  ba_store_destroy(store);
}

static void a_failing_allocation_is_a_refusal_and_leaves_the_store_whole(void) {
  for (uint64_t every = 1; every < 40; every++) {
    ba_alloc_fail_every(every);
    ba_store *store = ba_store_create(&(ba_store_config){
        .stride = 512, .init = (uint8_t[512]){1}, .idle_ticks = 3, .secret = {every, 1}, .reserve_keys = 1 << 17});
    if (!store) {
      CHECK(ba_alloc_failures() > 0, "no store, yet nothing failed");
      ba_alloc_fail_every(0);
      continue;
    }
    uint32_t refused = 0;
    for (uint64_t key = 0; key < 8000; key++) refused += resolve_one(store, key, 1) == BA_SLOT_NO_MEMORY;
    const uint64_t failures = ba_alloc_failures();
    ba_alloc_fail_every(0);
    CHECK(ba_store_refused_memory(store) == refused && refused <= failures, "refused %u", refused);
    uint32_t there = 0;
    for (unsigned p = 0; p < BA_PARTITIONS; p++) there += ba_store_count(store, p);
    CHECK(there + refused == 8000, "%u there, %u refused", there, refused);
    for (uint64_t key = 0; key < 8000; key++) {
      CHECK(resolve_one(store, key, 1) < BA_SLOT_REFUSED, "key %llu comes in once memory is back",
            (unsigned long long)key);
    }
    for (unsigned p = 0; p < BA_PARTITIONS; p++) there -= ba_store_expire(store, p, 9, UINT32_MAX);
    CHECK((int32_t)there == -(int32_t)refused, "all expire");
    ba_store_destroy(store);
  }
}

static void every_key_is_found_again_after_each_doubling(void) {
  ba_store *store = ba_store_create(
      &(ba_store_config){.stride = 8, .init = init, .secret = {random64(), random64()}, .reserve_keys = RESERVE});
  CHECK(store, "created");
  uint64_t next = 0;
  for (uint64_t until = 64; until <= 1 << 18; until *= 2) {
    for (; next < until; next++) CHECK(resolve_one(store, next, 0) < BA_SLOT_REFUSED, "inserted");
    for (uint64_t key = 0; key < until; key++) {
      const uint32_t slot = ba_store_find(store, key, 0);
      CHECK(slot != BA_SLOT_NONE && ba_store_key(store, slot) == key, "key %llu of %llu", (unsigned long long)key,
            (unsigned long long)until);
    }
    CHECK(ba_store_find(store, until, 0) == BA_SLOT_NONE, "absent");
  }
  for (uint64_t key = 0; key < next; key++) CHECK(ba_store_remove(store, key) == 0, "removed");
  ba_store_destroy(store);
}

/* With every way to compare keys: one that looked in wrong places would find all of them all the same, only slowly. */
static void the_first_look_finds_nearly_every_key(void) {
  uint64_t again_by[4] = {0};
  for (enum ba_store_way way = BA_WAY_BEST; way <= BA_WAY_AVX512; way++) {
    ba_store *store = ba_store_create(
        &(ba_store_config){.stride = LARGE_STRIDE, .init = init, .secret = {seed, 7}, .reserve_keys = RESERVE});
    CHECK(store, "created");
    (void)ba_store_set_way(store, way);
    for (int round = 0; round < 2; round++) {
      const uint64_t before = ba_store_counted(store).looked_again;
      for (uint32_t from = 0; from < 20000; from += 200) {
        for (uint32_t i = 0; i < 200; i++) signals[i].key = (from + i + seed) * UINT64_C(0x9e3779b97f4a7c15);
        for (uint32_t i = 0; i < 200; i++) order[i] = (uint16_t)i;
        ba_partitions(signals, 200, parts);
        CHECK(ba_store_resolve(store, signals, parts, order, 200, 0, slots) == 0, "resolved");
      }
      again_by[way] = ba_store_counted(store).looked_again - before;
      CHECK(round == 0 ? again_by[way] == 20000 : again_by[way] < 4000, "way %d, round %d: %llu, seed %llu", (int)way,
            round, (unsigned long long)again_by[way], (unsigned long long)seed);
    }
    CHECK(again_by[way] == again_by[BA_WAY_BEST], "way %d looks where others do not", (int)way);
    ba_store_destroy(store);
  }
}

static void keys_that_all_collide_are_only_slow(void) {
  ba_store *store = ba_store_create(&(ba_store_config){.stride = 8, .init = init, .reserve_keys = RESERVE});
  CHECK(store, "created");
  ba_store_set_hash(store, (ba_hash){0, 0, 0}); /* of keys below 2^32 */
  for (uint64_t key = 0; key < 20000; key++) CHECK(resolve_one(store, key, 0) < BA_SLOT_REFUSED, "inserted");
  for (uint64_t key = 0; key < 20000; key++) {
    const uint32_t slot = ba_store_find(store, key, 0);
    CHECK(slot != BA_SLOT_NONE && ba_store_key(store, slot) == key, "key %llu", (unsigned long long)key);
  }
  for (uint64_t key = 0; key < 20000; key += 2) CHECK(ba_store_remove(store, key) == 0, "removed");
  for (uint64_t key = 0; key < 20000; key++) {
    CHECK((ba_store_find(store, key, 0) != BA_SLOT_NONE) == (key % 2 == 1), "key %llu", (unsigned long long)key);
  }
  ba_store_destroy(store);
}

static uint64_t key_in(unsigned partition) {
  uint64_t key = 1;
  while (ba_partition(key) != partition) key++;
  return key;
}

/* One partition whose keys all collide takes line after line until none is left that needs no memory. */
static void a_partition_whose_list_gets_no_memory_is_not_given_another_ones(void) {
  ba_store *store = ba_store_create(&(ba_store_config){.stride = 8, .init = init, .reserve_keys = 1 << 17});
  CHECK(store, "created");
  ba_store_set_hash(store, (ba_hash){0, 0, 0});
  CHECK(resolve_one(store, key_in(5), 0) < BA_SLOT_REFUSED, "states, keys and blocks have their first memory");
  ba_alloc_fail_every(1);
  uint64_t key = 0;
  for (uint32_t slot = 0; slot != BA_SLOT_NO_MEMORY; key++) {
    if (ba_partition(key) == 5) slot = resolve_one(store, key, 0);
  }
  for (unsigned p = 10; p < 40; p++) (void)resolve_one(store, key_in(p), 0); /* these take the last lines */
  for (unsigned p = 1; p <= 2; p++) CHECK(resolve_one(store, key_in(p), 0) == BA_SLOT_NO_MEMORY, "no line is left");
  ba_alloc_fail_every(0);
  for (unsigned p = 1; p <= 2; p++) CHECK(resolve_one(store, key_in(p), 0) < BA_SLOT_REFUSED, "comes in");
  for (unsigned p = 1; p <= 2; p++) {
    CHECK(ba_store_count(store, p) == 1 && ba_store_key(store, ba_store_slot_at(store, p, 0)) == key_in(p),
          "partition %u", p);
  }
  ba_store_destroy(store);
}

static void keys_that_come_and_go_need_no_more_memory(void) {
  ba_store *store =
      ba_store_create(&(ba_store_config){.stride = STRIDE, .init = init, .idle_ticks = 1, .reserve_keys = RESERVE});
  CHECK(store, "created");
  uint64_t key = 0, bytes = 0;
  for (uint32_t tick = 0; tick < 60; tick++) {
    for (unsigned p = 0; p < BA_PARTITIONS; p++) (void)ba_store_expire(store, p, tick, UINT32_MAX);
    if (tick == 20) bytes = ba_store_bytes(store);
    CHECK(tick < 20 || ba_store_bytes(store) <= bytes + bytes / 8, "%llu bytes, %llu at first",
          (unsigned long long)ba_store_bytes(store), (unsigned long long)bytes);
    for (uint32_t i = 0; i < 5000; i++) CHECK(resolve_one(store, key++, tick) < BA_SLOT_REFUSED, "inserted");
  }
  ba_store_destroy(store);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
  printf("seed %llu\n", (unsigned long long)seed);
  a_store_does_what_a_plain_model_does_whatever_the_secret(0, 0, 3000, 100);
  a_store_does_what_a_plain_model_does_whatever_the_secret(0, 7, 3000, 100);
  a_store_does_what_a_plain_model_does_whatever_the_secret(20, 0, 3000, 100);
  a_store_does_what_a_plain_model_does_whatever_the_secret(20, 4, 3000, 200);
  a_key_is_due_at_its_last_tick_plus_the_idle_ticks_and_not_before();
  a_failing_allocation_is_a_refusal_and_leaves_the_store_whole();
  every_key_is_found_again_after_each_doubling();
  the_first_look_finds_nearly_every_key();
  keys_that_all_collide_are_only_slow();
  a_partition_whose_list_gets_no_memory_is_not_given_another_ones();
  keys_that_come_and_go_need_no_more_memory();
  puts("test_store: ok");
  return 0;
}
