/* Tables: every key once, with its slot, through doublings and removals; load and chains within bounds. */
#include <stdlib.h>
#include <time.h>

#include <bitactor/table.h>

#include "check.h"

enum { KEYS = 100000 };

static uint64_t seed;

static uint64_t key_of(uint64_t i) { return (i + seed) * UINT64_C(0x9e3779b97f4a7c15); }

/* Walks a whole table: counts its keys, and checks that only the last bucket of a chain has room. */
static uint32_t walk(const ba_lines *lines, const ba_table *table, uint32_t *overflow) {
  uint32_t keys = 0;
  *overflow = 0;
  for (uint32_t b = 0; b < table->buckets; b++) {
    const ba_bucket *bucket = ba_table_bucket(lines, table, b);
    for (;;) {
      keys += (uint32_t)__builtin_popcount(bucket->live);
      CHECK(bucket->next == 0 || bucket->live == 15, "bucket %u has room before its chain's end", b);
      CHECK((bucket->live & (bucket->live + 1)) == 0, "bucket %u has a hole", b);
      if (bucket->next == 0) break;
      bucket = ba_lines_at(lines, bucket->next);
      ++*overflow;
    }
  }
  return keys;
}

static void a_table_keeps_each_key_once_and_its_load_in_bounds(uint64_t secret_two) {
  ba_lines lines;
  ba_table table;
  const uint64_t secret[2] = {seed, secret_two};
  const ba_hash hash = ba_hash_from_secret(secret);
  CHECK(ba_lines_init(&lines, 1 << 20) == 0, "lines");
  ba_table_init(&table);
  CHECK(!ba_table_find(&lines, &hash, &table, 0) && ba_table_remove(&lines, &hash, &table, 0) == -1, "empty");
  for (uint32_t i = 0; i < KEYS; i++) {
    CHECK(!ba_table_find(&lines, &hash, &table, key_of(i)), "absent before");
    CHECK(ba_table_insert(&lines, &hash, &table, key_of(i), i) == 0, "inserted");
    CHECK(i < 100 || (table.keys * 10 <= table.buckets * 32 && table.keys * 10 >= table.buckets * 13),
          "load: %u keys in %u buckets", table.keys, table.buckets);
    if ((i & (i + 1)) == 0 || i == KEYS - 1) {
      for (uint32_t k = 0; k <= i; k++) {
        const uint32_t *slot = ba_table_find(&lines, &hash, &table, key_of(k));
        CHECK(slot && *slot == k, "key %u of %u", k, i);
      }
      uint32_t overflow;
      CHECK(walk(&lines, &table, &overflow) == i + 1, "each once");
      CHECK(i < 1000 || overflow < table.buckets / 2, "%u overflow buckets, seed %llu", overflow,
            (unsigned long long)seed);
    }
  }
  for (uint32_t i = 0; i < KEYS; i += 3) CHECK(ba_table_remove(&lines, &hash, &table, key_of(i)) == 0, "removed");
  for (uint32_t i = 0; i < KEYS; i++) {
    const uint32_t *slot = ba_table_find(&lines, &hash, &table, key_of(i));
    CHECK(i % 3 ? slot && *slot == i : !slot, "key %u after removals", i);
  }
  for (uint32_t i = 0; i < KEYS; i++) {
    CHECK(ba_table_remove(&lines, &hash, &table, key_of(i)) == (i % 3 ? 0 : -1), "key %u", i);
  }
  uint32_t overflow;
  CHECK(walk(&lines, &table, &overflow) == 0 && overflow == 0 && table.keys == 0, "all gone");
  uint32_t given_back = 0;
  for (uint32_t line = lines.free; line; line = ba_lines_at(&lines, line)->next) given_back++;
  CHECK(given_back == lines.free_n && lines.used == 1 + table.split_until + given_back, "no line is lost");
  ba_lines_free(&lines);
}

int main(int argc, char **argv) {
  seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
  printf("seed %llu\n", (unsigned long long)seed);
  a_table_keeps_each_key_once_and_its_load_in_bounds(0);
  a_table_keeps_each_key_once_and_its_load_in_bounds(63);
  puts("test_table: ok");
  return 0;
}
