/* Records to bytes and back: see record.h. */
#include <bitactor/byteorder.h>
#include <bitactor/crc32c.h>
#include <bitactor/record.h>
#include <stdbool.h>
#include <string.h>

static const uint8_t record_magic[4] = {'B', 'A', 'R', '1'};
static const uint8_t message_magic[4] = {'B', 'A', 'F', '1'};

enum {
  AT_VERSION = 4,
  AT_TYPE = 5,
  AT_FLAGS = 6,
  AT_SEQUENCE = 8,
  AT_POSITION = 16,
  AT_WALL = 24,
  AT_CRC = 32,
  AT_COUNT = 36,
  AT_ITEMS = 40,
  AT_PAYLOAD = 44,
  AT_LANE = 48,
  AT_RESERVED = 52,
  AT_FINGERPRINT = 56,
  VERSION = 1,
  ITEM_LENGTH = 8, /* where a message says its payload's length */
  FRAME_COUNT = 20 /* where a frame says how many signals it has */
};

static uint32_t checksum(const uint8_t *bytes, size_t n) {
  return ba_crc32c(ba_crc32c(0, bytes, AT_CRC), bytes + AT_COUNT, n - AT_COUNT);
}

size_t ba_record_seal(const ba_record *record, uint8_t *bytes) {
  bool data = record->type == BA_RECORD_DATA;
  if ((!data && record->type != BA_RECORD_APP) || record->payload > BA_RECORD_PAYLOAD_MAX ||
      record->count > (data ? BA_RECORD_SIGNALS : 0) || (!data && record->items) ||
      record->position > UINT64_MAX - record->count) {
    return 0;
  }
  size_t n = BA_RECORD_HEADER + (size_t)record->payload;
  memcpy(bytes, record_magic, sizeof record_magic);
  bytes[AT_VERSION] = VERSION;
  bytes[AT_TYPE] = record->type;
  bytes[AT_FLAGS] = bytes[AT_FLAGS + 1] = 0;
  ba_put_be64(bytes + AT_SEQUENCE, record->sequence);
  ba_put_be64(bytes + AT_POSITION, record->position);
  ba_put_be64(bytes + AT_WALL, record->wall_ns);
  ba_put_be32(bytes + AT_COUNT, record->count);
  ba_put_be32(bytes + AT_ITEMS, record->items);
  ba_put_be32(bytes + AT_PAYLOAD, record->payload);
  ba_put_be32(bytes + AT_LANE, record->lane);
  ba_put_be32(bytes + AT_RESERVED, 0);
  ba_put_be64(bytes + AT_FINGERPRINT, record->fingerprint);
  ba_put_be32(bytes + AT_CRC, checksum(bytes, n));
  return n;
}

enum ba_record_result ba_record_decode(const uint8_t *bytes, size_t n, ba_record *record, size_t *offset) {
  *offset = n;
  if (n < BA_RECORD_HEADER) return BA_RECORD_SHORT;
  *offset = 0;
  if (memcmp(bytes, record_magic, sizeof record_magic) != 0) return BA_RECORD_MAGIC;
  *offset = AT_VERSION;
  if (bytes[AT_VERSION] != VERSION) return BA_RECORD_VERSION;
  *offset = AT_TYPE;
  bool data = bytes[AT_TYPE] == BA_RECORD_DATA;
  if (!data && bytes[AT_TYPE] != BA_RECORD_APP) return BA_RECORD_TYPE;
  *offset = AT_FLAGS;
  if (bytes[AT_FLAGS] | bytes[AT_FLAGS + 1]) return BA_RECORD_FLAGS;
  *offset = AT_RESERVED;
  if (ba_get_be32(bytes + AT_RESERVED)) return BA_RECORD_FLAGS;
  *record = (ba_record){.sequence = ba_get_be64(bytes + AT_SEQUENCE),
                        .position = ba_get_be64(bytes + AT_POSITION),
                        .wall_ns = ba_get_be64(bytes + AT_WALL),
                        .fingerprint = ba_get_be64(bytes + AT_FINGERPRINT),
                        .count = ba_get_be32(bytes + AT_COUNT),
                        .items = ba_get_be32(bytes + AT_ITEMS),
                        .payload = ba_get_be32(bytes + AT_PAYLOAD),
                        .lane = ba_get_be32(bytes + AT_LANE),
                        .type = bytes[AT_TYPE]};
  *offset = AT_COUNT;
  if (record->count > (data ? BA_RECORD_SIGNALS : 0)) return BA_RECORD_COUNT;
  *offset = AT_ITEMS;
  if (!data && record->items) return BA_RECORD_ITEMS;
  *offset = AT_PAYLOAD;
  if (record->payload > BA_RECORD_PAYLOAD_MAX) return BA_RECORD_LENGTH;
  *offset = n;
  size_t expected = BA_RECORD_HEADER + (size_t)record->payload;
  if (n != expected) return n < expected ? BA_RECORD_SHORT : BA_RECORD_LONG;
  *offset = AT_CRC;
  if (ba_get_be32(bytes + AT_CRC) != checksum(bytes, n)) return BA_RECORD_CRC;
  *offset = AT_POSITION;
  return record->position > UINT64_MAX - record->count ? BA_RECORD_POSITION : BA_RECORD_OK;
}

static bool may_be_logged(uint8_t type) {
  return type == BA_MESSAGE_FRAME || type == BA_MESSAGE_NAME || type == BA_MESSAGE_PART ||
         type == BA_MESSAGE_PRODUCER || type == BA_MESSAGE_FORGET_PRODUCER || type == BA_MESSAGE_ERASE_KEY;
}

enum ba_record_result ba_record_item(const uint8_t *bytes, size_t n, size_t at, uint8_t *type, size_t *length,
                                     size_t *offset) {
  const uint8_t *item = bytes + at;
  *offset = at;
  if (n - at < BA_MESSAGE_HEAD || memcmp(item, message_magic, sizeof message_magic) != 0) return BA_RECORD_ITEM;
  *offset = at + AT_VERSION;
  if (item[AT_VERSION] != VERSION) return BA_RECORD_ITEM;
  *offset = at + AT_TYPE;
  if (!may_be_logged(item[AT_TYPE])) return BA_RECORD_ITEM;
  *offset = at + AT_FLAGS;
  if (item[AT_FLAGS] | item[AT_FLAGS + 1]) return BA_RECORD_ITEM;
  *type = item[AT_TYPE];
  if (*type == BA_MESSAGE_FRAME) {
    *offset = at;
    if (n - at < BA_FRAME_HEADER) return BA_RECORD_ITEM;
    *offset = at + FRAME_COUNT;
    uint32_t count = ba_get_be32(item + FRAME_COUNT);
    if (count == 0 || count > BA_FRAME_SIGNALS) return BA_RECORD_ITEM;
    *length = BA_FRAME_HEADER + 32 * (size_t)count;
  } else {
    *offset = at + ITEM_LENGTH;
    uint32_t payload = ba_get_be32(item + ITEM_LENGTH);
    if (payload > BA_MESSAGE_PAYLOAD_MAX) return BA_RECORD_ITEM;
    *length = BA_MESSAGE_HEAD + (size_t)payload;
  }
  return *length > n - at ? BA_RECORD_ITEM : BA_RECORD_OK;
}

enum ba_record_result ba_record_read(const uint8_t *bytes, size_t n, const uint64_t *kinds, ba_record *record,
                                     ba_signal *signals, enum ba_frame_result *frame, size_t *offset) {
  *frame = BA_FRAME_OK;
  enum ba_record_result result = ba_record_decode(bytes, n, record, offset);
  if (result != BA_RECORD_OK || record->type == BA_RECORD_APP) return result;
  uint32_t items = 0, count = 0;
  for (size_t at = BA_RECORD_HEADER, length; at < n; at += length, items++) {
    uint8_t type;
    result = ba_record_item(bytes, n, at, &type, &length, offset);
    if (result != BA_RECORD_OK) return result;
    if (type != BA_MESSAGE_FRAME) continue;
    uint32_t more = (uint32_t)((length - BA_FRAME_HEADER) / 32);
    *offset = AT_COUNT;
    if (more > record->count - count) return BA_RECORD_TOTAL; /* before anything is written past signals[count) */
    ba_frame header;
    *frame = ba_frame_decode(bytes + at, length, kinds, &header, signals + count, offset);
    *offset += at;
    if (*frame != BA_FRAME_OK) return BA_RECORD_FRAME;
    count += more;
  }
  *offset = AT_COUNT;
  if (count != record->count) return BA_RECORD_TOTAL;
  *offset = AT_ITEMS;
  return items == record->items ? BA_RECORD_OK : BA_RECORD_ITEMS;
}

enum ba_frame_result ba_record_add_frame(ba_record_open *open, const uint8_t *bytes, size_t n, const uint64_t *kinds,
                                         uint32_t skip, ba_frame *frame, size_t *offset) {
  ba_signal *signals = open->signals + open->count;
  enum ba_frame_result result = ba_frame_decode(bytes, n, kinds, frame, signals, offset);
  if (result != BA_FRAME_OK) return result;
  uint8_t *to = open->bytes + open->length;
  if (skip) {
    *offset = FRAME_COUNT;
    if (skip >= frame->count) return BA_FRAME_COUNT;
    frame->count -= skip;
    frame->sequence += skip;
    memmove(signals, signals + skip, sizeof *signals * (size_t)frame->count);
    n = ba_frame_encode(frame, signals, to);
  } else {
    memcpy(to, bytes, n);
  }
  open->length += n;
  open->count += frame->count;
  open->items++;
  return BA_FRAME_OK;
}
