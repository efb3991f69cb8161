/*
 * CRC-32C (Castagnoli; RFC 3720, section 12.1): polynomial 0x1EDC6F41 reflected, all ones in and out.
 * Check value of "123456789": 0xE3069283. Pure; any thread; never waits.
 */
#ifndef BITACTOR_CRC32C_H
#define BITACTOR_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of what `crc` is the CRC of (0: nothing) followed by n bytes. */
uint32_t ba_crc32c(uint32_t crc, const void *bytes, size_t n);
/* The same from a table alone. */
uint32_t ba_crc32c_plain(uint32_t crc, const void *bytes, size_t n);

#endif
