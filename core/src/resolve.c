/*
 * Batches of signals to slots: the loop that decides how fast keyed actors run. One thread at a time per store.
 *
 * The common case is a key in the first bucket of its chain: four keys are compared at once and the answer is in the
 * same cache line. Everything else takes the long way through ba_store_resolve_one. When the tables are larger than a
 * core's own cache, buckets, links and states are prefetched a group ahead of their use.
 *
 * A bucket address computed a group ahead may be stale when an insert split it: then the key is not found there, and
 * the long way looks again. It is never found wrongly: buckets hold only keys that are there, with their slots.
 */
#include <bitactor/alloc.h>
#include <bitactor/cpu.h>
#include <string.h>

#include "store_impl.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
  GROUP = 32,              /* signals whose cache misses are in flight together */
  LARGE_BYTES = 768 * 1024 /* tables and states above this are prefetched */
};

/* gcc's analyser does not see that a group is looked up only after a round that filled it. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-use-of-uninitialized-value"
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define WAY(name) name##_scalar
#define WAY_TARGET
static inline uint32_t match_scalar(const ba_bucket *bucket, uint64_t key) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < BA_BUCKET_KEYS; i++) mask |= (uint32_t)(bucket->keys[i] == key) << i;
  return mask & bucket->live;
}
#define WAY_MATCH match_scalar
#include "resolve_loop.h"

#if defined(__x86_64__)
#define WAY(name) name##_avx2
#define WAY_TARGET __attribute__((target("avx2,bmi,bmi2,lzcnt")))
ALWAYS_INLINE WAY_TARGET uint32_t match_avx2(const ba_bucket *bucket, uint64_t key) {
  const __m256i keys = _mm256_load_si256((const __m256i *)(const void *)bucket->keys);
  const __m256i equal = _mm256_cmpeq_epi64(keys, _mm256_set1_epi64x((long long)key));
  return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(equal)) & bucket->live;
}
#define WAY_MATCH match_avx2
#include "resolve_loop.h"

#define WAY(name) name##_avx512
#define WAY_TARGET __attribute__((target("avx2,bmi,bmi2,lzcnt,avx512f,avx512vl")))
ALWAYS_INLINE WAY_TARGET uint32_t match_avx512(const ba_bucket *bucket, uint64_t key) {
  const __m256i keys = _mm256_load_si256((const __m256i *)(const void *)bucket->keys);
  return _mm256_cmpeq_epi64_mask(keys, _mm256_set1_epi64x((long long)key)) & bucket->live;
}
#define WAY_MATCH match_avx512
#include "resolve_loop.h"
#endif

enum ba_store_way ba_store_set_way(ba_store *store, enum ba_store_way way) {
  store->way = BA_WAY_SCALAR;
  store->resolve = resolve_scalar;
  (void)way; /* there is no other way on some processors */
#if defined(__x86_64__)
  if (ba_cpu_level() == BA_CPU_AVX512 && way == BA_WAY_AVX512) {
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
 * is there, so a batch with more than one miss in FRONT_MISSES sends the next FRONT_REST batches the long way.
 *
 * Stores with expiry have none: there a key that is met must be touched, and slots move by themselves. It is made when
 * the first large batch comes, so that small actors do not pay for it.
 * Invariant: for each place, slot is key's slot, or key is one that belongs in another place.
 */
enum { FRONT_BATCH = 256, FRONT_MISSES = 16, FRONT_REST = 16 };

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

static uint32_t resolve_by_front(ba_store *store, const ba_signal *signals, const uint8_t *parts, const uint16_t *order,
                                 uint32_t n, uint32_t *slots) {
  front_place *front = store->front;
  const uint64_t factor = store->front_factor;
  uint32_t refused = 0, missed = 0;
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t key = signals[order[i]].key;
    front_place *place = &front[front_at(factor, key)];
    uint32_t slot = place->slot;
    if (__builtin_expect(place->key != key, 0)) {
      missed++;
      slot = ba_store_resolve_one(store, parts[order[i]], key, 0);
      if (slot < BA_SLOT_REFUSED) {
        *place = (front_place){key, slot, 0};
      } else {
        refused++;
      }
    }
    slots[i] = slot;
  }
  if (missed * FRONT_MISSES > n) store->front_rest = FRONT_REST;
  return refused;
}

static bool has_front(ba_store *store) {
  if (store->front) return true;
  store->front = ba_alloc_aligned(BA_FRONT_PLACES * sizeof *store->front, BA_LINE_BYTES);
  ba_store_clear_front(store);
  return store->front != NULL;
}

uint32_t ba_store_resolve(ba_store *store, const ba_signal *signals, const uint8_t *parts, const uint16_t *order,
                          uint32_t n, uint32_t tick, uint32_t *slots) {
  if (store->idle_ticks == 0 && n >= FRONT_BATCH) {
    if (store->front_rest) {
      store->front_rest--;
    } else if (has_front(store)) {
      return resolve_by_front(store, signals, parts, order, n, slots);
    } else {
      store->front_rest = FRONT_REST;
    }
  }
  return store->resolve(store, signals, parts, order, n, tick, slots);
}
