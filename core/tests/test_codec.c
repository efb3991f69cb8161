/*
 * Byte order, CRC-32C and frames. Every CPU variant against the plain one: the harness runs this once for each value of
 * BITACTOR_CPU. Random bytes: seed is the first argument, or the time; printed.
 */
#include <bitactor/byteorder.h>
#include <bitactor/cpu.h>
#include <bitactor/crc32c.h>
#include <bitactor/frame.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

static uint64_t random_state;

static uint64_t random64(void) {
  random_state += UINT64_C(0x9e3779b97f4a7c15);
  return ba_mix64(random_state);
}

static void fill(uint8_t *at, size_t n) {
  for (size_t i = 0; i < n; i++) at[i] = (uint8_t)random64();
}

static void the_wire_has_the_most_significant_byte_first(void) {
  ba_signal s = {.kind = 0x0102,
                 .flags = 0x0304,
                 .aux = 0x05060708,
                 .key = UINT64_C(0x1112131415161718),
                 .time = UINT64_C(0x2122232425262728),
                 .value = UINT64_C(0x3132333435363738)};
  static const uint8_t wire[32] = {1,    2,    3,    4,    5,    6,    7,    8,    0x11, 0x12, 0x13,
                                   0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26,
                                   0x27, 0x28, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38};
  uint8_t out[32];
  ba_signals_to_be(&s, out, 1);
  CHECK(!memcmp(out, wire, 32), "to_be");
  ba_signal back;
  ba_signals_from_be(wire, &back, 1);
  CHECK(!memcmp(&back, &s, 32), "from_be");
}

static void every_length_and_alignment_is_converted_and_nothing_else_is_touched(void) {
  static uint8_t in[32 * 80], out[32 * 80], want[32 * 80];
  for (size_t n = 0; n <= 70; n++) {
    for (size_t skew = 0; skew < 9; skew += skew ? 7 : 1) {
      fill(in, sizeof in);
      memset(out, 0xa5, sizeof out);
      memset(want, 0xa5, sizeof want);
      for (size_t i = 0; i < n; i++) {
        uint8_t *to = want + skew + 32 * i;
        ba_signal s;
        memcpy(&s, in + skew + 32 * i, sizeof s);
        to[0] = (uint8_t)(s.kind >> 8), to[1] = (uint8_t)s.kind, to[2] = (uint8_t)(s.flags >> 8),
        to[3] = (uint8_t)s.flags;
        ba_put_be32(to + 4, s.aux);
        ba_put_be64(to + 8, s.key);
        ba_put_be64(to + 16, s.time);
        ba_put_be64(to + 24, s.value);
      }
      ba_signals_to_be((const ba_signal *)(const void *)(in + skew), out + skew, n);
      CHECK(!memcmp(out, want, sizeof out), "%zu signals at %zu", n, skew);
      ba_signals_from_be(out + skew, (ba_signal *)(void *)(out + skew), n); /* in place */
      CHECK(!memcmp(out + skew, in + skew, 32 * n), "round trip of %zu at %zu", n, skew);
    }
  }
}

static void the_crc_has_its_published_values(void) {
  CHECK(ba_crc32c(0, "123456789", 9) == 0xe3069283, "check value");
  uint8_t bytes[32] = {0};
  CHECK(ba_crc32c(0, bytes, 32) == 0x8a9136aa, "RFC 3720: zeros");
  memset(bytes, 0xff, 32);
  CHECK(ba_crc32c(0, bytes, 32) == 0x62a8ab43, "RFC 3720: ones");
  for (uint8_t i = 0; i < 32; i++) bytes[i] = i;
  CHECK(ba_crc32c(0, bytes, 32) == 0x46dd794e, "RFC 3720: rising");
  for (uint8_t i = 0; i < 32; i++) bytes[i] = (uint8_t)(31 - i);
  CHECK(ba_crc32c(0, bytes, 32) == 0x113fdb5c, "RFC 3720: falling");
}

static void the_crc_of_parts_is_the_crc_of_the_whole(void) {
  static uint8_t bytes[20000];
  fill(bytes, sizeof bytes);
  for (int i = 0; i < 300; i++) {
    size_t n = random64() % sizeof bytes, cut = n ? random64() % n : 0, from = random64() % (sizeof bytes - n + 1);
    uint32_t whole = ba_crc32c(0, bytes + from, n);
    CHECK(whole == ba_crc32c_plain(0, bytes + from, n), "%zu bytes by instruction and by table", n);
    CHECK(whole == ba_crc32c(ba_crc32c(0, bytes + from, cut), bytes + from + cut, n - cut), "%zu cut at %zu", n, cut);
  }
}

static ba_signal signals[BA_FRAME_SIGNALS], got[BA_FRAME_SIGNALS];
static uint8_t bytes[BA_FRAME_BYTES_MAX + 32];

static void random_signals(uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    signals[i] = (ba_signal){.kind = (uint16_t)(1 + random64() % 65535),
                             .aux = (uint32_t)random64(),
                             .key = random64(),
                             .time = random64(),
                             .value = random64()};
  }
}

static void a_frame_comes_back_as_it_went(void) {
  static const uint32_t counts[] = {1, 2, 31, 1000, BA_FRAME_SIGNALS};
  for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
    random_signals(counts[c]);
    ba_frame frame = {
        .producer = random64(), .sequence = random64() >> 1, .epoch = (uint32_t)random64(), .count = counts[c]};
    fill(frame.trace, sizeof frame.trace);
    size_t n = ba_frame_encode(&frame, signals, bytes), offset;
    CHECK(n == BA_FRAME_HEADER + 32 * (size_t)counts[c], "length %zu", n);
    ba_frame back;
    CHECK(ba_frame_decode(bytes, n, NULL, &back, got, &offset) == BA_FRAME_OK, "decode");
    CHECK(back.producer == frame.producer && back.sequence == frame.sequence && back.epoch == frame.epoch &&
              back.count == frame.count && !memcmp(back.trace, frame.trace, sizeof frame.trace),
          "header");
    CHECK(!memcmp(got, signals, 32 * (size_t)counts[c]), "signals");
  }
}

static void the_documented_example_is_what_is_written(void) {
  ba_signal s = {
      .kind = 1, .aux = 100, .key = 42, .time = UINT64_C(1700000000000000000), .value = UINT64_C(0x4045800000000000)};
  ba_frame frame = {.producer = 7, .sequence = 1000, .epoch = 3, .count = 1};
  size_t n = ba_frame_encode(&frame, &s, bytes);
  char hex[2 * 96 + 1];
  for (size_t i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
  CHECK(!strcmp(hex,
                "424146310101000000000000000000070000000300000001"
                "00000000000003e8"
                "d064e291"
                "00000000"
                "000000000000000000000000000000000000000000000000"
                "0001000000000064000000000000002a"
                "17979cfe362a00004045800000000000"),
        "%s", hex);
}

static enum ba_frame_result decode_patched(size_t at, uint8_t value, int fix_crc, size_t *offset) {
  static uint8_t copy[96];
  memcpy(copy, bytes, 96);
  copy[at] = value;
  if (fix_crc) ba_put_be32(copy + 32, ba_crc32c(ba_crc32c(0, copy, 32), copy + 36, 60));
  ba_frame frame;
  return ba_frame_decode(copy, 96, NULL, &frame, got, offset);
}

static void each_kind_of_damage_has_its_code_and_its_place(void) {
  random_signals(1);
  ba_frame frame = {.producer = 1, .sequence = 5, .count = 1};
  size_t n = ba_frame_encode(&frame, signals, bytes), offset;
  for (size_t cut = 0; cut < n; cut++) {
    CHECK(ba_frame_decode(bytes, cut, NULL, &frame, got, &offset) == BA_FRAME_SHORT, "cut at %zu", cut);
  }
  CHECK(ba_frame_decode(bytes, n + 1, NULL, &frame, got, &offset) == BA_FRAME_LONG && offset == n + 1,
        "a byte too many");
  CHECK(decode_patched(0, 'X', 1, &offset) == BA_FRAME_MAGIC && offset == 0, "magic");
  CHECK(decode_patched(4, 2, 1, &offset) == BA_FRAME_VERSION && offset == 4, "version");
  CHECK(decode_patched(5, 9, 1, &offset) == BA_FRAME_TYPE && offset == 5, "type");
  CHECK(decode_patched(7, 1, 1, &offset) == BA_FRAME_FLAGS && offset == 6, "flags");
  CHECK(decode_patched(39, 1, 1, &offset) == BA_FRAME_FLAGS && offset == 36, "reserved");
  CHECK(decode_patched(23, 0, 1, &offset) == BA_FRAME_COUNT && offset == 20, "no signal");
  CHECK(decode_patched(20, 0xff, 1, &offset) == BA_FRAME_COUNT, "a count that overflows");
  CHECK(decode_patched(23, 2, 1, &offset) == BA_FRAME_SHORT, "a count past the bytes");
  CHECK(decode_patched(67, 4, 1, &offset) == BA_FRAME_BAD_FLAGS && offset == 66, "a reserved flag of a signal");
  memset(bytes + 24, 0xff, 8);
  CHECK(decode_patched(0, 'B', 1, &offset) == BA_FRAME_SEQUENCE && offset == 24, "a sequence that overflows");
  ba_frame_encode(&frame, signals, bytes);
  for (size_t at = 24; at < n; at++) {
    if (at >= 36 && at < 40) continue; /* reserved: found before */
    CHECK(decode_patched(at, (uint8_t)(bytes[at] ^ 0x10), 0, &offset) == BA_FRAME_CRC, "a flipped bit at %zu", at);
  }
  uint64_t kinds[1024] = {0};
  CHECK(ba_frame_decode(bytes, n, kinds, &frame, got, &offset) == BA_FRAME_BAD_KIND && offset == 64, "undeclared kind");
  kinds[signals[0].kind / 64] |= UINT64_C(1) << signals[0].kind % 64;
  CHECK(ba_frame_decode(bytes, n, kinds, &frame, got, &offset) == BA_FRAME_OK, "declared kind");
  frame = (ba_frame){.count = 0};
  CHECK(ba_frame_encode(&frame, signals, bytes) == 0, "no signals");
  frame = (ba_frame){.count = BA_FRAME_SIGNALS + 1};
  CHECK(ba_frame_encode(&frame, signals, bytes) == 0, "too many signals");
  frame = (ba_frame){.count = 2, .sequence = UINT64_MAX - 1};
  CHECK(ba_frame_encode(&frame, signals, bytes) == 0, "a sequence past the end");
}

/* Each lane's signals in their order, with their places; against one signal at a time. */
static void a_frame_is_cut_by_lane(void) {
  static uint8_t cut[32 * BA_FRAME_SIGNALS + 1], indexes[2 * BA_FRAME_SIGNALS + 1], lane_of[BA_FRAME_SIGNALS + 1];
  static const uint32_t sizes[] = {1, 2, 31, 1000, BA_FRAME_SIGNALS};
  for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
    for (uint32_t lanes = 1; lanes <= BA_PARTITIONS; lanes *= 2) {
      random_signals(sizes[c]);
      ba_frame frame = {.producer = 7, .sequence = 8, .epoch = 9, .count = sizes[c]}, back;
      size_t n = ba_frame_encode(&frame, signals, bytes), offset, at = 0;
      uint32_t counts[BA_PARTITIONS], expected[BA_PARTITIONS] = {0};
      lane_of[sizes[c]] = cut[32 * sizes[c]] = indexes[2 * sizes[c]] = 0xa5;
      CHECK(ba_frame_lanes(bytes, n, NULL, lanes, &back, lane_of, counts, &offset) == BA_FRAME_OK, "cut");
      CHECK(back.producer == 7 && back.sequence == 8 && back.epoch == 9 && back.count == sizes[c], "header");
      uint8_t *rows[BA_PARTITIONS], *places[BA_PARTITIONS];
      for (uint32_t l = 0; l < lanes; at += counts[l++]) rows[l] = cut + 32 * at, places[l] = indexes + 2 * at;
      CHECK(at == sizes[c], "%zu signals of %u", at, sizes[c]);
      ba_frame_scatter(bytes, back.count, lane_of, lanes, rows, places);
      for (uint32_t i = 0; i < sizes[c]; i++) {
        uint32_t lane = ba_partition(signals[i].key) % lanes, row = expected[lane]++;
        CHECK(lane_of[i] == lane && row < counts[lane], "lane of signal %u", i);
        CHECK(!memcmp(rows[lane] + 32 * row, bytes + BA_FRAME_HEADER + 32 * i, 32), "signal %u", i);
        CHECK(places[lane][2 * row] == i >> 8 && places[lane][2 * row + 1] == (i & 255), "place of signal %u", i);
      }
      CHECK(lane_of[sizes[c]] == 0xa5 && cut[32 * sizes[c]] == 0xa5 && indexes[2 * sizes[c]] == 0xa5, "wrote past");
    }
  }
}

static void a_frame_that_is_refused_is_not_cut_and_one_that_cannot_be_is_not_made(void) {
  uint8_t lane_of[4];
  uint32_t counts[BA_PARTITIONS];
  uint64_t kinds[1024] = {0};
  size_t offset;
  random_signals(4);
  ba_frame frame = {.count = 4}, back;
  for (int i = 0; i < 4; i++) signals[i].kind = 64, signals[i].flags = 0;
  kinds[1] = 1;
  size_t n = ba_frame_encode(&frame, signals, bytes);
  CHECK(ba_frame_lanes(bytes, n, kinds, 2, &back, lane_of, counts, &offset) == BA_FRAME_OK, "declared");
  CHECK(ba_frame_lanes(bytes, n - 1, kinds, 2, &back, lane_of, counts, &offset) == BA_FRAME_SHORT, "cut off");
  kinds[1] = 2;
  CHECK(ba_frame_lanes(bytes, n, kinds, 2, &back, lane_of, counts, &offset) == BA_FRAME_BAD_KIND && offset == 64,
        "undeclared");
  signals[2].kind = 0;
  n = ba_frame_encode(&frame, signals, bytes);
  CHECK(ba_frame_lanes(bytes, n, NULL, 2, &back, lane_of, counts, &offset) == BA_FRAME_BAD_KIND && offset == 128,
        "kind 0");
  signals[1].flags = (uint16_t)~BA_FLAGS_KNOWN;
  n = ba_frame_encode(&frame, signals, bytes);
  CHECK(ba_frame_lanes(bytes, n, NULL, 2, &back, lane_of, counts, &offset) == BA_FRAME_BAD_FLAGS && offset == 98,
        "flags");
  static const ba_frame bad[] = {
      {.count = 0}, {.count = BA_FRAME_SIGNALS + 1}, {.count = 4, .sequence = UINT64_MAX - 3}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(ba_frame_encode(&bad[i], signals, bytes) == 0, "%zu", i);
}

int main(int argc, char **argv) {
  random_state = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  printf("test_codec: seed %llu, cpu level %d, crc instruction %d\n", (unsigned long long)random_state, ba_cpu_level(),
         ba_cpu_has_crc32c());
  the_wire_has_the_most_significant_byte_first();
  every_length_and_alignment_is_converted_and_nothing_else_is_touched();
  the_crc_has_its_published_values();
  the_crc_of_parts_is_the_crc_of_the_whole();
  a_frame_comes_back_as_it_went();
  the_documented_example_is_what_is_written();
  each_kind_of_damage_has_its_code_and_its_place();
  a_frame_is_cut_by_lane();
  a_frame_that_is_refused_is_not_cut_and_one_that_cannot_be_is_not_made();
  puts("test_codec: ok");
  return 0;
}
