/*
 * What the ring tests put into rings: items whose every byte follows from who made them and as the how-manyeth, and a
 * ledger that says of each item whether it came, came whole, came twice, or came before its predecessor.
 *
 * A ledger belongs to one consumer thread; ledgers_agree joins them once all threads have ended.
 */
#ifndef BITACTOR_TESTS_RING_ITEMS_H
#define BITACTOR_TESTS_RING_ITEMS_H

#include <bitactor/alloc.h>
#include <bitactor/ring.h>

#include "check.h"

typedef struct item {
  uint64_t producer, number, check, again; /* check and again: made at either end of writing an item */
} item;

enum { POISON = 0xee };

static inline uint64_t item_check(uint64_t producer, uint64_t number) {
  return ((number + 1) * UINT64_C(0x9e3779b97f4a7c15)) ^ (producer << 48);
}

static inline item item_of(uint64_t producer, uint64_t number) {
  const uint64_t check = item_check(producer, number);
  return (item){.producer = producer, .number = number, .check = check, .again = ~check};
}

typedef struct ledger {
  uint64_t producers, each; /* every producer makes numbers 0 .. each - 1 */
  uint64_t count;
  uint64_t *next; /* for each producer: no number below it may come any more */
  uint8_t *seen;  /* one bit an item */
} ledger;

static inline void ledger_open(ledger *l, uint64_t producers, uint64_t each) {
  *l = (ledger){.producers = producers, .each = each};
  l->next = ba_alloc(producers * sizeof(*l->next));
  l->seen = ba_alloc((producers * each + 7) / 8 + 1);
  CHECK(l->next != NULL && l->seen != NULL, "memory for a ledger");
}

static inline void ledger_close(ledger *l) {
  ba_free(l->next);
  ba_free(l->seen);
}

static inline void ledger_enter(ledger *l, const item *i) {
  CHECK(i->producer < l->producers && i->number < l->each && i->check == item_check(i->producer, i->number) &&
            i->again == ~i->check,
        "a phantom or half-written item: producer %llx, number %llx, check %llx, again %llx",
        (unsigned long long)i->producer, (unsigned long long)i->number, (unsigned long long)i->check,
        (unsigned long long)i->again);
  CHECK(i->number >= l->next[i->producer], "producer %llu: number %llu after %llu, doubled or out of order",
        (unsigned long long)i->producer, (unsigned long long)i->number, (unsigned long long)l->next[i->producer] - 1);
  l->next[i->producer] = i->number + 1;
  const uint64_t bit = i->producer * l->each + i->number;
  l->seen[bit / 8] |= (uint8_t)(1U << (bit % 8));
  l->count++;
}

/* Enters the items of a polled span, and poisons them where they lie: who reads them again, reads no item. */
static inline void ledger_enter_span(ledger *l, const ba_span *span) {
  for (uint32_t n = 0; n < span->n; n++) {
    uint8_t *at =
        n < span->first_n ? span->first + n * sizeof(item) : span->second + (n - span->first_n) * sizeof(item);
    item i;
    memcpy(&i, at, sizeof(i));
    ledger_enter(l, &i);
    memset(at, POISON, sizeof(i));
  }
}

/* Between all ledgers: every item exactly once, but for as many as were dropped. */
static inline void ledgers_agree(const ledger *ledgers, uint64_t n, uint64_t dropped) {
  const uint64_t items = ledgers[0].producers * ledgers[0].each;
  uint64_t count = 0, missing = 0;
  for (uint64_t l = 0; l < n; l++) count += ledgers[l].count;
  for (uint64_t byte = 0; byte < (items + 7) / 8; byte++) {
    uint8_t all = 0;
    for (uint64_t l = 0; l < n; l++) {
      CHECK((all & ledgers[l].seen[byte]) == 0, "an item near %llu came to two consumers",
            (unsigned long long)byte * 8);
      all |= ledgers[l].seen[byte];
    }
    const unsigned full = byte < items / 8 ? 0xffU : (1U << (items % 8)) - 1;
    missing += (uint64_t)__builtin_popcount(full & ~(unsigned)all);
  }
  CHECK(missing == dropped, "%llu items never came, %llu were dropped", (unsigned long long)missing,
        (unsigned long long)dropped);
  CHECK(count + dropped == items, "%llu items came, %llu were dropped, %llu were made", (unsigned long long)count,
        (unsigned long long)dropped, (unsigned long long)items);
}

/* A generator for each thread; the seed is printed by main. */
static inline uint64_t dice(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint64_t dice_seed(uint64_t seed, uint64_t thread) {
  const uint64_t state = (seed + thread) * UINT64_C(0x9e3779b97f4a7c15);
  return state != 0 ? state : 1;
}

#endif
