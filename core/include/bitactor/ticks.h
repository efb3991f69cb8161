/*
 * Ticks: the cheapest steady counter of the machine, and its frequency, so that ticks become nanoseconds.
 *
 * Any thread may call everything here at any time.
 *
 * A tick is one step of the timestamp counter (TSC) on x86-64, of the virtual counter (CNTVCT_EL0) on aarch64, one
 * nanosecond elsewhere. A tick is NOT a core cycle: the TSC runs at a fixed rate whatever the core's clock does, and an
 * ARM counter often runs at 24 MHz to 1 GHz beside a core of 3 GHz. Never compare ticks of two machines, and never
 * compare ticks with cycles; turn both into nanoseconds with ba_ticks_hz() first.
 *
 * Invariants: two reads on one core never decrease; ba_ticks_hz() > 0 and never changes within a process.
 */
#ifndef BITACTOR_TICKS_H
#define BITACTOR_TICKS_H

#include <stdbool.h>
#include <stdint.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <time.h>
#endif

/*
 * The counter now. Wait-free; about 20 to 40 core cycles.
 *
 * The read does not serialise (no rdtscp, lfence or isb): instructions before it may finish after it and the other way
 * round, an error of some tens of cycles. We time batches of thousands of signals, where that is below the noise, and
 * a serialising read would stall the very pipeline that is measured. To time a handful of instructions, repeat them.
 */
static inline uint64_t ba_ticks(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
#endif
}

/*
 * Ticks in a second. x86-64: what CPUID leaf 0x15 states when it states it fully and a measurement agrees to 0.1%, else
 * the measurement itself, against CLOCK_MONOTONIC_RAW. aarch64: CNTFRQ_EL0, measured where firmware left it zero.
 * Elsewhere 1e9. The first call may take some 10 ms (it sleeps, holding no lock); later ones are one load. Callers that
 * hold Python's GIL call it once at start, not from a hot path.
 */
uint64_t ba_ticks_hz(void);

/* Nanoseconds that `ticks` last, rounded down; exact for every ticks whose result fits into 64 bits. */
uint64_t ba_ticks_to_ns(uint64_t ticks);

/*
 * Whether the counter is stated to keep its rate in every power state (x86-64: CPUID 0x80000007; elsewhere by
 * architecture). Where false, durations in ticks are estimates; say so beside them.
 */
bool ba_ticks_steady(void);

#endif
