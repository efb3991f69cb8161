/*
 * CRC-32C: the processor's instruction where there is one, else eight table look-ups for eight bytes.
 *
 * The instruction has a latency of three and a throughput of one, so three streams of BLOCK bytes run side by side and
 * are joined: the CRC of a followed by b is shift(crc(a), |b|) ^ crc(b), where shift multiplies by x^(8|b|) modulo the
 * polynomial. For the one distance BLOCK it is four table look-ups. Tables are made once, by whoever comes first.
 */
#include <bitactor/atomic.h>
#include <bitactor/cpu.h>
#include <bitactor/crc32c.h>
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#endif

enum { POLYNOMIAL = 0x82f63b78, BLOCK = 1024 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t table[8][256]; /* table[k][b]: byte b followed by k zero bytes */
static uint32_t shift[4][256]; /* shift[k][b]: byte b in place k, moved by BLOCK zero bytes */

static uint32_t zeros(uint32_t crc, size_t n) {
  while (n--) crc = crc >> 8 ^ table[0][crc & 0xff];
  return crc;
}

static void make_tables(void) {
  for (uint32_t b = 0; b < 256; b++) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? (uint32_t)POLYNOMIAL : 0);
    table[0][b] = crc;
  }
  for (uint32_t b = 0; b < 256; b++) {
    for (int k = 1; k < 8; k++) table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
    for (int k = 0; k < 4; k++) shift[k][b] = zeros(b << 8 * k, BLOCK);
  }
}

/* Eight bytes, the first the least significant. */
static uint64_t load(const uint8_t *at) {
  uint64_t word;
  memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

uint32_t ba_crc32c_plain(uint32_t crc, const void *bytes, size_t n) {
  pthread_once(&once, make_tables);
  const uint8_t *at = bytes;
  crc = ~crc;
  for (; n >= 8; n -= 8, at += 8) {
    uint64_t word = load(at) ^ crc;
    crc = 0;
    for (int k = 0; k < 8; k++) crc ^= table[7 - k][word >> 8 * k & 0xff];
  }
  while (n--) crc = crc >> 8 ^ table[0][(crc ^ *at++) & 0xff];
  return ~crc;
}

#if defined(__x86_64__) || defined(__aarch64__)

#if defined(__x86_64__)
#define CRC_TARGET __attribute__((target("sse4.2")))
#define CRC8(crc, byte) _mm_crc32_u8((crc), (byte))
#define CRC64(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#else
#define CRC_TARGET __attribute__((target("+crc")))
#define CRC8(crc, byte) __crc32cb((crc), (byte))
#define CRC64(crc, word) __crc32cd((crc), (word))
#endif

static uint32_t moved(uint32_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^ shift[3][crc >> 24];
}

CRC_TARGET static uint32_t by_instruction(uint32_t crc, const uint8_t *at, size_t n) {
  crc = ~crc;
  for (; n >= 3 * BLOCK; n -= 3 * BLOCK, at += 3 * BLOCK) {
    uint32_t second = 0, third = 0;
    for (size_t i = 0; i < BLOCK; i += 8) {
      crc = CRC64(crc, load(at + i));
      second = CRC64(second, load(at + BLOCK + i));
      third = CRC64(third, load(at + 2 * BLOCK + i));
    }
    crc = moved(moved(crc) ^ second) ^ third;
  }
  for (; n >= 8; n -= 8, at += 8) crc = CRC64(crc, load(at));
  while (n--) crc = CRC8(crc, *at++);
  return ~crc;
}

uint32_t ba_crc32c(uint32_t crc, const void *bytes, size_t n) {
  if (!ba_cpu_has_crc32c()) return ba_crc32c_plain(crc, bytes, n);
  pthread_once(&once, make_tables);
  return by_instruction(crc, bytes, n);
}

#else

uint32_t ba_crc32c(uint32_t crc, const void *bytes, size_t n) { return ba_crc32c_plain(crc, bytes, n); }

#endif
