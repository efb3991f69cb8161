/* Partition numbers and kinds of many signals at once. Pure functions; any thread may call them at any time. */
#include <bitactor/cpu.h>
#include <bitactor/signal.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/*
 * Bytes that are asked for ahead of their use: the first look at signals in memory is bound by how many cache lines are
 * under way, and the processor's own prefetcher stops at each page. A prefetch past the end does nothing.
 */
enum { AHEAD_BYTES = 8192 };

static inline void fetch_ahead(const ba_signal *signal, uintptr_t line) {
  __builtin_prefetch((const void *)((uintptr_t)signal + AHEAD_BYTES + 64 * line));
}

static uint32_t survey_plain(const ba_signal *signals, size_t n, uint8_t *parts) {
  const uint16_t kind = signals[0].kind, flags = signals[0].flags;
  uint32_t kinds = 0, all_flags = 0;
  for (size_t i = 0; i < n; i++) {
    if (i % 2 == 0) fetch_ahead(signals + i, 0);
    kinds |= (uint32_t)(signals[i].kind ^ kind);
    all_flags |= (uint32_t)(signals[i].flags ^ flags);
    parts[i] = ba_partition(signals[i].key);
  }
  return all_flags << 16 | kinds;
}

#if defined(__x86_64__)

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

/* ba_mix64 of eight keys. */
AVX512 static inline __m512i mix_avx512(__m512i key) {
  key = _mm512_xor_si512(key, _mm512_srli_epi64(key, 33));
  key = _mm512_mullo_epi64(key, _mm512_set1_epi64((long long)UINT64_C(0xff51afd7ed558ccd)));
  key = _mm512_xor_si512(key, _mm512_srli_epi64(key, 33));
  key = _mm512_mullo_epi64(key, _mm512_set1_epi64((long long)UINT64_C(0xc4ceb9fe1a85ec53)));
  return _mm512_xor_si512(key, _mm512_srli_epi64(key, 33));
}

AVX512 static void lanes_avx512(const uint8_t *keys, size_t n, uint64_t mask, uint8_t *out) {
  const __m512i masks = _mm512_set1_epi64((long long)mask);
  for (size_t i = 0; i + 8 <= n; i += 8) {
    const __m512i key = _mm512_and_si512(mix_avx512(_mm512_loadu_si512(keys + 8 * i)), masks);
    _mm_storel_epi64((__m128i *)(void *)(out + i), _mm512_cvtepi64_epi8(key));
  }
}

/* Eight signals at a time: four loads, of which the keys are gathered by two permutations, and the first words compared
 * where they lie. */
AVX512 static uint32_t survey_avx512(const ba_signal *signals, size_t n, uint8_t *parts) {
  const __m512i keys_of = _mm512_setr_epi64(1, 5, 9, 13, 1, 5, 9, 13);
  const uint32_t word = (uint32_t)signals[0].flags << 16 | signals[0].kind;
  const __m512i same = _mm512_set1_epi32((int)word);
  __m512i other = _mm512_setzero_si512();
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (uintptr_t line = 0; line < 4; line++) fetch_ahead(signals + i, line);
    const __m512i a = _mm512_loadu_si512(signals + i), b = _mm512_loadu_si512(signals + i + 2);
    const __m512i c = _mm512_loadu_si512(signals + i + 4), d = _mm512_loadu_si512(signals + i + 6);
    const __m512i low = _mm512_permutex2var_epi64(a, keys_of, b), high = _mm512_permutex2var_epi64(c, keys_of, d);
    __m512i key = mix_avx512(_mm512_mask_blend_epi64(0xf0, low, high));
    key = _mm512_and_si512(key, _mm512_set1_epi64(BA_PARTITIONS - 1));
    _mm_storel_epi64((__m128i *)(void *)(parts + i), _mm512_cvtepi64_epi8(key));
    other = _mm512_ternarylogic_epi64(other, a, same, 0xf6); /* other | (a ^ same) */
    other = _mm512_ternarylogic_epi64(other, b, same, 0xf6);
    other = _mm512_ternarylogic_epi64(other, c, same, 0xf6);
    other = _mm512_ternarylogic_epi64(other, d, same, 0xf6);
  }
  uint32_t differs = (uint32_t)_mm512_mask_reduce_or_epi32(0x0101, other); /* the first words of both signals */
  for (; i < n; i++) {
    differs |= ((uint32_t)signals[i].flags << 16 | signals[i].kind) ^ word;
    parts[i] = ba_partition(signals[i].key);
  }
  return differs;
}

#endif

uint32_t ba_survey(const ba_signal *signals, size_t n, uint8_t *parts) {
#if defined(__x86_64__)
  if (ba_cpu_level() == BA_CPU_AVX512) return survey_avx512(signals, n, parts);
#endif
  return survey_plain(signals, n, parts);
}

void ba_partitions(const ba_signal *signals, size_t n, uint8_t *parts) {
  if (n) (void)ba_survey(signals, n, parts);
}

void ba_lanes(const void *keys, ptrdiff_t stride, size_t n, uint32_t lanes, uint8_t *out) {
  const uint8_t *at = keys;
  size_t i = 0;
#if defined(__x86_64__)
  if (stride == sizeof(uint64_t) && ba_cpu_level() == BA_CPU_AVX512) {
    lanes_avx512(at, n, lanes - 1, out);
    i = n & ~(size_t)7;
  }
#endif
  for (; i < n; i++) {
    uint64_t key;
    memcpy(&key, at + (ptrdiff_t)i * stride, sizeof key);
    out[i] = (uint8_t)(ba_mix64(key) & (lanes - 1));
  }
}
