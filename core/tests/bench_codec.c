/* Byte order, CRC and frames of 8,192 signals in cache; JSON lines, millions of signals a second, best of many. */
#include <bitactor/byteorder.h>
#include <bitactor/crc32c.h>
#include <bitactor/frame.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

static ba_signal in[BA_FRAME_SIGNALS], back[BA_FRAME_SIGNALS];
static uint8_t out[BA_FRAME_BYTES_MAX];
static ba_frame frame = {.producer = 1, .count = BA_FRAME_SIGNALS};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void copy(void) { memcpy(out, in, sizeof in); }
static void to_be(void) { ba_signals_to_be(in, out, BA_FRAME_SIGNALS); }
static void from_be(void) { ba_signals_from_be(out, back, BA_FRAME_SIGNALS); }
static volatile uint32_t sink;
static void crc(void) { sink = ba_crc32c(0, in, sizeof in); }
static void encode(void) { CHECK(ba_frame_encode(&frame, in, out), "encode"); }
static void decode(void) {
  ba_frame got;
  size_t offset;
  CHECK(ba_frame_decode(out, BA_FRAME_BYTES_MAX, NULL, &got, back, &offset) == BA_FRAME_OK, "decode");
}

static uint8_t lane_of[BA_FRAME_SIGNALS], rows[sizeof in], places[2 * BA_FRAME_SIGNALS];
static uint32_t counts[BA_PARTITIONS];
static uint32_t lanes = 16;
static void lanes_of(void) {
  ba_frame got;
  size_t offset;
  CHECK(ba_frame_lanes(out, BA_FRAME_BYTES_MAX, NULL, lanes, &got, lane_of, counts, &offset) == BA_FRAME_OK, "lanes");
}
static void split(void) {
  uint8_t *row_to[BA_PARTITIONS], *place_to[BA_PARTITIONS];
  size_t at = 0;
  lanes_of();
  for (uint32_t l = 0; l < lanes; at += counts[l++]) row_to[l] = rows + 32 * at, place_to[l] = places + 2 * at;
  ba_frame_scatter(out, BA_FRAME_SIGNALS, lane_of, lanes, row_to, place_to);
}

static double rate(void (*what)(void), int rounds) {
  double best = 1e9;
  for (int r = 0; r < rounds; r++) {
    double begun = now();
    for (int i = 0; i < 10; i++) {
      what();
      __asm__ volatile("" ::: "memory");
    }
    double took = (now() - begun) / 10;
    if (took < best) best = took;
  }
  return BA_FRAME_SIGNALS / best / 1e6;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 500;
  for (uint32_t i = 0; i < BA_FRAME_SIGNALS; i++)
    in[i] = (ba_signal){.kind = 1, .key = i, .value = i * UINT64_C(77777)};
  double plain = rate(copy, rounds), big = rate(to_be, rounds), host = rate(from_be, rounds);
  printf("{\"bench\": \"byteorder\", \"memcpy\": %.0f, \"to_be\": %.0f, \"from_be\": %.0f, \"ratio\": %.2f}\n", plain,
         big, host, big / plain);
  double checksum = rate(crc, rounds), encoded = rate(encode, rounds), decoded = rate(decode, rounds);
  printf("{\"bench\": \"frame\", \"crc\": %.0f, \"encode\": %.0f, \"decode\": %.0f}\n", checksum, encoded, decoded);
  printf("{\"bench\": \"split\", \"lanes\": %u, \"checked\": %.0f, \"split\": %.0f}\n", lanes, rate(lanes_of, rounds),
         rate(split, rounds));
  return 0;
}
