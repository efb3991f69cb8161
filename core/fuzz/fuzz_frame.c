/*
 * Any bytes either are a frame, and then encode to the same bytes again, or are refused with an offset inside them; and
 * to be cut by lane they have the same verdict.
 * With clang: a libFuzzer target. Without: main mutates frames of its own for so many rounds (first argument).
 */
#include <bitactor/byteorder.h>
#include <bitactor/crc32c.h>
#include <bitactor/frame.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int one(const uint8_t *data, size_t n) {
  static ba_signal signals[BA_FRAME_SIGNALS];
  static uint8_t again[BA_FRAME_BYTES_MAX];
  ba_frame frame;
  size_t offset = 0, offset_cut = 0;
  static uint8_t lane_of[BA_FRAME_SIGNALS];
  uint32_t counts[BA_PARTITIONS], sum = 0;
  enum ba_frame_result result = ba_frame_decode(data, n, NULL, &frame, signals, &offset);
  CHECK(ba_frame_lanes(data, n, NULL, 16, &frame, lane_of, counts, &offset_cut) == result, "another verdict");
  if (result != BA_FRAME_OK) {
    CHECK(offset <= n && offset_cut == offset, "refused at %zu or %zu of %zu bytes", offset, offset_cut, n);
    return 0;
  }
  for (uint32_t l = 0; l < 16; l++) sum += counts[l];
  CHECK(sum == frame.count, "%u signals in lanes, %u in the frame", sum, frame.count);
  size_t length = ba_frame_encode(&frame, signals, again);
  CHECK(length == n && !memcmp(again, data, n), "a frame of %zu bytes does not encode to itself", n);
  return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static uint8_t fixed[BA_FRAME_BYTES_MAX];
  one(data, n);
  if (n < BA_FRAME_HEADER || n > sizeof fixed) return 0;
  memcpy(fixed, data, n); /* with the right checksum, so that what lies behind it is reached */
  ba_put_be32(fixed + 32, ba_crc32c(ba_crc32c(0, fixed, 32), fixed + 36, n - 36));
  one(fixed, n);
  return 0;
}

#ifndef BA_LIBFUZZER
int main(int argc, char **argv) {
  uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000, seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
  static uint8_t bytes[BA_FRAME_HEADER + 32 * 40];
  uint64_t whole = 0;
  for (uint64_t r = 0; r < rounds; r++) {
    ba_signal signals[40];
    uint64_t state = seed + r * 1000;
    ba_frame frame = {
        .producer = ba_mix64(state), .sequence = ba_mix64(state + 1) >> 1, .count = 1 + (uint32_t)(r % 40)};
    for (uint32_t i = 0; i < frame.count; i++) {
      signals[i] = (ba_signal){.kind = (uint16_t)(1 + i), .key = ba_mix64(state + i), .value = ba_mix64(i)};
    }
    size_t n = ba_frame_encode(&frame, signals, bytes);
    for (uint64_t hits = r % 4; hits; hits--)
      bytes[ba_mix64(state + 50 + hits) % n] = (uint8_t)ba_mix64(state + 60 + hits);
    if (r % 5 == 4) n = ba_mix64(state + 70) % (n + 1);
    whole += (uint64_t)one(bytes, n);
    LLVMFuzzerTestOneInput(bytes, n);
  }
  printf("fuzz_frame: %llu rounds from seed %llu, %llu whole frames: ok\n", (unsigned long long)rounds,
         (unsigned long long)seed, (unsigned long long)whole);
  CHECK(whole > rounds / 10, "hardly any frame was whole");
  return 0;
}
#endif
