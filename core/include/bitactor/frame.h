/*
 * Frames: up to 8,192 signals of one producer as bytes, big-endian, with a CRC. The layout, a hex example and the
 * reasons are in docs/adr/0005-frame-encoding.md; version 1 is frozen.
 *
 *   offset size
 *        0    4  magic "BAF1"
 *        4    1  version: 1
 *        5    1  type: 1, data
 *        6    2  flags: 0
 *        8    8  producer
 *       16    4  epoch
 *       20    4  count of signals, 1 to 8,192
 *       24    8  sequence: index of the first signal in the producer's stream; sequence + count <= 2^64 - 1
 *       32    4  CRC-32C of bytes [0, 32) and [36, length)
 *       36    4  reserved: 0
 *       40   24  trace context: trace id (16), span id (8); zeros: none
 *       64  32n  signals
 *
 * Pure functions; any thread; nothing waits.
 */
#ifndef BITACTOR_FRAME_H
#define BITACTOR_FRAME_H

#include <bitactor/signal.h>

enum { BA_FRAME_HEADER = 64, BA_FRAME_BYTES_MAX = BA_FRAME_HEADER + 32 * BA_FRAME_SIGNALS };

enum ba_frame_result {
  BA_FRAME_OK = 0,
  BA_FRAME_SHORT,   /* fewer bytes than a header, or than the header's count says */
  BA_FRAME_MAGIC,   /* not a frame */
  BA_FRAME_VERSION, /* of a version that is not known here */
  BA_FRAME_TYPE,
  BA_FRAME_FLAGS,     /* a reserved bit of the header is set */
  BA_FRAME_COUNT,     /* 0, or more than 8,192 */
  BA_FRAME_LONG,      /* more bytes than the header's count says */
  BA_FRAME_CRC,       /* the bytes are not those that were sent */
  BA_FRAME_SEQUENCE,  /* sequence + count is past 2^64 - 1 */
  BA_FRAME_BAD_FLAGS, /* a signal has a reserved flag set */
  BA_FRAME_BAD_KIND   /* a signal's kind is 0 or not in the set */
};

typedef struct ba_frame {
  uint64_t producer;
  uint64_t sequence;
  uint32_t epoch;
  uint32_t count;
  uint8_t trace[24];
} ba_frame;

/* Writes a frame of frame->count signals to out, which has room for BA_FRAME_HEADER + 32 * count bytes. Returns the
 * bytes written; 0: the count or the sequence is out of range. */
size_t ba_frame_encode(const ba_frame *frame, const ba_signal *signals, uint8_t *out);

/*
 * Reads the frame that is exactly bytes[0, n). Checks in the order of ba_frame_result, each before anything that
 * depends on it; reads no byte past n. kinds: 65,536 bits, bit k set when kind k is declared; null: any but 0.
 * signals: room for as many as the bytes hold, (n - 64) / 32 but at most BA_FRAME_SIGNALS. On failure *offset is where
 * the trouble lies, and frame and signals are undefined.
 */
enum ba_frame_result ba_frame_decode(const uint8_t *bytes, size_t n, const uint64_t *kinds, ba_frame *frame,
                                     ba_signal *signals, size_t *offset);

/*
 * A frame cut by lane, in two calls, so that the caller makes room between them. The first checks the frame as
 * ba_frame_decode does, and writes the lane of each signal to lane_of[0, count) (partition modulo lanes, which divides
 * BA_PARTITIONS) and how many each lane has to counts[0, lanes). lane_of has room as signals there.
 */
enum ba_frame_result ba_frame_lanes(const uint8_t *bytes, size_t n, const uint64_t *kinds, uint32_t lanes,
                                    ba_frame *frame, uint8_t *lane_of, uint32_t *counts, size_t *offset);

/* The second copies the signals of those bytes, as they are on the wire, each lane's back to back in their order to
 * rows[lane], and the index of each in the frame, as big-endian u2, to places[lane]: 32 and 2 bytes each. Lanes without
 * signals are not looked at. */
void ba_frame_scatter(const uint8_t *bytes, uint32_t count, const uint8_t *lane_of, uint32_t lanes,
                      uint8_t *const *rows, uint8_t *const *places);

#endif
