/*
 * Signals between host order and big-endian, the order of the wire and of the log.
 *
 * Field by field as htobe16/32/64 and be16/32/64toh do; the order of the fields is that of ba_signal. Pure; any thread;
 * never waits. in and out may be the same array, and may be unaligned; otherwise they do not overlap.
 */
#ifndef BITACTOR_BYTEORDER_H
#define BITACTOR_BYTEORDER_H

#include <bitactor/signal.h>

/* n signals to 32 * n bytes. */
void ba_signals_to_be(const ba_signal *in, uint8_t *out, size_t n);
/* 32 * n bytes to n signals. No field is checked: see frame.h. */
void ba_signals_from_be(const uint8_t *in, ba_signal *out, size_t n);

/* For tests and benchmarks: one signal at a time, without vector instructions. */
void ba_signals_swap_plain(const uint8_t *in, uint8_t *out, size_t n);

static inline void ba_put_be32(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static inline void ba_put_be64(uint8_t *at, uint64_t value) {
  for (int i = 0; i < 8; i++) at[i] = (uint8_t)(value >> (56 - 8 * i));
}

static inline uint32_t ba_get_be32(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t ba_get_be64(const uint8_t *at) { return (uint64_t)ba_get_be32(at) << 32 | ba_get_be32(at + 4); }

#endif
