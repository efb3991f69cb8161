/*
 * Batches of signals to slots: the loop that decides how fast keyed actors run. One thread at a time per store.
 *
 * The common case is a key in the first bucket of its chain: four keys are compared at once and the answer is in the
 * same cache line. Everything else takes the long way through ba_store_resolve_one. In a large store buckets, links and
 * states are asked for well ahead of their use: what bounds it is how many cache misses are under way at once.
 *
 * A line found a group ahead may be stale when an insert split its bucket: then the key is not found there, and the
 * long way looks again. It is never found wrongly: buckets hold only keys that are there, with their slots.
 */
#include <bitactor/alloc.h>
#include <bitactor/cpu.h>
#include <string.h>

#include "store_impl.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { GROUP = 64 }; /* signals between asking for a line and looking at it */

/* gcc's analyser does not see that those who wait were counted by the round before. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-use-of-uninitialized-value"
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* One batch: as ba_store_resolve gets it. */
typedef struct resolve_job {
  ba_store *store;
  const ba_signal *signals;
  const uint8_t *parts;
  const uint16_t *order;
  uint32_t *slots;
  uint32_t tick;
} resolve_job;

/* Asks for a line, into the second cache: more lines may be under way there than to the first, and a batch's fit. */
ALWAYS_INLINE void fetch(const void *line) { __builtin_prefetch(line, 0, 2); }

/* A state may lie in two lines. */
ALWAYS_INLINE void fetch_instance(const ba_store *store, uint32_t slot, bool expiry) {
  const uint8_t *state = state_of(store, slot);
  fetch(state);
  fetch(state + store->stride - 1);
  if (expiry) fetch(links_of(store) + slot);
}

/* Touches the instances of the signals [from, until), in order. Returns `until`, or `from` if that is more. */
static uint32_t touch(const resolve_job *job, uint32_t from, uint32_t until) {
  for (; from < until; from++) {
    const uint32_t slot = job->slots[from];
    if (slot < BA_SLOT_REFUSED) ba_store_touch(job->store, job->parts[job->order[from]], slot, job->tick);
  }
  return from;
}

#define WAY(name) name##_scalar
#define WAY_TARGET
static inline uint32_t match_scalar(const ba_bucket *bucket, uint64_t key) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < BA_BUCKET_KEYS; i++) mask |= (uint32_t)(bucket->keys[i] == key) << i;
  return mask & bucket->live;
}
ALWAYS_INLINE void lines_scalar(const ba_table *table, const ba_hash *hash, const uint64_t *keys, uint32_t *lines) {
  for (uint32_t j = 0; j < GROUP; j++) lines[j] = ba_table_line(table, ba_hash_of(hash, keys[j]));
}
#define WAY_MATCH match_scalar
#define WAY_LINES lines_scalar
#include "resolve_loop.h"

#if defined(__x86_64__)
#define WAY(name) name##_avx2
#define WAY_TARGET __attribute__((target("avx2,bmi,bmi2,lzcnt")))
ALWAYS_INLINE WAY_TARGET uint32_t match_avx2(const ba_bucket *bucket, uint64_t key) {
  const __m256i keys = _mm256_load_si256((const __m256i *)(const void *)bucket->keys);
  const __m256i equal = _mm256_cmpeq_epi64(keys, _mm256_set1_epi64x((long long)key));
  return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(equal)) & bucket->live;
}
ALWAYS_INLINE WAY_TARGET void lines_avx2(const ba_table *table, const ba_hash *hash, const uint64_t *keys,
                                         uint32_t *lines) {
  for (uint32_t j = 0; j < GROUP; j++) lines[j] = ba_table_line(table, ba_hash_of(hash, keys[j]));
}
#define WAY_MATCH match_avx2
#define WAY_LINES lines_avx2
#include "resolve_loop.h"

#define WAY(name) name##_avx512
#define WAY_TARGET __attribute__((target("avx2,bmi,bmi2,lzcnt,avx512f,avx512vl,avx512dq,avx512cd")))
ALWAYS_INLINE WAY_TARGET uint32_t match_avx512(const ba_bucket *bucket, uint64_t key) {
  const __m256i keys = _mm256_load_si256((const __m256i *)(const void *)bucket->keys);
  return _mm256_cmpeq_epi64_mask(keys, _mm256_set1_epi64x((long long)key)) & bucket->live;
}
ALWAYS_INLINE WAY_TARGET __m256i hashes_avx512(const ba_hash *hash, const uint64_t *keys) {
  const __m512i key = _mm512_load_si512(keys);
  const __m512i low = _mm512_and_si512(key, _mm512_set1_epi64(UINT32_MAX)), high = _mm512_srli_epi64(key, 32);
  const __m512i product = _mm512_mullo_epi64(_mm512_add_epi64(low, _mm512_set1_epi64((long long)hash->a)),
                                             _mm512_add_epi64(high, _mm512_set1_epi64((long long)hash->b)));
  const __m512i sum = _mm512_add_epi64(product, _mm512_set1_epi64((long long)hash->c));
  return _mm512_cvtepi64_epi32(_mm512_srli_epi64(sum, 32));
}
/* ba_hash_of and ba_table_line of sixteen keys at a time. */
ALWAYS_INLINE WAY_TARGET void lines_avx512(const ba_table *table, const ba_hash *hash, const uint64_t *keys,
                                           uint32_t *lines) {
  const __m512i hi_mask = _mm512_set1_epi32((int)table->hi_mask), buckets = _mm512_set1_epi32((int)table->buckets);
  const __m512i half = _mm512_set1_epi32((int)(table->hi_mask - table->lo_mask));
  const __m512i first = _mm512_loadu_si512(table->segments), second = _mm512_loadu_si512(table->segments + 16);
  for (uint32_t j = 0; j < GROUP; j += 16) {
    __m512i index =
        _mm512_inserti64x4(_mm512_castsi256_si512(hashes_avx512(hash, keys + j)), hashes_avx512(hash, keys + j + 8), 1);
    index = _mm512_and_si512(index, hi_mask);
    index = _mm512_mask_sub_epi32(index, _mm512_cmpge_epu32_mask(index, buckets), index, half);
    const __m512i zeros = _mm512_lzcnt_epi32(_mm512_or_si512(index, _mm512_set1_epi32(BA_TABLE_FIRST - 1)));
    const __m512i segment = _mm512_sub_epi32(_mm512_set1_epi32(29), zeros);
    const __m512i line = _mm512_add_epi32(_mm512_permutex2var_epi32(first, segment, second), index);
    _mm512_store_si512(lines + j, line);
  }
}
#define WAY_MATCH match_avx512
#define WAY_LINES lines_avx512
#include "resolve_loop.h"
#endif

enum ba_store_way ba_store_set_way(ba_store *store, enum ba_store_way way) {
  store->way = BA_WAY_SCALAR;
  store->resolve = resolve_scalar;
  (void)way; /* there is no other way on some processors */
#if defined(__x86_64__)
  if (ba_cpu_level() == BA_CPU_AVX512 && way != BA_WAY_SCALAR && way != BA_WAY_AVX2) {
    store->way = BA_WAY_AVX512;
    store->resolve = resolve_avx512;
  } else if (ba_cpu_level() >= BA_CPU_AVX2 && way != BA_WAY_SCALAR) {
    store->way = BA_WAY_AVX2;
    store->resolve = resolve_avx2;
  }
#endif
  return store->way;
}

/*
 * The front: BA_FRONT_PLACES keys met lately with their slots, each in the one place that a multiplication by a secret
 * odd number gives it. A key that is there costs a third of the way through its table. It pays while nearly every key
 * is there: past FRONT_PROBE misses and one in FRONT_MISSES a batch goes on the long way, and so do the next FRONT_REST
 * batches; after each further try in vain twice as many, FRONT_REST_MAX at most.
 *
 * Stores with expiry have none: there a key that is met must be touched, and slots move by themselves. It is made when
 * the first large batch comes, so that small actors do not pay for it.
 * Invariant: for each place, slot is key's slot, or key is one that belongs in another place.
 */
#ifndef FRONT_ON
#define FRONT_ON 1
#endif
enum { FRONT_BATCH = 256, FRONT_MISSES = 16, FRONT_PROBE = 8, FRONT_REST = 16, FRONT_REST_MAX = 256 };

static uint64_t front_at(uint64_t factor, uint64_t key) { return (key * factor) >> (64 - BA_FRONT_BITS); }

void ba_store_clear_front(ba_store *store) {
  if (!store->front) return;
  /* Every place but its own holds key 0, and that one another key that does not belong there. */
  memset(store->front, 0, BA_FRONT_PLACES * sizeof *store->front);
  const uint64_t factor = store->front_factor;
  uint64_t stranger = 1;
  while (front_at(factor, stranger) == front_at(factor, 0)) stranger++;
  store->front[front_at(factor, 0)].key = stranger;
}

/* Resolves signals until more than one in FRONT_MISSES of them were not at the front, FRONT_PROBE aside. Returns how
 * many. `order` is null where signals[0..n) follow one another, which saves a load of three. */
ALWAYS_INLINE uint32_t look_at_front(ba_store *store, const ba_signal *signals, const uint8_t *parts,
                                     const uint16_t *order, uint32_t n, uint32_t *slots, uint32_t *refused) {
  front_place *front = store->front;
  const uint64_t factor = store->front_factor;
  uint32_t misses_left = FRONT_PROBE + n / FRONT_MISSES;
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t at = order ? order[i] : i;
    const uint64_t key = signals[at].key;
    front_place *place = &front[front_at(factor, key)];
    uint32_t slot = place->slot;
    if (__builtin_expect(place->key != key, 0)) {
      if (misses_left-- == 0) return i;
      slot = ba_store_resolve_one(store, parts[at], key, 0);
      if (slot < BA_SLOT_REFUSED) {
        *place = (front_place){key, slot, 0};
      } else {
        ++*refused;
      }
    }
    slots[i] = slot;
  }
  return n;
}

static uint32_t resolve_by_front(ba_store *store, const ba_signal *signals, const uint8_t *parts, const uint16_t *order,
                                 uint32_t n, uint32_t *slots, uint32_t *refused) {
  const uint32_t first = order[0];
  if (order[n - 1] - first == n - 1) {
    return look_at_front(store, signals + first, parts + first, NULL, n, slots, refused);
  }
  return look_at_front(store, signals, parts, order, n, slots, refused);
}

static bool has_front(ba_store *store) {
  if (store->front) return true;
  store->front = ba_alloc_aligned(BA_FRONT_PLACES * sizeof *store->front, BA_LINE_BYTES);
  ba_store_clear_front(store);
  store->front_rests = FRONT_REST;
  return store->front != NULL;
}

uint32_t ba_store_resolve(ba_store *store, const ba_signal *signals, const uint8_t *parts, const uint16_t *order,
                          uint32_t n, uint32_t tick, uint32_t *slots) {
  uint32_t done = 0, refused = 0;
  if (FRONT_ON && store->idle_ticks == 0 && n >= FRONT_BATCH) {
    if (store->front_rest) {
      store->front_rest--;
    } else if (has_front(store)) {
      done = resolve_by_front(store, signals, parts, order, n, slots, &refused);
      if (done == n) {
        store->front_rests = FRONT_REST;
        return refused;
      }
      store->front_rest = store->front_rests;
      if (store->front_rests < FRONT_REST_MAX) store->front_rests *= 2;
    } else {
      store->front_rest = FRONT_REST;
    }
  }
  const resolve_job rest = {store, signals, parts, order + done, slots + done, tick};
  return refused + store->resolve(&rest, n - done);
}
