/*
 * The signal: one fixed-size event about one key, half a cache line.
 *
 * In memory it is in host order; on the wire and in the log it is big-endian (frame.h).
 * Plain data: no thread owns it, anyone may copy it with memcpy.
 */
#ifndef BITACTOR_SIGNAL_H
#define BITACTOR_SIGNAL_H

#include <stddef.h>
#include <stdint.h>

typedef struct ba_signal {
  uint16_t kind;  /* declared number of the kind, 1..65535 (0 is never declared) */
  uint16_t flags; /* bits without a meaning are zero, else the signal is refused */
  uint32_t aux;   /* the kind says whether these bits are u4, i4 or f4 */
  uint64_t key;   /* which instance of an actor this is about */
  uint64_t time;  /* event time, nanoseconds since the Unix epoch */
  uint64_t value; /* the kind says whether these bits are u8, i8 or f8 */
} ba_signal;

_Static_assert(sizeof(ba_signal) == 32, "a signal is 32 bytes");
_Static_assert(offsetof(ba_signal, aux) == 4 && offsetof(ba_signal, key) == 8, "layout is frozen");
_Static_assert(offsetof(ba_signal, time) == 16 && offsetof(ba_signal, value) == 24, "layout is frozen");

enum {
  BA_FLAGS_KNOWN = 0,     /* no flag bit has a meaning yet */
  BA_PARTITIONS = 64,     /* unit of state; frozen */
  BA_FRAME_SIGNALS = 8192 /* most signals in one frame, and so in one step of the library */
};

/*
 * Partition of a key: MurmurHash3's 64-bit finaliser (Appleby, public domain), modulo 64.
 * Frozen as version 1; docs/adr/0003-partition-hash.md has test vectors. Any thread; pure.
 */
static inline uint64_t ba_mix64(uint64_t key) {
  key ^= key >> 33;
  key *= UINT64_C(0xff51afd7ed558ccd);
  key ^= key >> 33;
  key *= UINT64_C(0xc4ceb9fe1a85ec53);
  key ^= key >> 33;
  return key;
}

static inline uint8_t ba_partition(uint64_t key) { return (uint8_t)(ba_mix64(key) % BA_PARTITIONS); }

/*
 * Lanes of n keys into out[0..n): partition modulo lanes, which divides BA_PARTITIONS; with lanes == BA_PARTITIONS
 * the partitions. The keys are 8 bytes each in host order, of any alignment, `stride` bytes apart. Any thread; pure.
 */
void ba_lanes(const void *keys, ptrdiff_t stride, size_t n, uint32_t lanes, uint8_t *out);

/* Partitions of n signals into parts[0..n). Any thread; pure. */
void ba_partitions(const ba_signal *signals, size_t n, uint8_t *parts);

/* The same, and how kinds (low half) and flags (high half) differ: the OR over all signals of their first word XOR that
 * of signals[0]. n >= 1. Any thread; pure. */
uint32_t ba_survey(const ba_signal *signals, size_t n, uint8_t *parts);

#endif
