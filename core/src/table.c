/*
 * Linear hashing over chains of four-key buckets. One thread at a time per pool; nothing waits.
 *
 * Splitting never needs fresh memory: a chain of c keys has ceil(c / 4) - 1 overflow buckets, the two chains it becomes
 * need ceil(c1 / 4) + ceil(c2 / 4) - 2 <= ceil(c / 4) - 1 of them, and each is given back before its keys are moved.
 */
#include <string.h>

#include <bitactor/table.h>

enum { LIVE_ALL = (1 << BA_BUCKET_KEYS) - 1 };

/* One step of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *seed) {
  uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

ba_hash ba_hash_from_secret(const uint64_t secret[2]) {
  uint64_t one = secret[0], two = secret[1] ^ UINT64_C(0x6a09e667f3bcc908);
  ba_hash hash;
  hash.a = next_random(&one) ^ next_random(&two);
  hash.b = next_random(&one) ^ next_random(&two);
  hash.c = next_random(&one) ^ next_random(&two);
  return hash;
}

int ba_lines_init(ba_lines *lines, uint64_t lines_max) {
  *lines = (ba_lines){0};
  if (lines_max > UINT32_MAX) lines_max = UINT32_MAX;
  if (ba_region_init(&lines->region, (size_t)lines_max * BA_LINE_BYTES) != 0) return -1;
  if (ba_region_grow(&lines->region, BA_LINE_BYTES) != 0) return -1;
  lines->used = 1;
  return 0;
}

void ba_lines_free(ba_lines *lines) {
  ba_region_free(&lines->region);
  *lines = (ba_lines){0};
}

uint32_t ba_lines_take(ba_lines *lines, uint32_t n) {
  const uint32_t first = lines->used;
  if (n > UINT32_MAX - first) return 0;
  if (ba_region_grow(&lines->region, ((size_t)first + n) * BA_LINE_BYTES) != 0) return 0;
  lines->used = first + n;
  return first;
}

/* An empty overflow bucket; 0: no memory. */
static uint32_t overflow_take(ba_lines *lines) {
  const uint32_t line = lines->free;
  if (line == 0) return ba_lines_take(lines, 1); /* fresh memory is zero, and so empty */
  ba_bucket *bucket = ba_lines_at(lines, line);
  lines->free = bucket->next;
  lines->free_n--;
  bucket->next = 0;
  bucket->live = 0;
  return line;
}

static void overflow_give(ba_lines *lines, uint32_t line) {
  ba_lines_at(lines, line)->next = lines->free;
  lines->free = line;
  lines->free_n++;
}

/* Line of bucket `index`, which exists. */
static uint32_t line_of(const ba_table *table, uint32_t index) {
  return table->segments[29 - __builtin_clz(index | (BA_TABLE_FIRST - 1))] + index;
}

/* Puts an entry into the chain's last bucket, lengthening the chain if that is full; moves *last to it. -1: no memory.
 */
static int append(ba_lines *lines, ba_bucket **last, uint64_t key, uint32_t slot) {
  ba_bucket *bucket = *last;
  if (bucket->live == LIVE_ALL) {
    const uint32_t line = overflow_take(lines);
    if (line == 0) return -1;
    bucket->next = line;
    *last = bucket = ba_lines_at(lines, line);
  }
  const int at = __builtin_ctz(~bucket->live);
  bucket->keys[at] = key;
  bucket->slots[at] = slot;
  bucket->live |= 1u << at;
  return 0;
}

/* Splits bucket buckets - level into itself and the new last bucket. */
static void split_one(ba_lines *lines, const ba_hash *hash, ba_table *table) {
  const uint32_t level = table->lo_mask + 1;
  ba_bucket *from = ba_lines_at(lines, line_of(table, table->buckets - level));
  ba_bucket *last[2] = {from, ba_lines_at(lines, line_of(table, table->buckets))};
  ba_bucket moved = *from;
  uint32_t rest = from->next;
  from->live = 0;
  from->next = 0;
  for (;;) {
    for (uint32_t i = 0; i < BA_BUCKET_KEYS && (moved.live >> i & 1); i++) {
      const bool up = (ba_hash_of(hash, moved.keys[i]) & level) != 0;
      (void)append(lines, &last[up], moved.keys[i], moved.slots[i]); /* cannot fail: see the head of this file */
    }
    if (rest == 0) break;
    const uint32_t line = rest;
    moved = *ba_lines_at(lines, line);
    rest = moved.next;
    overflow_give(lines, line);
  }
  if (++table->buckets == 2 * level) {
    table->lo_mask = 2 * level - 1;
    table->hi_mask = 4 * level - 1;
  }
}

/* Gets the segment for a doubling. -1: no memory, or as large as a table can be. */
static int begin_doubling(ba_lines *lines, ba_table *table) {
  const uint32_t buckets = table->buckets;
  const uint32_t k = buckets ? (uint32_t)(29 - __builtin_clz(buckets)) : 0;
  if (k >= BA_TABLE_SEGMENTS) return -1;
  const uint32_t fresh = buckets ? buckets : BA_TABLE_FIRST;
  const uint32_t first = ba_lines_take(lines, fresh);
  if (first == 0) return -1;
  table->segments[k] = first - buckets; /* may wrap; adding an index wraps it back */
  if (buckets == 0) {
    table->buckets = BA_TABLE_FIRST;
    table->lo_mask = BA_TABLE_FIRST - 1;
    table->hi_mask = 2 * BA_TABLE_FIRST - 1;
  }
  table->split_until = buckets + fresh;
  table->grow_at = BA_TABLE_LOAD * table->split_until;
  return 0;
}

void ba_table_init(ba_table *table) { *table = (ba_table){0}; }

uint32_t *ba_table_find(const ba_lines *lines, const ba_hash *hash, const ba_table *table, uint64_t key) {
  ba_bucket *bucket = ba_table_bucket(lines, table, ba_hash_of(hash, key));
  for (;;) {
    for (uint32_t i = 0; i < BA_BUCKET_KEYS; i++) {
      if (bucket->keys[i] == key && (bucket->live >> i & 1)) return &bucket->slots[i];
    }
    if (bucket->next == 0) return NULL;
    bucket = ba_lines_at(lines, bucket->next);
  }
}

int ba_table_insert(ba_lines *lines, const ba_hash *hash, ba_table *table, uint64_t key, uint32_t slot) {
  if (table->keys >= table->grow_at && table->buckets == table->split_until) {
    /* Without memory to double, an old table goes on with longer chains; a new one cannot begin. */
    if (begin_doubling(lines, table) != 0 && table->buckets == 0) return -1;
  }
  for (int i = 0; i < BA_TABLE_BURST && table->buckets < table->split_until; i++) split_one(lines, hash, table);
  ba_bucket *last = ba_table_bucket(lines, table, ba_hash_of(hash, key));
  while (last->next) last = ba_lines_at(lines, last->next);
  if (append(lines, &last, key, slot) != 0) return -1;
  table->keys++;
  return 0;
}

int ba_table_remove(ba_lines *lines, const ba_hash *hash, ba_table *table, uint64_t key) {
  ba_bucket *bucket = ba_table_bucket(lines, table, ba_hash_of(hash, key));
  ba_bucket *hole = NULL, *before = NULL;
  uint32_t hole_at = 0;
  for (;;) {
    for (uint32_t i = 0; i < BA_BUCKET_KEYS && !hole; i++) {
      if (bucket->keys[i] == key && (bucket->live >> i & 1)) {
        hole = bucket;
        hole_at = i;
      }
    }
    if (bucket->next == 0) break;
    before = bucket;
    bucket = ba_lines_at(lines, bucket->next);
  }
  if (!hole) return -1;
  const uint32_t at = 31 - (uint32_t)__builtin_clz(bucket->live);
  hole->keys[hole_at] = bucket->keys[at];
  hole->slots[hole_at] = bucket->slots[at];
  bucket->live &= ~(1u << at);
  if (bucket->live == 0 && before) {
    const uint32_t line = before->next;
    before->next = 0;
    overflow_give(lines, line);
  }
  table->keys--;
  return 0;
}
