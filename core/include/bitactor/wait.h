/*
 * Waiting for a condition that another thread makes true: spin, then yield, then park on a futex.
 *
 * A wait point belongs to one condition ("there are items", "there is room"). The waiting thread tries its operation
 * and calls ba_waiter_step between tries; the thread that makes the condition true calls ba_wake, which costs one
 * load while nobody is parked:
 *
 *   waiting thread                                  waking thread
 *     ba_waiter w = ba_waiter_begin(point, ns);       make the condition true (see below)
 *     while (!(done = try()) &&                       ba_wake(point);
 *            ba_waiter_step(&w)) {}
 *     ba_waiter_end(&w);
 *
 * Any number of threads (at most BA_WAIT_PARKED_MAX) may wait at a point and any number may wake.
 *
 * Why no wake-up is lost. Before it sleeps, a waiter announces itself in `word` (a seq_cst read-modify-write), then
 * tries once more. Both sides store first and load second, so at least one must see the other's store:
 *
 *   waiter:  word.parked += 1 ; load condition          waker:  store condition ; load word
 *
 * With all four accesses seq_cst, in the one order of seq_cst accesses either the waker's store of the condition comes
 * before the waiter's load of it, and the last try succeeds; or the waiter's announcement comes before the waker's load
 * of `word`, and the waker wakes it. So what a waker stores and what a try loads must be seq_cst (weaker: both loads
 * may be served before both stores, on x86 too, and the waiter sleeps on a true condition).
 *
 * A seq_cst store drains the store buffer on each publish. A point with `asymmetric` set moves that cost to the side
 * that is about to sleep: the waker does a release store, a compiler barrier and a relaxed load; the waiter, after its
 * announcement, asks the kernel (membarrier, private expedited) to run a full barrier on every core that runs a thread
 * of this process. At that moment each waker either has not loaded `word` yet, and will see the announcement; or has,
 * and then its earlier store is visible to the waiter's last try. Only for points whose wakers live in this process.
 * ba_wait_can_be_asymmetric says whether the kernel offers it.
 *
 * `word` = epoch << 17 | waking << 16 | parked, 0 <= parked <= BA_WAIT_PARKED_MAX. It is also the futex word.
 * - parked: threads between announcement and departure.
 * - waking: a waker has claimed the duty to wake one thread, and no thread has departed since. Other wakers then need
 *   not wake: the thread on its way tries after it departs (its departure is a seq_cst read-modify-write, later than
 *   their loads, so its try sees their stores; at an asymmetric point it asks for the barrier again in between, if
 *   others are still parked: with nobody asleep a store that it does not see yet is nobody's lost wake-up). It is set
 *   only together with parked > 0. A waiter never sleeps while it is set. One thread is woken at a time, so a thread
 *   that succeeds after it was parked and sees that more can be had must call ba_wake in its turn
 *   (ba_waiter_was_parked tells); rings do.
 * - epoch: changes with every wake and every departure, so that a waiter that read `word` before does not fall asleep
 *   after.
 * A thread that needs more than the condition at hand (a whole batch of room) may not take another's only wake-up:
 * it begins with ba_waiter_begin_picky, and while it waits every wake wakes all.
 */
#ifndef BITACTOR_WAIT_H
#define BITACTOR_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include <bitactor/atomic.h>

#define BA_WAIT_FOREVER UINT64_MAX

enum {
  BA_WAIT_SPINS = 16, /* tries before the first yield, with 1, 2, 4, 8, 16, 16, ... pauses between: some 5 us */
  BA_WAIT_YIELDS = 8, /* tries that give the core away before parking */
  BA_WAIT_PARKED_MAX = 0xffff,
  BA_WAIT_WAKING = 0x10000,
  BA_WAIT_EPOCH_ONE = 0x20000,
};

typedef struct ba_wait_point {
  BA_ALIGNED_LINE BA_ATOMIC(uint32_t) word; /* see above; written by waiters and wakers, rarely */
  BA_ATOMIC(uint32_t) picky;                /* waiters, among those parked, that need every wake */
  BA_ATOMIC(uint64_t) parks;                /* times a thread went to sleep here; only grows */
  uint32_t shared;                          /* not 0: threads of several processes meet here; constant */
  uint32_t asymmetric;                      /* not 0: wakers store with release only; constant */
} ba_wait_point;

/* Between begin and end, on the waiting thread's stack; only that thread touches it. */
typedef struct ba_waiter {
  ba_wait_point *point;
  uint64_t timeout_ns;  /* as given */
  uint64_t deadline_ns; /* monotonic clock; 0: not read yet */
  uint64_t nap_ns;      /* without futexes: length of the next nap */
  uint32_t spins_left;  /* tries before the first yield */
  uint32_t pauses;      /* before the next of them */
  uint32_t yields_left;
  uint32_t key; /* `word` as it was after the announcement */
  bool announced, picky, parked, last;
} ba_waiter;

/* Makes *point ready; shared and asymmetric exclude each other. The caller owns it alone until it publishes it. */
void ba_wait_point_init(ba_wait_point *point, bool shared, bool asymmetric);

/* Whether a point may be asymmetric on this machine; asks the kernel at the first call. Any thread; does not wait. */
bool ba_wait_can_be_asymmetric(void);

/*
 * Begins a wait of at most timeout_ns (BA_WAIT_FOREVER: no limit; 0: do not wait). Does not wait itself.
 * picky: see above.
 */
ba_waiter ba_waiter_begin(ba_wait_point *point, uint64_t timeout_ns);
ba_waiter ba_waiter_begin_picky(ba_wait_point *point, uint64_t timeout_ns);

/*
 * After a try that failed: waits a little, or until woken. True: try again. False: the time is over, and a try was
 * made after it ended. A signal handler that ran in this thread may make it return true early.
 */
bool ba_waiter_step_slow(ba_waiter *w);

static inline bool ba_waiter_step(ba_waiter *w) {
  if (w->spins_left > 0) {
    /* Pauses grow from 1 to 16: a waiter that looks without rest takes the line of the counter away from the thread
     * that it waits for at each of its stores, and both are slow. */
    w->spins_left--;
    for (uint32_t i = 0; i < w->pauses; i++) ba_pause();
    if (w->pauses < 16) w->pauses *= 2;
    return true;
  }
  return ba_waiter_step_slow(w);
}

/* Ends the wait, successful or not. Must follow every begin. */
void ba_waiter_end_slow(ba_waiter *w);

static inline void ba_waiter_end(ba_waiter *w) {
  if (w->announced || w->picky) ba_waiter_end_slow(w);
}

/* The operation succeeded in part and goes on waiting: spins afresh within the same time. */
void ba_waiter_progress(ba_waiter *w);

/* Whether this wait went to sleep at least once: then pass the wake-up on if more can be had. */
static inline bool ba_waiter_was_parked(const ba_waiter *w) { return w->parked; }

/* The rest of ba_wake. */
void ba_wake_slow(ba_wait_point *point);

/* One thread (or, with a picky one among them, all) parked at the point tries again. Any thread; never waits. */
static inline void ba_wake(ba_wait_point *point) {
  /* seq_cst: the load of the pair above; it must not be served before the caller's seq_cst store of the condition. */
  const uint32_t word = ba_load_seq_cst(&point->word);
  if ((word & BA_WAIT_PARKED_MAX) != 0 && (word & BA_WAIT_WAKING) == 0) ba_wake_slow(point);
}

/* Every thread parked at the point tries again (closing). Any thread; never waits. */
void ba_wake_all(ba_wait_point *point);

/* Threads announced or asleep at the point, a moment ago. */
static inline uint32_t ba_was_parked(ba_wait_point *point) {
  return ba_load_relaxed(&point->word) & BA_WAIT_PARKED_MAX; /* relaxed: a figure for people */
}

/* ba_wake at an asymmetric point, after a release store of the condition. */
static inline void ba_wake_after_release(ba_wait_point *point) {
  ba_compiler_barrier(); /* the store stays before the load in the program; the waiter's membarrier does the rest */
  const uint32_t word = ba_load_relaxed(&point->word); /* relaxed: see "asymmetric" above */
  if ((word & BA_WAIT_PARKED_MAX) != 0 && (word & BA_WAIT_WAKING) == 0) ba_wake_slow(point);
}

/*
 * Stores what a waiter's try loads (a free-running counter, a slot's mark), then wakes: the store and the wake of one
 * point in one. The store has release order at least: what the caller wrote before is visible to who loads the value.
 */
static inline void ba_store_and_wake(BA_ATOMIC(uint64_t) *counter, uint64_t value, ba_wait_point *point) {
  if (point->asymmetric) {
    ba_store_release(counter, value); /* release: the items below are visible to the acquire load of the other side */
    ba_wake_after_release(point);
  } else {
    ba_store_seq_cst(counter, value); /* seq_cst: the store of the pair above, and release for the items */
    ba_wake(point);
  }
}

static inline void ba_store_mark_and_wake(BA_ATOMIC(uint32_t) *mark, uint32_t value, ba_wait_point *point) {
  if (point->asymmetric) {
    ba_store_release(mark, value); /* release: the slot's content is visible to the acquire load of who scans it */
    ba_wake_after_release(point);
  } else {
    ba_store_seq_cst(mark, value); /* seq_cst: the store of the pair above, and release for the slot */
    ba_wake(point);
  }
}

/* Nanoseconds of the monotonic clock. Any thread; does not wait. */
uint64_t ba_monotonic_ns(void);

#endif
