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
#include <bitactor/cpu.h>
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
#else
  (void)way;
#endif
  return store->way;
}

uint32_t ba_store_resolve(ba_store *store, const ba_signal *signals, const uint8_t *parts, const uint16_t *order,
                          uint32_t n, uint32_t tick, uint32_t *slots) {
  return store->resolve(store, signals, parts, order, n, tick, slots);
}
