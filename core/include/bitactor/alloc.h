/*
 * Every allocation of the core, in one place, so that a test can make any of them fail.
 *
 * Any thread may call any of these at any time; none waits. A failure is a null pointer (or, for regions,
 * an error code) and nothing else: the caller undoes what it began and reports it upwards.
 */
#ifndef BITACTOR_ALLOC_H
#define BITACTOR_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* size zeroed bytes, aligned for any type; null: no memory. size 0 gives a pointer that may only be freed. */
void *ba_alloc(size_t size);

/* size zeroed bytes at a multiple of align, a power of two; null: no memory. */
void *ba_alloc_aligned(size_t size, size_t align);

/* Gives back what either function above returned; null is allowed. */
void ba_free(void *memory);

/*
 * For tests: from now on every n-th attempt to get memory fails, counted over all threads: ba_alloc, ba_alloc_aligned,
 * and the reservation and growth of regions. 1: all fail; 0: none (the default). Restarts the counts below.
 */
void ba_alloc_fail_every(uint64_t n);

/* Attempts made, and attempts made to fail, since ba_alloc_fail_every was last called with n > 0. */
uint64_t ba_alloc_attempts(void);
uint64_t ba_alloc_failures(void);

/* Counts one attempt and says whether it must fail. For the core's own sources of memory only. */
bool ba_alloc_denied(void);

#endif
