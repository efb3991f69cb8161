/* The counter's frequency, found once for the process. Any thread may enter at any time; no locks. */
#include <bitactor/atomic.h>
#include <bitactor/ticks.h>

#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define NS_PER_S UINT64_C(1000000000)

static BA_ATOMIC(uint64_t) cached_hz; /* 0 until known, then the same value for ever */

#if defined(__x86_64__) || defined(__aarch64__)

enum { MEASURE_NS = 8000000, READINGS = 16 };

typedef struct reading {
  uint64_t ns, ticks;
} reading;

static uint64_t clock_ns(void) {
  struct timespec now;
#ifdef CLOCK_MONOTONIC_RAW
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
#else
  clock_gettime(CLOCK_MONOTONIC, &now);
#endif
  return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Clock and counter at one moment: of several readings the one whose two counter reads lie closest together. */
static reading read_both(void) {
  reading best = {0, 0};
  uint64_t best_width = UINT64_MAX;
  for (int i = 0; i < READINGS; i++) {
    uint64_t before = ba_ticks();
    uint64_t ns = clock_ns();
    uint64_t width = ba_ticks() - before;
    if (width >= best_width) continue;
    best_width = width;
    best = (reading){ns, before + width / 2};
  }
  return best;
}

/* Never 0. A descheduled thread only lengthens the interval, which makes the result better. */
static uint64_t measure_hz(void) {
  reading first = read_both(), last;
  do {
    struct timespec pause = {0, MEASURE_NS};
    nanosleep(&pause, NULL); /* an interrupted sleep is resumed by the loop */
    last = read_both();
  } while (last.ns - first.ns < MEASURE_NS || last.ticks <= first.ticks);
  double hz = (double)(last.ticks - first.ticks) * 1e9 / (double)(last.ns - first.ns);
  return hz < 1 ? 1 : (uint64_t)(hz + 0.5);
}

#endif

#if defined(__x86_64__)

/* What CPUID states in full (crystal, numerator and denominator), or 0. Leaf 0x16 is only a nominal figure: unused. */
static uint64_t stated_hz(void) {
  unsigned denominator, numerator, crystal_hz, unused;
  if (!__get_cpuid_count(0x15, 0, &denominator, &numerator, &crystal_hz, &unused)) return 0;
  if (!denominator || !numerator || !crystal_hz) return 0;
  return (uint64_t)crystal_hz * numerator / denominator;
}

static uint64_t find_hz(void) {
  uint64_t measured = measure_hz(), stated = stated_hz();
  uint64_t distance = stated > measured ? stated - measured : measured - stated;
  return stated && distance <= measured / 1000 ? stated : measured; /* hypervisors are known to pass on a wrong leaf */
}

bool ba_ticks_steady(void) {
  unsigned a, b, c, d;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & (1u << 8));
}

#elif defined(__aarch64__)

static uint64_t find_hz(void) {
  uint64_t hz;
  __asm__("mrs %0, cntfrq_el0" : "=r"(hz));
  hz &= UINT32_MAX; /* the upper half is reserved */
  return hz ? hz : measure_hz();
}

bool ba_ticks_steady(void) { return true; }

#else

static uint64_t find_hz(void) { return NS_PER_S; }

bool ba_ticks_steady(void) { return true; }

#endif

uint64_t ba_ticks_hz(void) {
  /* relaxed: the value is all there is, nothing else is published with it */
  uint64_t hz = ba_load_relaxed(&cached_hz);
  if (hz) return hz;
  uint64_t found = find_hz();
  /* relaxed, same reason; a compare-and-set so that the first of several finders decides and the value never changes */
  while (!hz && !ba_cas_weak_relaxed(&cached_hz, &hz, found)) {
  }
  return hz ? hz : found;
}

uint64_t ba_ticks_to_ns(uint64_t ticks) {
  uint64_t hz = ba_ticks_hz();
  /* split, so that no product overflows: the rest is below hz, and hz * 1e9 fits for counters up to 18 GHz */
  return ticks / hz * NS_PER_S + ticks % hz * NS_PER_S / hz;
}
