/* The counter runs forward, its frequency is found once by whoever asks first, and ticks become nanoseconds. */
#include <bitactor/ticks.h>

#include <pthread.h>
#include <time.h>

#include "check.h"

static uint64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void *ask_hz(void *answer) {
  *(uint64_t *)answer = ba_ticks_hz();
  return NULL;
}

static void every_thread_that_asks_at_once_gets_the_same_frequency(void) {
  enum { THREADS = 8 };
  pthread_t threads[THREADS];
  uint64_t answers[THREADS];
  for (int i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, ask_hz, &answers[i]), "thread %d", i);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < THREADS; i++) {
    CHECK(answers[i] == answers[0] && answers[i] == ba_ticks_hz(), "thread %d got %llu, thread 0 %llu", i,
          (unsigned long long)answers[i], (unsigned long long)answers[0]);
  }
  CHECK(answers[0] >= 1000000 && answers[0] <= UINT64_C(18000000000), "%llu Hz", (unsigned long long)answers[0]);
}

static void the_counter_does_not_run_backward(void) {
  uint64_t last = ba_ticks();
  for (int i = 0; i < 100000; i++) {
    uint64_t now = ba_ticks();
    CHECK(now >= last, "%llu after %llu", (unsigned long long)now, (unsigned long long)last);
    last = now;
  }
}

/* The best of several tries: a loaded machine can only disturb a try. 1% because the two clocks are slewed apart. */
static void ticks_become_the_nanoseconds_of_the_monotonic_clock(void) {
  double best = 1e9;
  for (int try = 0; try < 20 && best > 0.01; try++) {
    uint64_t ns0 = clock_ns(), ticks0 = ba_ticks();
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    uint64_t ns = clock_ns() - ns0, by_ticks = ba_ticks_to_ns(ba_ticks() - ticks0);
    double off = (double)by_ticks / (double)ns - 1;
    if (off < 0) off = -off;
    if (off < best) best = off;
  }
  CHECK(best <= 0.01, "off by %f", best);
}

static void conversion_does_not_overflow(void) {
  uint64_t hz = ba_ticks_hz(), year_s = 31536000;
  CHECK(ba_ticks_to_ns(0) == 0, "zero");
  CHECK(ba_ticks_to_ns(hz) == UINT64_C(1000000000), "a second is %llu ns", (unsigned long long)ba_ticks_to_ns(hz));
  CHECK(ba_ticks_to_ns(hz * year_s) == UINT64_C(1000000000) * year_s, "a year");
  CHECK(ba_ticks_to_ns(hz * year_s + hz - 1) >= UINT64_C(1000000000) * year_s, "most of a second more");
}

int main(void) {
  every_thread_that_asks_at_once_gets_the_same_frequency();
  the_counter_does_not_run_backward();
  ticks_become_the_nanoseconds_of_the_monotonic_clock();
  conversion_does_not_overflow();
  printf("test_ticks: ok (%llu Hz, %s)\n", (unsigned long long)ba_ticks_hz(),
         ba_ticks_steady() ? "steady" : "not steady");
  return 0;
}
