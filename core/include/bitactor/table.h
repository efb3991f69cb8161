/*
 * A table: which slot a key has, by linear hashing; a store has one.
 *
 * Linear hashing grows a few buckets at a time, so no insert pays for moving everything. When the mean bucket is full
 * enough, a doubling begins: each following insert splits BA_TABLE_BURST buckets until there are twice as many. Load
 * thus moves between about 1.5 and 3 keys a bucket. A bucket is a cache line of four keys and their slots; more than
 * four keys chain through overflow buckets. Buckets come from a pool of lines.
 *
 * Where a key is placed depends on a secret, so that nobody who chooses keys can choose collisions: the hash is
 * strongly universal (see ba_hash).
 *
 * One thread at a time per pool and all of its tables; nothing waits. A pointer to a bucket lives until the next insert
 * or removal.
 * Invariants: every bucket of a chain but its last is full; lo_mask + 1 <= buckets <= hi_mask (a table with buckets);
 * keys <= (BA_BUCKET_KEYS * buckets) + BA_BUCKET_KEYS * overflow buckets.
 */
#ifndef BITACTOR_TABLE_H
#define BITACTOR_TABLE_H

#include <stdint.h>

#include <bitactor/region.h>

enum {
  BA_BUCKET_KEYS = 4,
  BA_TABLE_LOAD = 3,      /* mean keys a bucket at which a doubling begins */
  BA_TABLE_BURST = 8,     /* buckets split by one insert while doubling */
  BA_TABLE_FIRST = 8,     /* buckets of the first segment; segment k > 0 has 8 << (k - 1) */
  BA_TABLE_SEGMENTS = 28, /* so at most 8 << 27 buckets; beyond that chains lengthen */
  BA_LINE_BYTES = 64
};

typedef struct ba_bucket {
  uint64_t keys[BA_BUCKET_KEYS];
  uint32_t slots[BA_BUCKET_KEYS];
  uint32_t next; /* line of the next bucket of the chain; 0: none */
  uint32_t live; /* bit i: entry i is taken; the taken ones come first */
  uint64_t spare;
} ba_bucket;

_Static_assert(sizeof(ba_bucket) == BA_LINE_BYTES, "a bucket is one cache line");

/* A pool of cache lines in one region, numbered from 0. Line 0 is a bucket that stays empty: a table without keys uses
 * it. */
typedef struct ba_lines {
  ba_region region;
  uint32_t used;   /* lines ever handed out, line 0 included */
  uint32_t free;   /* first of the returned lines, linked through ba_bucket.next; 0: none */
  uint32_t free_n; /* length of that list */
} ba_lines;

/* h(key) = ((a + low half of key) * (b + high half) + c mod 2^64) >> 32: pair-multiply-shift, strongly universal
 * (Thorup, "High speed hashing for integers and strings", 2015): two keys chosen without knowing a, b, c share an index
 * of l bits with probability 1 / 2^l. One multiplication, and consecutive keys spread evenly. */
typedef struct ba_hash {
  uint64_t a, b, c;
} ba_hash;

typedef struct ba_table {
  uint32_t buckets; /* 0: none yet */
  uint32_t hi_mask; /* index = h & hi_mask, and if that is not below `buckets`, index & lo_mask */
  uint32_t lo_mask;
  uint32_t keys;
  uint32_t split_until;  /* while buckets < split_until a doubling is under way */
  uint32_t grow_at;      /* with this many keys the next doubling begins */
  uint32_t segments[32]; /* line of bucket i = segments[k(i)] + i, modulo 2^32; 32 are two vector registers */
} ba_table;

_Static_assert(BA_TABLE_SEGMENTS <= 32, "segments have room");

/* Multipliers from a 128-bit secret. Pure. */
ba_hash ba_hash_from_secret(const uint64_t secret[2]);

static inline uint32_t ba_hash_of(const ba_hash *hash, uint64_t key) {
  return (uint32_t)(((hash->a + (uint32_t)key) * (hash->b + (key >> 32)) + hash->c) >> 32);
}

/* Reserves room for `lines` lines. 0: done. -1: no memory; ba_lines_free is then harmless. */
int ba_lines_init(ba_lines *lines, uint64_t lines_max);
void ba_lines_free(ba_lines *lines);

/* Takes n fresh lines in a row; 0: no memory, else the first one's number. */
uint32_t ba_lines_take(ba_lines *lines, uint32_t n);

static inline ba_bucket *ba_lines_at(const ba_lines *lines, uint32_t line) {
  return (ba_bucket *)(void *)(lines->region.base + (size_t)line * BA_LINE_BYTES);
}

/* Line of the first bucket of the chain where a key of hash h is or would be. Pure. */
static inline uint32_t ba_table_line(const ba_table *table, uint32_t h) {
  uint32_t index = h & table->hi_mask;
  /* Arithmetic, not a branch: half of the keys go either way, and a mispredicted branch costs more than the rest. */
  index -= (table->hi_mask - table->lo_mask) & -(uint32_t)(index >= table->buckets);
  return table->segments[29 - __builtin_clz(index | (BA_TABLE_FIRST - 1))] + index;
}

/* That bucket. Never null; pure. */
static inline ba_bucket *ba_table_bucket(const ba_lines *lines, const ba_table *table, uint32_t h) {
  return ba_lines_at(lines, ba_table_line(table, h));
}

/* Sets up an empty table; it owns nothing. */
void ba_table_init(ba_table *table);

/* The slot of a key, to read or to change; null: absent. */
uint32_t *ba_table_find(const ba_lines *lines, const ba_hash *hash, const ba_table *table, uint64_t key);

/*
 * Adds a key that is absent. 0: done. -1: no memory; nothing changed that a caller can see, and a later call may
 * succeed. Does constant work: at most BA_TABLE_BURST chains are split.
 */
int ba_table_insert(ba_lines *lines, const ba_hash *hash, ba_table *table, uint64_t key, uint32_t slot);

/* Takes a key out. 0: done. -1: it was absent. The table keeps its buckets; overflow buckets go back to the pool. */
int ba_table_remove(ba_lines *lines, const ba_hash *hash, ba_table *table, uint64_t key);

#endif
