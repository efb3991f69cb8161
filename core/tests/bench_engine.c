/*
 * The engine's speed with handlers in C, beside a plain loop over the same signals. Prints JSON lines, M signals/s.
 *
 *   bench_engine [seconds of signals, in millions: default 64] [rounds: default 5]
 *
 * vwap: per key count, notional, volume, high; random keys; exact totals checked. row_loop: one array of {key, state},
 * linear probing, load 0.5. feedback: every signal emits once to another key, frames of 8,192. Tables are warm.
 */
#include <bitactor/engine.h>
#include <bitactor/ticks.h>
#include <bitactor/wait.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "check.h"

typedef struct vwap {
  double count, notional, volume, high;
} vwap;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void trade(vwap *s, const ba_signal *in) {
  double price;
  memcpy(&price, &in->value, sizeof price);
  s->count += 1;
  s->notional += price * in->aux;
  s->volume += in->aux;
  s->high = price > s->high ? price : s->high;
}

static uint32_t on_trade(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                         const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    trade((vwap *)(void *)(states + (size_t)slots[i] * sizeof(vwap)), &signals[order[i]]);
  ctx->status = BA_DONE;
  return n;
}

static uint32_t pass_on(ba_ctx *ctx, uint8_t *states, const uint32_t *slots, const ba_signal *signals,
                        const uint16_t *order, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (ctx->emit_n == ctx->emit_cap) {
      ctx->status = BA_EMIT_FULL;
      return i;
    }
    const ba_signal *in = &signals[order[i]];
    trade((vwap *)(void *)(states + (size_t)slots[i] * sizeof(vwap)), in);
    ba_emit *out = &ctx->emits[ctx->emit_n++];
    *out = (ba_emit){*in, order[i], 0};
    out->signal.kind = 2;
    out->signal.key = in->key ^ 1;
  }
  ctx->status = BA_DONE;
  return n;
}

typedef struct row {
  uint64_t key;
  uint32_t used, pad;
  vwap state;
} row;

static double row_loop(const ba_signal *signals, uint64_t n, uint64_t keys, row *rows, uint64_t slots) {
  (void)keys;
  double begun = now();
  for (uint64_t i = 0; i < n; i++) {
    uint64_t at = ba_mix64(signals[i].key) & (slots - 1);
    while (rows[at].used && rows[at].key != signals[i].key) at = (at + 1) & (slots - 1);
    rows[at].used = 1;
    rows[at].key = signals[i].key;
    trade(&rows[at].state, &signals[i]);
  }
  return now() - begun;
}

static const uint16_t kinds[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t zero[sizeof(vwap)];

static ba_engine *make(uint32_t shards, const ba_actor_spec *actors, uint32_t n, uint32_t ring) {
  ba_engine_config config = {.kinds = kinds,
                             .kind_count = 8,
                             .actors = actors,
                             .actor_count = n,
                             .shards = shards,
                             .ring_signals = ring,
                             .secret = {0x243f6a8885a308d3, 0x13198a2e03707344}};
  ba_engine *engine;
  CHECK(ba_engine_create(&config, &engine) == BA_OK, "create");
  return engine;
}

static double through(ba_engine *engine, const ba_signal *signals, uint64_t n, uint32_t frame) {
  double begun = now();
  uint32_t bad;
  for (uint64_t at = 0; at < n; at += frame) {
    CHECK(ba_engine_send(engine, signals + at, (uint32_t)(n - at < frame ? n - at : frame), BA_FULL_WAIT, UINT64_MAX,
                         &bad) == BA_OK,
          "send");
  }
  CHECK(ba_engine_flush(engine, UINT64_MAX) == BA_OK, "flush");
  return now() - begun;
}

static double total_count(ba_engine *engine, uint32_t actor) {
  uint64_t position, rows = 0;
  CHECK(ba_engine_pause(engine, UINT64_MAX, UINT64_MAX, &position) == BA_OK, "pause");
  rows = ba_engine_count(engine, actor);
  uint64_t *keys = malloc(rows * 8 + 8);
  double *counts = malloc(rows * 8 + 8), sum = 0;
  uint32_t offset = 0, bytes = 8;
  uint8_t *column = (uint8_t *)counts;
  ba_engine_rows(engine, actor, keys, 1, &offset, &bytes, &column);
  for (uint64_t i = 0; i < rows; i++) sum += counts[i];
  free(keys);
  free(counts);
  ba_engine_resume(engine);
  return sum;
}

static int compare_doubles(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, compare_doubles);
  return values[n / 2];
}

static void *huge(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "no memory");
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

int main(int argc, char **argv) {
  uint64_t n = (uint64_t)((argc > 1 ? atof(argv[1]) : 16) * 1e6) / 8192 * 8192;
  int rounds = argc > 2 ? atoi(argv[2]) : 5;
  if (rounds > 64) rounds = 64;
  ba_signal *signals = huge(n * sizeof *signals);
  ba_actor_spec vwap_spec = {
      .handler = on_trade, .stride = sizeof(vwap), .init = zero, .kinds = kinds, .kind_count = 1};
  static const uint64_t key_counts[] = {1000, 1000000, 10000000};
  for (int k = 0; k < 3; k++) {
    uint64_t keys = key_counts[k], slots = 1;
    while (slots < keys * 2) slots *= 2;
    for (uint64_t i = 0; i < n; i++) {
      double price = 100 + (double)(i % 100);
      signals[i] = (ba_signal){.kind = 1, .aux = 1 + (uint32_t)(i % 10), .key = ba_mix64(i + 1) % keys, .time = i};
      memcpy(&signals[i].value, &price, 8);
    }
    row *rows = huge(slots * sizeof *rows);
    ba_engine *inline_engine = make(0, &vwap_spec, 1, 0), *engine = make(1, &vwap_spec, 1, 0);
    double loop[64], ring[64], in[64], ratio_ring[64], ratio_in[64];
    for (int r = -1; r < rounds; r++) { /* the first round warms the tables */
      double a = row_loop(signals, n, keys, rows, slots);
      double b = through(engine, signals, n, 8192);
      double c = through(inline_engine, signals, n, 8192);
      if (r < 0) continue;
      loop[r] = (double)n / a / 1e6, ring[r] = (double)n / b / 1e6, in[r] = (double)n / c / 1e6;
      ratio_ring[r] = a / b, ratio_in[r] = a / c;
    }
    CHECK(total_count(engine, 0) == (double)n * (rounds + 1), "signals were lost");
    CHECK(total_count(inline_engine, 0) == (double)n * (rounds + 1), "signals were lost inline");
    ba_actor_statistics statistics;
    ba_engine_actor_statistics(engine, 0, &statistics);
    printf(
        "{\"bench\": \"vwap\", \"keys\": %llu, \"row_loop\": %.1f, \"ring\": %.1f, \"inline\": %.1f, \"ring_ratio\": "
        "%.2f, "
        "\"inline_ratio\": %.2f, \"handler_ticks\": %.1f, \"key_bytes\": %.1f}\n",
        (unsigned long long)keys, median(loop, rounds), median(ring, rounds), median(in, rounds),
        median(ratio_ring, rounds), median(ratio_in, rounds), (double)statistics.ticks / (double)statistics.signals,
        (double)statistics.key_bytes / (double)statistics.keys);
    fflush(stdout);
    ba_engine_destroy(engine);
    ba_engine_destroy(inline_engine);
    munmap(rows, slots * sizeof *rows);
  }
  for (uint32_t shards = 0; shards < 3; shards++) {
    ba_engine *engine = make(shards, &vwap_spec, 1, 0);
    uint64_t few = n < 1000000 ? n : 1000000;
    double rate[64];
    for (int r = -1; r < rounds; r++) {
      double t = through(engine, signals, few, 1);
      if (r >= 0) rate[r] = (double)few / t / 1e6;
    }
    printf("{\"bench\": \"single_sends\", \"shards\": %u, \"signals\": %.1f}\n", shards, median(rate, rounds));
    fflush(stdout);
    ba_engine_destroy(engine);
  }
  static const uint16_t two = 2;
  ba_actor_spec feedback[2] = {
      {.handler = pass_on,
       .stride = sizeof(vwap),
       .init = zero,
       .kinds = kinds,
       .kind_count = 1,
       .emits = &two,
       .emit_count = 1},
      {.handler = on_trade, .stride = sizeof(vwap), .init = zero, .kinds = &two, .kind_count = 1}};
  for (uint64_t i = 0; i < n; i++) signals[i].key = ba_mix64(i) % 1000;
  for (uint32_t shards = 0; shards < 3; shards++) {
    ba_engine *engine = make(shards, feedback, 2, 0);
    double rate[64];
    for (int r = -1; r < rounds; r++) {
      double t = through(engine, signals, n, 8192);
      if (r >= 0) rate[r] = (double)n / t / 1e6;
    }
    CHECK(total_count(engine, 1) == (double)n * (rounds + 1), "emits were lost");
    printf("{\"bench\": \"feedback\", \"shards\": %u, \"inputs\": %.1f}\n", shards, median(rate, rounds));
    fflush(stdout);
    ba_engine_destroy(engine);
  }
  ba_actor_spec eight[8];
  for (int a = 0; a < 8; a++) {
    eight[a] = vwap_spec;
    eight[a].kinds = &kinds[a];
  }
  for (uint64_t i = 0; i < n; i++) signals[i].kind = kinds[ba_mix64(i ^ 77) % 8], signals[i].key = 1;
  ba_engine *engine = make(0, eight, 8, 0);
  through(engine, signals, n, 8192);
  uint64_t cached = n < 8192 * 4 ? n : 8192 * 4;
  double best = 1e9;
  for (int r = 0; r < 200; r++) {
    uint64_t begun = ba_ticks();
    through(engine, signals, cached, 8192);
    double ticks = (double)(ba_ticks() - begun) / (double)cached;
    if (ticks < best) best = ticks;
  }
  printf("{\"bench\": \"eight_kinds_inline_whole\", \"ticks\": %.2f}\n", best);
  ba_engine_destroy(engine);
  return 0;
}
