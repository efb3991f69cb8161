/*
 * Any bytes either are a record, and then its parts make the same bytes again, or are refused with an offset inside
 * them; no signal is written past those that the header promises.
 * With clang: a libFuzzer target. Without: main mutates records of its own for so many rounds (first argument).
 */
#include <bitactor/byteorder.h>
#include <bitactor/crc32c.h>
#include <bitactor/record.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/check.h"

enum { BYTES_MAX = 8192 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static ba_signal signals[BA_RECORD_SIGNALS], filled[BA_RECORD_SIGNALS];
static uint8_t again[BYTES_MAX];

/* The same items added one by one to an empty record, and sealed. */
static void rebuild(const ba_record *record, const uint8_t *data, size_t n) {
  ba_record_open open = {.bytes = again,
                         .signals = filled,
                         .capacity = sizeof again,
                         .length = BA_RECORD_HEADER,
                         .signals_max = BA_RECORD_SIGNALS};
  size_t offset, length;
  for (size_t at = BA_RECORD_HEADER; record->type == BA_RECORD_DATA && at < n; at += length) {
    uint8_t type;
    CHECK(ba_record_item(data, n, at, &type, &length, &offset) == BA_RECORD_OK, "item at %zu", at);
    if (type == BA_MESSAGE_FRAME) {
      ba_frame frame;
      CHECK(ba_record_add_frame(&open, data + at, length, NULL, 0, &frame, &offset) == BA_FRAME_OK, "frame at %zu", at);
    } else {
      memcpy(again + open.length, data + at, length);
      open.length += length;
      open.items++;
    }
  }
  if (record->type == BA_RECORD_APP) memcpy(again + BA_RECORD_HEADER, data + BA_RECORD_HEADER, record->payload);
  CHECK(open.count == record->count && open.items == record->items, "counts");
  CHECK(!memcmp(filled, signals, sizeof *signals * record->count), "signals");
  CHECK(ba_record_seal(record, again) == n && !memcmp(again, data, n), "%zu bytes do not seal to themselves", n);
}

static int one(const uint8_t *data, size_t n) {
  ba_record record;
  enum ba_frame_result frame;
  size_t offset = 0;
  memset(signals, 0xa5, sizeof *signals * 300);
  if (ba_record_read(data, n, NULL, &record, signals, &frame, &offset) != BA_RECORD_OK) {
    CHECK(offset <= n, "refused at %zu of %zu bytes", offset, n);
    return 0;
  }
  CHECK(record.count >= 300 || signals[record.count].flags == 0xa5a5, "a signal behind the last");
  rebuild(&record, data, n);
  return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static uint8_t fixed[BYTES_MAX];
  if (n > sizeof fixed) return 0;
  one(data, n);
  if (n < BA_RECORD_HEADER) return 0;
  memcpy(fixed, data, n); /* with the right checksum, so that what lies behind it is reached */
  ba_put_be32(fixed + 32, ba_crc32c(ba_crc32c(0, fixed, 32), fixed + 36, n - 36));
  one(fixed, n);
  return 0;
}

#ifndef BA_LIBFUZZER

static uint8_t bytes[BYTES_MAX];
static ba_signal made[40];

/* A record of some frames and messages in `bytes`, from a number. Returns its length. */
static size_t make(uint64_t state) {
  ba_record_open open = {.bytes = bytes,
                         .signals = filled,
                         .capacity = sizeof bytes,
                         .length = BA_RECORD_HEADER,
                         .signals_max = BA_RECORD_SIGNALS};
  static const uint8_t types[] = {BA_MESSAGE_NAME, BA_MESSAGE_PRODUCER, BA_MESSAGE_FORGET_PRODUCER,
                                  BA_MESSAGE_ERASE_KEY, BA_MESSAGE_PART};
  for (uint64_t items = ba_mix64(state) % 5; items; items--) {
    uint64_t random = ba_mix64(state + items);
    if (random & 1) {
      uint8_t *at = bytes + open.length, payload = (uint8_t)(random >> 8);
      memset(at, (int)items, BA_MESSAGE_HEAD + (size_t)payload);
      memcpy(at, "BAF1\1", 5);
      at[5] = types[(random >> 16) % sizeof types];
      at[6] = at[7] = 0;
      ba_put_be32(at + 8, payload);
      open.length += BA_MESSAGE_HEAD + (size_t)payload;
      open.items++;
    } else {
      static uint8_t frame_bytes[BA_FRAME_HEADER + sizeof made];
      ba_frame frame = {.producer = random, .sequence = random >> 1, .count = 1 + (uint32_t)(random >> 8 & 31)};
      for (uint32_t i = 0; i < frame.count; i++) made[i] = (ba_signal){.kind = (uint16_t)(1 + i), .key = random + i};
      size_t n = ba_frame_encode(&frame, made, frame_bytes), offset;
      ba_record_add_frame(&open, frame_bytes, n, NULL, 0, &frame, &offset);
    }
  }
  ba_record record = {.sequence = state,
                      .position = state,
                      .count = open.count,
                      .items = open.items,
                      .payload = (uint32_t)(open.length - BA_RECORD_HEADER),
                      .type = BA_RECORD_DATA};
  return ba_record_seal(&record, bytes);
}

int main(int argc, char **argv) {
  uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000, seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
  uint64_t whole = 0;
  for (uint64_t r = 0; r < rounds; r++) {
    uint64_t state = seed + r * 1000;
    size_t n = make(state);
    for (uint64_t hits = r % 4; hits; hits--)
      bytes[ba_mix64(state + 50 + hits) % n] = (uint8_t)ba_mix64(state + 60 + hits);
    if (r % 5 == 4) n = ba_mix64(state + 70) % (n + 1);
    whole += (uint64_t)one(bytes, n);
    LLVMFuzzerTestOneInput(bytes, n);
  }
  printf("fuzz_record: %llu rounds from seed %llu, %llu whole records: ok\n", (unsigned long long)rounds,
         (unsigned long long)seed, (unsigned long long)whole);
  CHECK(whole > rounds / 10, "hardly any record was whole");
  return 0;
}
#endif
