/* Processor features: see cpu.h. The answer is cached in one atomic; two first callers find the same one. */
#include <bitactor/atomic.h>
#include <bitactor/cpu.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

enum { KNOWN = 1 << 8, CRC = 1 << 9 };

static int detect(void) {
  int level = BA_CPU_BASELINE;
  bool crc = false;
#if defined(__x86_64__)
  __builtin_cpu_init();
  /* Every processor with AVX2 so far has BMI1, BMI2 and LZCNT; one without is baseline here. */
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
    level = BA_CPU_AVX2;
  }
  if (level && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) {
    level = BA_CPU_AVX512;
  }
  crc = __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__) && defined(__linux__)
  crc = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
  const char *cap = getenv("BITACTOR_CPU");
  if (cap && !strcmp(cap, "baseline")) {
    level = BA_CPU_BASELINE;
    crc = false;
  } else if (cap && !strcmp(cap, "avx2") && level > BA_CPU_AVX2) {
    level = BA_CPU_AVX2;
  }
  return KNOWN | (crc ? CRC : 0) | level;
}

static int features(void) {
  static BA_ATOMIC(int) cached;
  int found =
      ba_load_relaxed(&cached); /* relaxed: the value is all there is to see, and every thread computes the same */
  if (found) return found;
  found = detect();
  ba_store_relaxed(&cached, found);
  return found;
}

enum ba_cpu_level ba_cpu_level(void) { return (enum ba_cpu_level)(features() & 0xff); }

bool ba_cpu_has_crc32c(void) { return (features() & CRC) != 0; }
