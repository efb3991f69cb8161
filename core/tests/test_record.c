/* Records: what goes in comes out, frames are trimmed exactly, and each kind of damage has its code and its place. */
#include <bitactor/byteorder.h>
#include <bitactor/crc32c.h>
#include <bitactor/record.h>
#include <string.h>

#include "check.h"

enum { CAPACITY = BA_RECORD_HEADER + BA_RECORD_PAYLOAD_MAX };

static uint8_t wire[CAPACITY], frame_bytes[BA_FRAME_BYTES_MAX], copy[1024];
static ba_signal filled[BA_RECORD_SIGNALS], got[BA_RECORD_SIGNALS], some[BA_FRAME_SIGNALS];

static ba_record_open opened(void) {
  return (ba_record_open){.bytes = wire,
                          .signals = filled,
                          .capacity = CAPACITY,
                          .length = BA_RECORD_HEADER,
                          .signals_max = BA_RECORD_SIGNALS};
}

/* A frame of producer 9 in frame_bytes whose i-th signal has the key sequence + i. Returns its length. */
static size_t make_frame(uint64_t sequence, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    some[i] = (ba_signal){.kind = 3, .aux = i, .key = sequence + i, .time = 5, .value = ba_mix64(sequence + i)};
  }
  ba_frame frame = {.producer = 9, .sequence = sequence, .epoch = 2, .count = count, .trace = {1, 2, 3}};
  return ba_frame_encode(&frame, some, frame_bytes);
}

static size_t seal(const ba_record_open *open, uint64_t position) {
  ba_record record = {.sequence = 7,
                      .position = position,
                      .wall_ns = 11,
                      .fingerprint = UINT64_C(0x1122334455667788),
                      .count = open->count,
                      .items = open->items,
                      .payload = (uint32_t)(open->length - BA_RECORD_HEADER),
                      .lane = 1,
                      .type = BA_RECORD_DATA};
  return ba_record_seal(&record, open->bytes);
}

static void add_message(ba_record_open *open, uint8_t type, uint32_t payload) {
  uint8_t *at = open->bytes + open->length;
  memset(at, 0, BA_MESSAGE_HEAD + payload);
  memcpy(at, "BAF1\1", 5);
  at[5] = type;
  ba_put_be32(at + 8, payload);
  open->length += BA_MESSAGE_HEAD + payload;
  open->items++;
}

static enum ba_record_result read_all(const uint8_t *bytes, size_t n, ba_record *record, size_t *offset) {
  enum ba_frame_result frame;
  return ba_record_read(bytes, n, NULL, record, got, &frame, offset);
}

static void a_record_comes_back_with_its_signals_in_order(void) {
  ba_record_open open = opened();
  ba_frame frame;
  size_t offset;
  for (uint64_t at = 0; at < 20000;) {
    uint32_t count = at % 3 ? 8192 : 1000;
    if (at + count > 20000) count = (uint32_t)(20000 - at);
    size_t n = make_frame(at, count);
    CHECK(ba_record_add_frame(&open, frame_bytes, n, NULL, 0, &frame, &offset) == BA_FRAME_OK, "add");
    CHECK(frame.sequence == at && frame.count == count, "what was added");
    if (at % 2) add_message(&open, BA_MESSAGE_NAME, 40);
    at += count;
  }
  size_t n = seal(&open, 100);
  ba_record record;
  CHECK(read_all(wire, n, &record, &offset) == BA_RECORD_OK, "read");
  CHECK(record.sequence == 7 && record.position == 100 && record.wall_ns == 11 && record.lane == 1 &&
            record.fingerprint == UINT64_C(0x1122334455667788) && record.count == 20000 && record.items == open.items &&
            record.type == BA_RECORD_DATA,
        "header");
  CHECK(!memcmp(got, filled, sizeof *got * 20000), "signals");
  for (uint32_t i = 0; i < 20000; i++) CHECK(got[i].key == i, "signal %u", i);
}

static void a_trimmed_frame_is_the_frame_of_the_rest(void) {
  static uint8_t want[BA_FRAME_BYTES_MAX];
  for (uint32_t count = 1; count < 40; count++) {
    for (uint32_t skip = 0; skip <= count; skip++) {
      ba_record_open open = opened();
      ba_frame frame;
      size_t offset, n = make_frame(1000, count);
      enum ba_frame_result result = ba_record_add_frame(&open, frame_bytes, n, NULL, skip, &frame, &offset);
      if (skip == count) {
        CHECK(result == BA_FRAME_COUNT && open.items == 0 && open.count == 0 && open.length == BA_RECORD_HEADER,
              "all of %u skipped", count);
        continue;
      }
      CHECK(result == BA_FRAME_OK && frame.sequence == 1000 + skip && frame.count == count - skip, "%u of %u", skip,
            count);
      ba_frame rest = frame;
      size_t length = ba_frame_encode(&rest, some + skip, want);
      CHECK(open.length == BA_RECORD_HEADER + length && !memcmp(wire + BA_RECORD_HEADER, want, length), "bytes");
      CHECK(open.count == count - skip && !memcmp(filled, some + skip, sizeof *some * (count - skip)), "signals");
    }
  }
}

static void a_refused_frame_adds_nothing(void) {
  ba_record_open open = opened();
  ba_frame frame;
  size_t offset, n = make_frame(0, 10);
  CHECK(ba_record_add_frame(&open, frame_bytes, n, NULL, 0, &frame, &offset) == BA_FRAME_OK, "first");
  ba_record_open before = open;
  frame_bytes[70] ^= 1;
  CHECK(ba_record_add_frame(&open, frame_bytes, n, NULL, 0, &frame, &offset) == BA_FRAME_CRC, "changed");
  CHECK(open.length == before.length && open.count == before.count && open.items == before.items, "as before");
}

static void a_heartbeat_and_an_app_record_have_no_signals(void) {
  ba_record_open open = opened();
  ba_record record;
  size_t offset, n = seal(&open, UINT64_MAX);
  CHECK(n == BA_RECORD_HEADER && read_all(wire, n, &record, &offset) == BA_RECORD_OK && record.count == 0, "heartbeat");
  memcpy(wire + BA_RECORD_HEADER, "{}", 2);
  record = (ba_record){.type = BA_RECORD_APP, .payload = 2};
  n = ba_record_seal(&record, wire);
  CHECK(n == 66 && read_all(wire, n, &record, &offset) == BA_RECORD_OK && record.type == BA_RECORD_APP, "app");
  record = (ba_record){.type = BA_RECORD_APP, .payload = 2, .count = 1};
  CHECK(ba_record_seal(&record, wire) == 0, "an app record with signals");
  record = (ba_record){.type = BA_RECORD_DATA, .count = 1, .position = UINT64_MAX};
  CHECK(ba_record_seal(&record, wire) == 0, "a position past the end");
  record = (ba_record){.type = 3};
  CHECK(ba_record_seal(&record, wire) == 0, "an unknown type");
}

static enum ba_record_result patched(size_t n, size_t at, uint8_t value, int fix_crc, size_t *offset) {
  memcpy(copy, wire, n);
  copy[at] = value;
  if (fix_crc) ba_put_be32(copy + 32, ba_crc32c(ba_crc32c(0, copy, 32), copy + 36, n - 36));
  ba_record record;
  return read_all(copy, n, &record, offset);
}

static void each_kind_of_damage_has_its_code_and_its_place(void) {
  ba_record_open open = opened();
  ba_frame frame;
  ba_record record;
  size_t offset, one = make_frame(0, 2); /* 128 bytes at 64, then a message of 24 bytes at 192 */
  CHECK(ba_record_add_frame(&open, frame_bytes, one, NULL, 0, &frame, &offset) == BA_FRAME_OK, "add");
  add_message(&open, BA_MESSAGE_ERASE_KEY, 8);
  size_t n = seal(&open, 0);
  CHECK(n == 216 && read_all(wire, n, &record, &offset) == BA_RECORD_OK, "whole");
  for (size_t cut = 0; cut < n; cut++) {
    CHECK(read_all(wire, cut, &record, &offset) == BA_RECORD_SHORT && offset == cut, "cut at %zu", cut);
  }
  CHECK(read_all(wire, n + 1, &record, &offset) == BA_RECORD_LONG && offset == n + 1, "a byte too many");
  static const struct {
    size_t at;
    uint8_t value;
    enum ba_record_result result;
    size_t offset;
  } cases[] = {
      {0, 'X', BA_RECORD_MAGIC, 0},     {4, 2, BA_RECORD_VERSION, 4},    {5, 3, BA_RECORD_TYPE, 5},
      {5, 2, BA_RECORD_COUNT, 36}, /* an app record with signals */
      {7, 1, BA_RECORD_FLAGS, 6},       {55, 1, BA_RECORD_FLAGS, 52},    {37, 2, BA_RECORD_COUNT, 36},
      {39, 1, BA_RECORD_TOTAL, 36},     {39, 3, BA_RECORD_TOTAL, 36},    {43, 1, BA_RECORD_ITEMS, 40},
      {44, 0x80, BA_RECORD_LENGTH, 44}, {47, 153, BA_RECORD_SHORT, 216}, {64, 'X', BA_RECORD_ITEM, 64},
      {68, 2, BA_RECORD_ITEM, 68},      {69, 2, BA_RECORD_ITEM, 69}, /* a hello */
      {71, 1, BA_RECORD_ITEM, 70},      {87, 0, BA_RECORD_ITEM, 84},     {86, 0xff, BA_RECORD_ITEM, 84},
      {87, 5, BA_RECORD_ITEM, 84}, /* past the end */
      {96, 1, BA_RECORD_FRAME, 96},     {201, 1, BA_RECORD_ITEM, 200},   {203, 9, BA_RECORD_ITEM, 200},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    enum ba_record_result result = patched(n, cases[i].at, cases[i].value, 1, &offset);
    CHECK(result == cases[i].result && offset == cases[i].offset, "byte %zu: result %d at %zu", cases[i].at, result,
          offset);
  }
  for (size_t at = 8; at < n; at++) {
    if ((at >= 36 && at < 48) || (at >= 52 && at < 56)) continue; /* found before */
    CHECK(patched(n, at, (uint8_t)(wire[at] ^ 0x10), 0, &offset) == BA_RECORD_CRC, "a flipped bit at %zu", at);
  }
  memset(wire + 16, 0xff, 8);
  CHECK(patched(n, 0, 'B', 1, &offset) == BA_RECORD_POSITION && offset == 16, "a position that overflows");
}

static void a_record_with_more_frames_than_it_says_writes_no_signal_too_many(void) {
  ba_record_open open = opened();
  ba_frame frame;
  ba_record record;
  size_t offset, n = make_frame(0, 4);
  for (int i = 0; i < 3; i++) {
    CHECK(ba_record_add_frame(&open, frame_bytes, n, NULL, 0, &frame, &offset) == BA_FRAME_OK, "add");
  }
  open.count = 9;
  memset(got, 0xa5, sizeof *got * 16);
  CHECK(read_all(wire, seal(&open, 0), &record, &offset) == BA_RECORD_TOTAL, "12 signals in a record of 9");
  CHECK(got[8].kind == 0xa5a5, "a signal behind the last that may be there");
}

static void a_frame_that_ends_within_its_header_is_refused_where_it_begins(void) {
  for (size_t left = BA_MESSAGE_HEAD; left < BA_FRAME_HEADER; left++) {
    ba_record_open open = opened();
    ba_frame frame;
    ba_record record;
    size_t offset, n = make_frame(0, 4);
    CHECK(ba_record_add_frame(&open, frame_bytes, n, NULL, 0, &frame, &offset) == BA_FRAME_OK, "add");
    size_t at = open.length;
    memcpy(wire + at, frame_bytes, left);
    open.length += left;
    open.items++;
    CHECK(read_all(wire, seal(&open, 0), &record, &offset) == BA_RECORD_ITEM && offset == at, "%zu bytes: %zu", left,
          offset);
  }
}

int main(void) {
  a_record_comes_back_with_its_signals_in_order();
  a_trimmed_frame_is_the_frame_of_the_rest();
  a_refused_frame_adds_nothing();
  a_heartbeat_and_an_app_record_have_no_signals();
  each_kind_of_damage_has_its_code_and_its_place();
  a_record_with_more_frames_than_it_says_writes_no_signal_too_many();
  a_frame_that_ends_within_its_header_is_refused_where_it_begins();
  puts("test_record: ok");
  return 0;
}
