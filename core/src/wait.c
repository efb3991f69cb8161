/*
 * Parking and waking (wait.h has the argument). Linux: futex and membarrier. Elsewhere a parked thread naps and looks
 * again, at most BA_NAP_NS_MAX later; the same calls, slower hand-over.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <bitactor/wait.h>

#include <limits.h>
#include <sched.h>
#include <time.h>

#ifdef __linux__
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
  BA_NAP_NS_MIN = 50000, /* without futexes */
  BA_NAP_NS_MAX = 1000000
};

uint64_t ba_monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void nap(uint64_t ns) {
  struct timespec time = {.tv_sec = (time_t)(ns / UINT64_C(1000000000)), .tv_nsec = (long)(ns % UINT64_C(1000000000))};
  nanosleep(&time, NULL);
}

#ifdef __linux__

static long futex(ba_wait_point *point, int op, uint32_t value, const struct timespec *time) {
  if (!point->shared) op |= FUTEX_PRIVATE_FLAG;
  return syscall(SYS_futex, (uint32_t *)&point->word, op, value, time, NULL, 0);
}

/* Sleeps while the word is `key`, at most ns. */
static void sleep_while(ba_waiter *w, uint64_t ns) {
  struct timespec time = {.tv_sec = (time_t)(ns / UINT64_C(1000000000)), .tv_nsec = (long)(ns % UINT64_C(1000000000))};
  futex(w->point, FUTEX_WAIT, w->key, ns == BA_WAIT_FOREVER ? NULL : &time);
}

static void wake_threads(ba_wait_point *point, int n) { futex(point, FUTEX_WAKE, (uint32_t)n, NULL); }

static bool process_barrier(void) { return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0; }

bool ba_wait_can_be_asymmetric(void) {
  static BA_ATOMIC(int) known; /* 0: not asked yet, 1: no, 2: yes; every asker finds the same, so relaxed is enough */
  int answer = ba_load_relaxed(&known);
  if (answer == 0) {
    const long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    const bool yes = commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 &&
                     syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 && process_barrier();
    answer = yes ? 2 : 1;
    ba_store_relaxed(&known, answer);
  }
  return answer == 2;
}

#else

static void sleep_while(ba_waiter *w, uint64_t ns) {
  /* relaxed: only decides whether to nap; the try that follows loads the condition itself */
  if (ba_load_relaxed(&w->point->word) != w->key) return;
  nap(ns < w->nap_ns ? ns : w->nap_ns);
  if (w->nap_ns < BA_NAP_NS_MAX) w->nap_ns *= 2;
}

static void wake_threads(ba_wait_point *point, int n) {
  (void)point;
  (void)n;
}

static bool process_barrier(void) { return false; }

bool ba_wait_can_be_asymmetric(void) { return false; }

#endif

void ba_wait_point_init(ba_wait_point *point, bool shared, bool asymmetric) {
  /* relaxed: nobody else knows the point yet */
  ba_store_relaxed(&point->word, 0);
  ba_store_relaxed(&point->picky, 0);
  ba_store_relaxed(&point->parks, 0);
  point->shared = shared;
  point->asymmetric = asymmetric && !shared && ba_wait_can_be_asymmetric();
}

ba_waiter ba_waiter_begin(ba_wait_point *point, uint64_t timeout_ns) {
  return (ba_waiter){.point = point,
                     .timeout_ns = timeout_ns,
                     .nap_ns = BA_NAP_NS_MIN,
                     .spins_left = timeout_ns == 0 ? 0 : BA_WAIT_SPINS,
                     .pauses = 1,
                     .yields_left = BA_WAIT_YIELDS};
}

ba_waiter ba_waiter_begin_picky(ba_wait_point *point, uint64_t timeout_ns) {
  ba_waiter w = ba_waiter_begin(point, timeout_ns);
  w.picky = true;
  /* seq_cst: precedes the announcement, so a waker that sees this thread parked sees it picky */
  ba_fetch_add_seq_cst(&point->picky, 1);
  return w;
}

/* At an asymmetric point: what wakers stored before they loaded `word` is visible to this thread from here on. */
static void see_wakers(const ba_wait_point *point) {
  /* Where the kernel once agreed to barriers it does not refuse them later; should it, a nap outlasts store buffers. */
  if (point->asymmetric && !process_barrier()) nap(BA_NAP_NS_MIN);
}

/* Announces this thread: from here until depart, a waker will see it. */
static void announce(ba_waiter *w) {
  /* seq_cst: the store of the waiter's side of the pair (wait.h); weaker and the try after it may be served first */
  w->key = ba_fetch_add_seq_cst(&w->point->word, 1) + 1;
  w->announced = true;
  see_wakers(w->point);
}

/* True if others are still parked. */
static bool depart(ba_waiter *w) {
  uint32_t word = ba_load_relaxed(&w->point->word); /* relaxed: the exchange below checks it */
  /* seq_cst: later than the loads of the wakers that saw `waking` and relied on this thread's next try */
  while (!ba_cas_weak_seq_cst(&w->point->word, &word, ((word - 1) & ~(uint32_t)BA_WAIT_WAKING) + BA_WAIT_EPOCH_ONE)) {
  }
  w->announced = false;
  return (word & BA_WAIT_PARKED_MAX) > 1;
}

void ba_waiter_progress(ba_waiter *w) {
  if (w->announced) depart(w);
  w->spins_left = BA_WAIT_SPINS;
  w->pauses = 1;
  w->yields_left = BA_WAIT_YIELDS;
}

bool ba_waiter_step_slow(ba_waiter *w) {
  if (w->last || w->timeout_ns == 0) return false;
  if (w->announced) {
    /* The try after the announcement failed: sleep, unless somebody woke since or is waking. */
    uint64_t left = BA_WAIT_FOREVER;
    if (w->timeout_ns != BA_WAIT_FOREVER) {
      const uint64_t now = ba_monotonic_ns();
      left = now < w->deadline_ns ? w->deadline_ns - now : 0;
    }
    if (left > 0 && (w->key & BA_WAIT_WAKING) == 0) {
      ba_fetch_add_relaxed(&w->point->parks, 1); /* relaxed: a figure for people */
      sleep_while(w, left);
    }
    w->parked = true;
    if (depart(w)) see_wakers(w->point); /* a waker may have left the others to this thread: wait.h, `waking` */
    if (w->timeout_ns != BA_WAIT_FOREVER && ba_monotonic_ns() >= w->deadline_ns) w->last = true;
    return true;
  }
  if (w->deadline_ns == 0 && w->timeout_ns != BA_WAIT_FOREVER) {
    const uint64_t now = ba_monotonic_ns();
    w->deadline_ns = w->timeout_ns > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + w->timeout_ns;
  }
  if (w->yields_left > 0) {
    w->yields_left--;
    sched_yield();
    if (w->timeout_ns != BA_WAIT_FOREVER && ba_monotonic_ns() >= w->deadline_ns) w->last = true;
    return true;
  }
  announce(w);
  return true;
}

void ba_waiter_end_slow(ba_waiter *w) {
  if (w->announced) depart(w);
  if (w->picky) ba_fetch_add_seq_cst(&w->point->picky, (uint32_t)-1); /* seq_cst: as in begin; never on a hot path */
  w->picky = false;
}

void ba_wake_slow(ba_wait_point *point) {
  uint32_t word = ba_load_seq_cst(&point->word);
  do {
    if ((word & BA_WAIT_PARKED_MAX) == 0 || (word & BA_WAIT_WAKING) != 0) return;
    /* seq_cst: sees what begin_picky stored before an announcement that is counted in `word` */
    if (ba_load_seq_cst(&point->picky) != 0) {
      ba_wake_all(point);
      return;
    }
    /* seq_cst: in one order with announcements and departures; carries the caller's stores to who reads `word` */
  } while (!ba_cas_weak_seq_cst(&point->word, &word, (word + BA_WAIT_EPOCH_ONE) | BA_WAIT_WAKING));
  wake_threads(point, 1);
}

void ba_wake_all(ba_wait_point *point) {
  /* seq_cst: as above. The epoch changes even with nobody parked, so that one about to sleep does not. */
  if ((ba_fetch_add_seq_cst(&point->word, BA_WAIT_EPOCH_ONE) & BA_WAIT_PARKED_MAX) != 0) wake_threads(point, INT_MAX);
}
