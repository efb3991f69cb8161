/*
 * What this processor can do, asked once, so that wheels stay baseline and loops choose at run time.
 *
 * BITACTOR_CPU=baseline|avx2|avx512 in the environment caps it, for tests; it can never claim what is not there.
 * Any thread; pure after the first call.
 */
#ifndef BITACTOR_CPU_H
#define BITACTOR_CPU_H

#include <stdbool.h>

enum ba_cpu_level {
  BA_CPU_BASELINE = 0, /* what the compiler was told: x86-64, armv8-a, z */
  BA_CPU_AVX2 = 1,     /* and BMI1, BMI2, LZCNT */
  BA_CPU_AVX512 = 2    /* F, BW, VL, DQ, CD */
};

enum ba_cpu_level ba_cpu_level(void);
bool ba_cpu_has_crc32c(void); /* an instruction for CRC-32C; false at BITACTOR_CPU=baseline */

#endif
