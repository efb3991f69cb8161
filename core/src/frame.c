/* Frames to bytes and back: see frame.h. */
#include <bitactor/byteorder.h>
#include <bitactor/crc32c.h>
#include <bitactor/frame.h>
#include <stdbool.h>
#include <string.h>

static const uint8_t magic[4] = {'B', 'A', 'F', '1'};

enum {
  AT_VERSION = 4,
  AT_TYPE = 5,
  AT_FLAGS = 6,
  AT_PRODUCER = 8,
  AT_EPOCH = 16,
  AT_COUNT = 20,
  AT_SEQUENCE = 24,
  AT_CRC = 32,
  AT_RESERVED = 36,
  AT_TRACE = 40,
  VERSION = 1,
  TYPE_DATA = 1
};

static uint32_t checksum(const uint8_t *bytes, size_t n) {
  return ba_crc32c(ba_crc32c(0, bytes, AT_CRC), bytes + AT_RESERVED, n - AT_RESERVED);
}

size_t ba_frame_encode(const ba_frame *frame, const ba_signal *signals, uint8_t *out) {
  if (frame->count == 0 || frame->count > BA_FRAME_SIGNALS || frame->sequence > UINT64_MAX - frame->count) return 0;
  size_t n = BA_FRAME_HEADER + 32 * (size_t)frame->count;
  memcpy(out, magic, sizeof magic);
  out[AT_VERSION] = VERSION;
  out[AT_TYPE] = TYPE_DATA;
  out[AT_FLAGS] = out[AT_FLAGS + 1] = 0;
  ba_put_be64(out + AT_PRODUCER, frame->producer);
  ba_put_be32(out + AT_EPOCH, frame->epoch);
  ba_put_be32(out + AT_COUNT, frame->count);
  ba_put_be64(out + AT_SEQUENCE, frame->sequence);
  ba_put_be32(out + AT_RESERVED, 0);
  memcpy(out + AT_TRACE, frame->trace, sizeof frame->trace);
  ba_signals_to_be(signals, out + BA_FRAME_HEADER, frame->count);
  ba_put_be32(out + AT_CRC, checksum(out, n));
  return n;
}

static enum ba_frame_result check_header(const uint8_t *bytes, size_t n, size_t *offset) {
  *offset = n;
  if (n < BA_FRAME_HEADER) return BA_FRAME_SHORT;
  *offset = 0;
  if (memcmp(bytes, magic, sizeof magic) != 0) return BA_FRAME_MAGIC;
  *offset = AT_VERSION;
  if (bytes[AT_VERSION] != VERSION) return BA_FRAME_VERSION;
  *offset = AT_TYPE;
  if (bytes[AT_TYPE] != TYPE_DATA) return BA_FRAME_TYPE;
  *offset = AT_FLAGS;
  if (bytes[AT_FLAGS] | bytes[AT_FLAGS + 1]) return BA_FRAME_FLAGS;
  *offset = AT_RESERVED;
  if (ba_get_be32(bytes + AT_RESERVED)) return BA_FRAME_FLAGS;
  *offset = AT_COUNT;
  uint32_t count = ba_get_be32(bytes + AT_COUNT);
  if (count == 0 || count > BA_FRAME_SIGNALS) return BA_FRAME_COUNT;
  *offset = n;
  size_t expected = BA_FRAME_HEADER + 32 * (size_t)count;
  if (n != expected) return n < expected ? BA_FRAME_SHORT : BA_FRAME_LONG;
  *offset = AT_CRC;
  if (ba_get_be32(bytes + AT_CRC) != checksum(bytes, n)) return BA_FRAME_CRC;
  *offset = AT_SEQUENCE;
  return ba_get_be64(bytes + AT_SEQUENCE) > UINT64_MAX - count ? BA_FRAME_SEQUENCE : BA_FRAME_OK;
}

static bool known(const uint64_t *kinds, uint16_t kind) {
  return kind != 0 && (kinds == NULL || (kinds[kind / 64] >> kind % 64 & 1));
}

static uint32_t get_be16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

static enum ba_frame_result read_header(const uint8_t *bytes, size_t n, ba_frame *frame, size_t *offset) {
  enum ba_frame_result result = check_header(bytes, n, offset);
  if (result != BA_FRAME_OK) return result;
  frame->producer = ba_get_be64(bytes + AT_PRODUCER);
  frame->epoch = ba_get_be32(bytes + AT_EPOCH);
  frame->count = ba_get_be32(bytes + AT_COUNT);
  frame->sequence = ba_get_be64(bytes + AT_SEQUENCE);
  memcpy(frame->trace, bytes + AT_TRACE, sizeof frame->trace);
  return BA_FRAME_OK;
}

/* What the first signal is refused for that is; BA_FRAME_OK: none is. */
static enum ba_frame_result first_refused(const uint8_t *bytes, uint32_t count, const uint64_t *kinds, size_t *offset) {
  /* GCOVR_EXCL_BR_START: the end is never reached, as the caller has seen one that is refused; it bounds the loop
   * should another thread change the bytes meanwhile. */
  for (uint32_t i = 0; i < count; i++) {
    /* GCOVR_EXCL_BR_STOP */
    const uint8_t *row = bytes + BA_FRAME_HEADER + 32 * (size_t)i;
    *offset = (size_t)(row - bytes) + 2;
    if (get_be16(row + 2) & ~(uint32_t)BA_FLAGS_KNOWN) return BA_FRAME_BAD_FLAGS;
    *offset -= 2;
    if (!known(kinds, (uint16_t)get_be16(row))) return BA_FRAME_BAD_KIND;
  }
  return BA_FRAME_OK;
}

enum ba_frame_result ba_frame_decode(const uint8_t *bytes, size_t n, const uint64_t *kinds, ba_frame *frame,
                                     ba_signal *signals, size_t *offset) {
  enum ba_frame_result result = read_header(bytes, n, frame, offset);
  if (result != BA_FRAME_OK) return result;
  ba_signals_from_be(bytes + BA_FRAME_HEADER, signals, frame->count);
  uint32_t flags = 0;
  bool all_known = true;
  for (uint32_t i = 0; i < frame->count; i++) {
    flags |= signals[i].flags;
    all_known &= known(kinds, signals[i].kind);
  }
  if (!(flags & (uint32_t)~BA_FLAGS_KNOWN) && all_known) return BA_FRAME_OK;
  return first_refused(bytes, frame->count, kinds, offset);
}

enum ba_frame_result ba_frame_lanes(const uint8_t *bytes, size_t n, const uint64_t *kinds, uint32_t lanes,
                                    ba_frame *frame, uint8_t *lane_of, uint32_t *counts, size_t *offset) {
  enum ba_frame_result result = read_header(bytes, n, frame, offset);
  if (result != BA_FRAME_OK) return result;
  memset(counts, 0, lanes * sizeof *counts);
  const uint8_t *row = bytes + BA_FRAME_HEADER;
  uint32_t flags = 0;
  bool all_known = true;
  for (uint32_t i = 0; i < frame->count; i++, row += 32) {
    flags |= get_be16(row + 2);
    all_known &= known(kinds, (uint16_t)get_be16(row));
    lane_of[i] = (uint8_t)(ba_partition(ba_get_be64(row + 8)) & (lanes - 1));
    counts[lane_of[i]]++;
  }
  if (!(flags & (uint32_t)~BA_FLAGS_KNOWN) && all_known) return BA_FRAME_OK;
  return first_refused(bytes, frame->count, kinds, offset);
}

void ba_frame_scatter(const uint8_t *bytes, uint32_t count, const uint8_t *lane_of, uint32_t lanes,
                      uint8_t *const *rows, uint8_t *const *places) {
  uint8_t *row_to[BA_PARTITIONS], *place_to[BA_PARTITIONS];
  memcpy(row_to, rows, lanes * sizeof *rows);
  memcpy(place_to, places, lanes * sizeof *places);
  const uint8_t *row = bytes + BA_FRAME_HEADER;
  for (uint32_t i = 0; i < count; i++, row += 32) {
    const uint8_t lane = lane_of[i];
    memcpy(row_to[lane], row, 32);
    place_to[lane][0] = (uint8_t)(i >> 8);
    place_to[lane][1] = (uint8_t)i;
    row_to[lane] += 32;
    place_to[lane] += 2;
  }
}
