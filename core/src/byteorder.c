/*
 * Byte order of signals: one shuffle a signal. The swap is its own inverse, so both directions are one loop; on a
 * big-endian host both are a copy. Variants differ in speed only, and tests hold each to ba_signals_swap_plain.
 */
#include <bitactor/byteorder.h>
#include <bitactor/cpu.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

void ba_signals_swap_plain(const uint8_t *in, uint8_t *out, size_t n) {
  for (size_t i = 0; i < n; i++, in += 32, out += 32) {
    ba_signal s;
    memcpy(&s, in, sizeof s);
    s.kind = __builtin_bswap16(s.kind);
    s.flags = __builtin_bswap16(s.flags);
    s.aux = __builtin_bswap32(s.aux);
    s.key = __builtin_bswap64(s.key);
    s.time = __builtin_bswap64(s.time);
    s.value = __builtin_bswap64(s.value);
    memcpy(out, &s, sizeof s);
  }
}

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__

static void swap(const uint8_t *in, uint8_t *out, size_t n) {
  if (n) memmove(out, in, 32 * n);
}

#elif defined(__x86_64__)

/* Byte i of a half comes from byte [i]: kind, flags, aux, key; time, value. */
#define FIRST_HALF 1, 0, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8
#define SECOND_HALF 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8

__attribute__((target("avx2"))) static void swap_avx2(const uint8_t *in, uint8_t *out, size_t n) {
  const __m256i pattern = _mm256_setr_epi8(FIRST_HALF, SECOND_HALF);
  for (size_t i = 0; i < n; i++) {
    __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(in + 32 * i));
    _mm256_storeu_si256((__m256i *)(void *)(out + 32 * i), _mm256_shuffle_epi8(s, pattern));
  }
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) static void swap_avx512(const uint8_t *in, uint8_t *out,
                                                                             size_t n) {
  const __m256i half = _mm256_setr_epi8(FIRST_HALF, SECOND_HALF);
  const __m512i pattern = _mm512_broadcast_i64x4(half);
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    __m512i a = _mm512_loadu_si512(in + 32 * i), b = _mm512_loadu_si512(in + 32 * i + 64);
    _mm512_storeu_si512(out + 32 * i, _mm512_shuffle_epi8(a, pattern));
    _mm512_storeu_si512(out + 32 * i + 64, _mm512_shuffle_epi8(b, pattern));
  }
  for (; i < n; i++) {
    __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(in + 32 * i));
    _mm256_storeu_si256((__m256i *)(void *)(out + 32 * i), _mm256_shuffle_epi8(s, half));
  }
}

static void swap(const uint8_t *in, uint8_t *out, size_t n) {
  switch (ba_cpu_level()) {
    case BA_CPU_AVX512: swap_avx512(in, out, n); return;
    case BA_CPU_AVX2: swap_avx2(in, out, n); return;
    case BA_CPU_BASELINE: ba_signals_swap_plain(in, out, n);
  }
}

#elif defined(__aarch64__)

static void swap(const uint8_t *in, uint8_t *out, size_t n) {
  static const uint8_t first[16] = {1, 0, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8};
  const uint8x16_t pattern = vld1q_u8(first);
  for (size_t i = 0; i < n; i++) {
    uint8x16_t a = vld1q_u8(in + 32 * i), b = vld1q_u8(in + 32 * i + 16);
    vst1q_u8(out + 32 * i, vqtbl1q_u8(a, pattern));
    vst1q_u8(out + 32 * i + 16, vrev64q_u8(b));
  }
}

#else

static void swap(const uint8_t *in, uint8_t *out, size_t n) { ba_signals_swap_plain(in, out, n); }

#endif

void ba_signals_to_be(const ba_signal *in, uint8_t *out, size_t n) { swap((const uint8_t *)in, out, n); }

void ba_signals_from_be(const uint8_t *in, ba_signal *out, size_t n) { swap(in, (uint8_t *)out, n); }
