/*
 * Records: what the log appends at once, a header and the wire messages that arrived together, in the order in which
 * they take effect. The layout, a hex example and the reasons are in docs/adr/0010-record-encoding.md; version 1 is
 * frozen. All numbers are big-endian.
 *
 *   offset size
 *        0    4  magic "BAR1"
 *        4    1  version: 1
 *        5    1  type: 1 data, 2 app
 *        6    2  flags: 0
 *        8    8  sequence: dense; the log's first record is 0
 *       16    8  position: index in the log of the record's first signal; position + count <= 2^64 - 1
 *       24    8  wall_ns: when it was appended, nanoseconds since the Unix epoch; never decreases in a log
 *       32    4  CRC-32C of bytes [0, 32) and [36, length)
 *       36    4  count of signals, 0 to 65,536; 0 in an app record
 *       40    4  items: messages in the payload; 0 in an app record
 *       44    4  payload length, at most 8 MiB
 *       48    4  lane
 *       52    4  reserved: 0
 *       56    8  fingerprint: first 8 bytes of the app's
 *       64       payload: data: frames and messages, back to back; app: UTF-8 JSON
 *
 * Pure functions, but for ba_record_open, which one thread uses at a time; nothing waits.
 */
#ifndef BITACTOR_RECORD_H
#define BITACTOR_RECORD_H

#include <bitactor/frame.h>

enum {
  BA_RECORD_HEADER = 64,
  BA_RECORD_SIGNALS = 65536, /* most signals in one record */
  BA_RECORD_PAYLOAD_MAX = 8 << 20,
  BA_RECORD_DATA = 1,
  BA_RECORD_APP = 2,
  BA_MESSAGE_HEAD = 16, /* of every message but a frame; payload length at offset 8 */
  BA_MESSAGE_PAYLOAD_MAX = 65536
};

/* Types of messages that a record may hold. */
enum {
  BA_MESSAGE_FRAME = 1,
  BA_MESSAGE_NAME = 11,
  BA_MESSAGE_PART = 15,
  BA_MESSAGE_PRODUCER = 32,
  BA_MESSAGE_FORGET_PRODUCER = 33,
  BA_MESSAGE_ERASE_KEY = 34
};

enum ba_record_result {
  BA_RECORD_OK = 0,
  BA_RECORD_SHORT,    /* fewer bytes than a header, or than the header says */
  BA_RECORD_MAGIC,    /* not a record */
  BA_RECORD_VERSION,  /* of a version that is not known here */
  BA_RECORD_TYPE,     /* neither data nor app */
  BA_RECORD_FLAGS,    /* a reserved bit of the header is set */
  BA_RECORD_COUNT,    /* more than 65,536 signals; or any in an app record */
  BA_RECORD_ITEMS,    /* items in an app record, or not as many as the payload holds */
  BA_RECORD_LENGTH,   /* a payload of more than 8 MiB */
  BA_RECORD_LONG,     /* more bytes than the header says */
  BA_RECORD_CRC,      /* the bytes are not those that were written */
  BA_RECORD_POSITION, /* position + count is past 2^64 - 1 */
  BA_RECORD_ITEM,     /* an item that is no message a record may hold, or that goes past the payload */
  BA_RECORD_FRAME,    /* a frame in it is refused */
  BA_RECORD_TOTAL     /* its frames do not hold as many signals as the header says */
};

typedef struct ba_record {
  uint64_t sequence;
  uint64_t position;
  uint64_t wall_ns;
  uint64_t fingerprint;
  uint32_t count;
  uint32_t items;
  uint32_t payload; /* bytes */
  uint32_t lane;
  uint8_t type;
} ba_record;

/* Writes the header, with its CRC, in front of the payload that lies at bytes + 64 already. Returns the record's
 * length; 0: a field is out of range. */
size_t ba_record_seal(const ba_record *record, uint8_t *bytes);

/* Reads and verifies the header and the CRC of the record that is exactly bytes[0, n); the payload is not looked into.
 * Checks in the order of ba_record_result up to BA_RECORD_POSITION. On failure *offset is where the trouble lies. */
enum ba_record_result ba_record_decode(const uint8_t *bytes, size_t n, ba_record *record, size_t *offset);

/* The item that begins at bytes[at] of a record of n bytes, at < n: its type and its length, which ends within n.
 * BA_RECORD_ITEM, with *offset where the trouble lies, when there is none. Checksums of items are not looked at. */
enum ba_record_result ba_record_item(const uint8_t *bytes, size_t n, size_t at, uint8_t *type, size_t *length,
                                     size_t *offset);

/*
 * ba_record_decode, and all that its payload says: every item is walked, every frame decoded as ba_frame_decode does
 * (kinds: as there) into signals, which has room for BA_RECORD_SIGNALS. *frame: the result of the frame that was
 * refused, when BA_RECORD_FRAME is returned. An app record has no items and no signals.
 */
enum ba_record_result ba_record_read(const uint8_t *bytes, size_t n, const uint64_t *kinds, ba_record *record,
                                     ba_signal *signals, enum ba_frame_result *frame, size_t *offset);

/* A record that is being filled. The caller owns both buffers; length, count and items begin as BA_RECORD_HEADER, 0, 0.
 * 64 <= length <= capacity <= 64 + BA_RECORD_PAYLOAD_MAX, count <= signals_max <= BA_RECORD_SIGNALS. */
typedef struct ba_record_open {
  uint8_t *bytes;
  ba_signal *signals;
  size_t capacity;
  size_t length;
  uint32_t signals_max;
  uint32_t count;
  uint32_t items;
} ba_record_open;

/*
 * Adds the frame that is exactly bytes[0, n) to the record: its signals, and its bytes as they are; with skip > 0 only
 * the signals from the skip-th on, as a frame of their own. Nothing is added unless BA_FRAME_OK is returned; then
 * *frame describes what was added. The caller has checked that it fits: n <= capacity - length and (n - 64) / 32 <=
 * signals_max - count. skip >= the frame's count: BA_FRAME_COUNT.
 */
enum ba_frame_result ba_record_add_frame(ba_record_open *open, const uint8_t *bytes, size_t n, const uint64_t *kinds,
                                         uint32_t skip, ba_frame *frame, size_t *offset);

#endif
