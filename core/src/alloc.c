/*
 * Allocation and the failure that tests inject into it. Any thread; nothing waits.
 * Invariant: failures <= attempts, both counted only while injection is on.
 */
#include <stdlib.h>
#include <string.h>

#include <bitactor/alloc.h>
#include <bitactor/atomic.h>

static BA_ATOMIC(uint64_t) fail_every;
static BA_ATOMIC(uint64_t) attempts;
static BA_ATOMIC(uint64_t) failures;

/*
 * Relaxed throughout this file: the numbers order nothing and publish nothing. The read-modify-write gives each
 * attempt a number of its own, which is all that "every n-th" needs.
 */
void ba_alloc_fail_every(uint64_t n) {
  ba_store_relaxed(&attempts, 0);
  ba_store_relaxed(&failures, 0);
  ba_store_relaxed(&fail_every, n);
}

uint64_t ba_alloc_attempts(void) { return ba_load_relaxed(&attempts); }

uint64_t ba_alloc_failures(void) { return ba_load_relaxed(&failures); }

bool ba_alloc_denied(void) {
  const uint64_t every = ba_load_relaxed(&fail_every);
  if (every == 0) return false;
  const uint64_t number = ba_fetch_add_relaxed(&attempts, 1) + 1;
  if (number % every != 0) return false;
  (void)ba_fetch_add_relaxed(&failures, 1);
  return true;
}

void *ba_alloc(size_t size) {
  if (ba_alloc_denied()) return NULL;
  return calloc(1, size ? size : 1);
}

void *ba_alloc_aligned(size_t size, size_t align) {
  void *memory = NULL;
  if (ba_alloc_denied()) return NULL;
  if (align < sizeof(void *)) align = sizeof(void *);
  if (posix_memalign(&memory, align, size ? size : 1) != 0) return NULL;
  memset(memory, 0, size);
  return memory;
}

void ba_free(void *memory) { free(memory); }
