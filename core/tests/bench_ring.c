/*
 * Speed of the rings, one JSON object a line. Not a test of correctness by itself, but every item's content and order
 * is checked while it is timed, and a wrong one ends the program.
 *
 *   bench_ring [seconds per figure, default 0.5] [only figures whose name contains this]
 *
 * 32-byte items. Threads are pinned to the first two processors where there are two. Figures on a machine that does
 * other work are worth nothing; compare only within one run.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <bitactor/mpmc.h>
#include <bitactor/shm_ring.h>
#include <bitactor/spsc.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

typedef struct item {
  uint64_t sequence, check, source, stamp;
} item;

static double seconds = 0.5;
static const char *only = "";

static uint64_t mix(uint64_t s) { return s * UINT64_C(0x9e3779b97f4a7c15); }

static void pin(int cpu) {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  if (sysconf(_SC_NPROCESSORS_ONLN) >= 2) sched_setaffinity(0, sizeof(set), &set);
#else
  (void)cpu;
#endif
}

static bool wanted(const char *name) { return strstr(name, only) != NULL; }

static void report(const char *name, uint32_t batch, uint64_t capacity, uint64_t items, uint64_t ns) {
  printf(
      "{\"figure\": \"%s\", \"value\": %.1f, \"unit\": \"M/s\", \"batch\": %u, \"capacity\": %llu, "
      "\"items\": %llu, \"seconds\": %.4f}\n",
      name, (double)items * 1e3 / (double)ns, batch, (unsigned long long)capacity, (unsigned long long)items,
      (double)ns * 1e-9);
  fflush(stdout);
}

static void fill(item *at, uint64_t n, uint64_t sequence) {
  for (uint64_t i = 0; i < n; i++) {
    at[i] = (item){.sequence = sequence + i, .check = mix(sequence + i), .source = 0, .stamp = 0};
  }
}

/* One comparison an item would mispredict nothing; differences are collected and looked at once a span. */
static uint64_t differences(const item *at, uint64_t n, uint64_t sequence) {
  uint64_t wrong = 0;
  for (uint64_t i = 0; i < n; i++) wrong |= (at[i].sequence ^ (sequence + i)) | (at[i].check ^ mix(sequence + i));
  return wrong;
}

static void span_fill(const ba_span *s, uint64_t sequence) {
  fill((item *)s->first, s->first_n, sequence);
  if (s->n > s->first_n) fill((item *)s->second, s->n - s->first_n, sequence + s->first_n);
}

static void span_check(const ba_span *s, uint64_t sequence) {
  uint64_t wrong = differences((const item *)s->first, s->first_n, sequence);
  if (s->n > s->first_n) wrong |= differences((const item *)s->second, s->n - s->first_n, sequence + s->first_n);
  CHECK(wrong == 0, "span at %llu has other content", (unsigned long long)sequence);
}

typedef struct job {
  ba_spsc_ring *spsc;
  ba_mpmc_ring *mpmc;
  ba_shm_ring *shm;
  uint32_t batch;
  uint64_t items;
} job;

static void *spsc_produce(void *arg) {
  const job j = *(const job *)arg; /* a copy: the original shares a cache line with what the consumer writes */
  pin(1);
  ba_spsc_producer p;
  CHECK(ba_spsc_producer_open(j.spsc, &p) == BA_RING_OK, "open");
  for (uint64_t s = 0; s < j.items;) {
    ba_span span;
    const uint64_t left = j.items - s;
    const uint32_t n = left < j.batch ? (uint32_t)left : j.batch;
    CHECK(ba_spsc_wait_claim(&p, n, n, BA_WAIT_FOREVER, &span) == BA_RING_OK, "claim");
    span_fill(&span, s);
    ba_spsc_publish(&p, n);
    s += n;
  }
  return NULL;
}

static void *mpmc_produce(void *arg) {
  const job j = *(const job *)arg; /* a copy, as above */
  pin(1);
  ba_mpmc_producer p;
  CHECK(ba_mpmc_producer_open(j.mpmc, &p) == BA_RING_OK, "open");
  for (uint64_t s = 0; s < j.items;) {
    ba_span span;
    const uint64_t left = j.items - s;
    CHECK(ba_mpmc_wait_claim(&p, 1, left < j.batch ? (uint32_t)left : j.batch, BA_WAIT_FOREVER, &span) == BA_RING_OK,
          "claim");
    span_fill(&span, s);
    ba_mpmc_publish(&p);
    s += span.n;
  }
  return NULL;
}

static uint64_t run_spsc(uint32_t batch, uint64_t capacity, uint64_t items) {
  job j = {.batch = batch, .items = items};
  CHECK(ba_spsc_create(&(ba_ring_options){.capacity = capacity, .item_bytes = 32}, &j.spsc) == BA_RING_OK, "create");
  ba_spsc_consumer c;
  CHECK(ba_spsc_consumer_open(j.spsc, &c) == BA_RING_OK, "open");
  pthread_t t;
  const uint64_t begin = ba_monotonic_ns();
  pthread_create(&t, NULL, spsc_produce, &j);
  for (uint64_t s = 0; s < items;) {
    ba_span span;
    CHECK(ba_spsc_wait_poll(&c, 1, batch, BA_WAIT_FOREVER, &span) == BA_RING_OK, "poll");
    span_check(&span, s);
    ba_spsc_release(&c, span.n);
    s += span.n;
  }
  const uint64_t ns = ba_monotonic_ns() - begin;
  pthread_join(t, NULL);
  ba_spsc_destroy(j.spsc);
  return ns;
}

static uint64_t run_mpmc(uint32_t batch, uint64_t capacity, uint64_t items) {
  job j = {.batch = batch, .items = items};
  CHECK(ba_mpmc_create(&(ba_ring_options){.capacity = capacity, .item_bytes = 32}, 1, 1, &j.mpmc) == BA_RING_OK,
        "create");
  ba_mpmc_consumer c;
  CHECK(ba_mpmc_consumer_open(j.mpmc, &c) == BA_RING_OK, "open");
  pthread_t t;
  const uint64_t begin = ba_monotonic_ns();
  pthread_create(&t, NULL, mpmc_produce, &j);
  for (uint64_t s = 0; s < items;) {
    ba_span span;
    CHECK(ba_mpmc_wait_poll(&c, 1, batch, BA_WAIT_FOREVER, &span) == BA_RING_OK, "poll");
    span_check(&span, s);
    ba_mpmc_release(&c);
    s += span.n;
  }
  const uint64_t ns = ba_monotonic_ns() - begin;
  pthread_join(t, NULL);
  ba_mpmc_destroy(j.mpmc);
  return ns;
}

static uint64_t run_shm(uint32_t batch, uint64_t capacity, uint64_t items) {
  char name[64];
  snprintf(name, sizeof(name), "bench-%d", (int)getpid());
  const ba_ring_result made = ba_shm_create(name, &(ba_ring_options){.capacity = capacity, .item_bytes = 32});
  CHECK(made == BA_RING_OK, "create: %s", ba_ring_result_text(made));
  const pid_t child = fork();
  ba_shm_ring *r;
  if (child == 0) {
    pin(1);
    CHECK(ba_shm_attach(name, BA_SHM_PRODUCER, &r) == BA_RING_OK, "attach");
    for (uint64_t s = 0; s < items;) {
      ba_span span;
      const uint64_t left = items - s;
      const uint32_t n = left < batch ? (uint32_t)left : batch;
      CHECK(ba_shm_wait_claim(r, n, n, BA_WAIT_FOREVER, &span) == BA_RING_OK, "claim");
      span_fill(&span, s);
      ba_spsc_publish(ba_shm_producer(r), n);
      s += n;
    }
    ba_shm_detach(r, true);
    _exit(0);
  }
  CHECK(ba_shm_attach(name, BA_SHM_CONSUMER, &r) == BA_RING_OK, "attach");
  uint64_t begin = 0;
  for (uint64_t s = 0; s < items;) {
    ba_span span;
    CHECK(ba_shm_wait_poll(r, 1, batch, BA_WAIT_FOREVER, &span) == BA_RING_OK, "poll");
    if (begin == 0) begin = ba_monotonic_ns();
    span_check(&span, s);
    ba_spsc_release(ba_shm_consumer(r), span.n);
    s += span.n;
  }
  const uint64_t ns = ba_monotonic_ns() - begin;
  ba_shm_detach(r, false);
  int status = 1;
  waitpid(child, &status, 0);
  CHECK(status == 0, "the producer process ended well");
  ba_shm_unlink(name);
  return ns;
}

typedef uint64_t (*runner)(uint32_t batch, uint64_t capacity, uint64_t items);

/* A short run says how many items fill the time, then one run is timed. */
static void hand_over(const char *name, runner run, uint32_t batch, uint64_t capacity) {
  if (!wanted(name)) return;
  uint64_t items = 1u << 16, ns = run(batch, capacity, items);
  while (ns < 20000000 && items < UINT64_C(1) << 34) {
    items *= 4;
    ns = run(batch, capacity, items);
  }
  items = (uint64_t)((double)items * seconds * 1e9 / (double)ns) + 1;
  ns = run(batch, capacity, items);
  report(name, batch, capacity, items, ns);
}

/* Latency. */

static inline uint64_t ticks(void) {
#if defined(__x86_64__)
  uint32_t aux;
  return __builtin_ia32_rdtscp(&aux);
#elif defined(__aarch64__)
  uint64_t now;
  __asm__ __volatile__("isb; mrs %0, cntvct_el0" : "=r"(now));
  return now;
#else
  return ba_monotonic_ns();
#endif
}

static double ns_per_tick(void) {
  const uint64_t t0 = ticks(), n0 = ba_monotonic_ns();
  while (ba_monotonic_ns() - n0 < 20000000) {
  }
  return (double)(ba_monotonic_ns() - n0) / (double)(ticks() - t0);
}

static int by_size(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void report_latency(const char *name, uint64_t *samples, uint64_t n, double scale) {
  static const struct {
    const char *name;
    double part;
  } percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};
  qsort(samples, n, sizeof(*samples), by_size);
  for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
    const uint64_t sample = samples[(uint64_t)((double)n * percentiles[i].part)];
    printf("{\"figure\": \"%s %s\", \"value\": %.0f, \"unit\": \"ns\", \"samples\": %llu}\n", name, percentiles[i].name,
           (double)sample * scale, (unsigned long long)n);
  }
  fflush(stdout);
}

enum { SAMPLES = 200000 };

/*
 * The floor: two threads that pass bare counters, one cache line each way, and nothing else. No hand-over through
 * memory is faster than this on the machine at hand.
 */
typedef struct bare_lines {
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) there;
  _Alignas(BA_RING_APART) BA_ATOMIC(uint64_t) back;
  _Alignas(BA_RING_APART) uint64_t arrived[SAMPLES]; /* by the echo, read after it ended */
} bare_lines;

static void bare_await(BA_ATOMIC(uint64_t) *line, uint64_t value) {
  while (ba_load_acquire(line) != value) ba_pause(); /* acquire: as a ring's load of a counter */
}

static void *bare_echo(void *arg) {
  bare_lines *lines = arg;
  pin(1);
  for (uint64_t i = 0; i < SAMPLES; i++) {
    bare_await(&lines->there, i + 1);
    lines->arrived[i] = ticks();
    ba_store_release(&lines->back, i + 1); /* release: as a ring's store of a counter */
  }
  return NULL;
}

static void bare_latency(void) {
  if (!wanted("latency_bare_one_way") && !wanted("latency_bare_round_trip")) return;
  const double scale = ns_per_tick();
  static bare_lines lines;
  static uint64_t samples[SAMPLES];
  pthread_t t;
  pthread_create(&t, NULL, bare_echo, &lines);
  for (uint64_t i = 0; i < SAMPLES; i++) {
    const uint64_t begin = ticks();
    ba_store_release(&lines.there, i + 1); /* release: as above */
    bare_await(&lines.back, i + 1);
    samples[i] = ticks() - begin;
    lines.arrived[i] -= begin;
  }
  pthread_join(t, NULL);
  report_latency("latency_bare_one_way", lines.arrived, SAMPLES, scale);
  report_latency("latency_bare_round_trip", samples, SAMPLES, scale);
}

typedef struct pair {
  ba_spsc_ring *there, *back;
} pair;

/* Sends the stamp back as soon as it comes: the other half of the round trip. */
static void *echo(void *arg) {
  pair *rings = arg;
  pin(1);
  ba_spsc_consumer c;
  ba_spsc_producer p;
  CHECK(ba_spsc_consumer_open(rings->there, &c) == BA_RING_OK && ba_spsc_producer_open(rings->back, &p) == BA_RING_OK,
        "open");
  ba_span in = {0}, out = {0};
  for (uint64_t i = 0; i < SAMPLES; i++) {
    while (ba_spsc_try_poll(&c, 1, 1, &in) != BA_RING_OK) ba_pause();
    const item it = *(const item *)in.first;
    ba_spsc_release(&c, 1);
    CHECK(ba_spsc_try_claim(&p, 1, 1, &out) == BA_RING_OK && out.first, "room");
    *(item *)out.first = it;
    ba_spsc_publish(&p, 1);
  }
  return NULL;
}

/* Stamps the arrival and sends it back, so that one is under way at a time. */
static void *arrive(void *arg) {
  pair *rings = arg;
  pin(1);
  ba_spsc_consumer c;
  ba_spsc_producer p;
  CHECK(ba_spsc_consumer_open(rings->there, &c) == BA_RING_OK && ba_spsc_producer_open(rings->back, &p) == BA_RING_OK,
        "open");
  ba_span in = {0}, out = {0};
  for (uint64_t i = 0; i < SAMPLES; i++) {
    while (ba_spsc_try_poll(&c, 1, 1, &in) != BA_RING_OK) ba_pause();
    item it = *(const item *)in.first;
    it.check = ticks() - it.stamp;
    ba_spsc_release(&c, 1);
    CHECK(ba_spsc_try_claim(&p, 1, 1, &out) == BA_RING_OK && out.first, "room");
    *(item *)out.first = it;
    ba_spsc_publish(&p, 1);
  }
  return NULL;
}

static void latency(const char *name, bool round_trip) {
  if (!wanted(name)) return;
  const double scale = ns_per_tick();
  uint64_t *samples = calloc(SAMPLES, sizeof(*samples));
  CHECK(samples != NULL, "memory");
  pair rings;
  const ba_ring_options options = {.capacity = 64, .item_bytes = 32};
  CHECK(ba_spsc_create(&options, &rings.there) == BA_RING_OK && ba_spsc_create(&options, &rings.back) == BA_RING_OK,
        "create");
  ba_spsc_producer p;
  ba_spsc_consumer c;
  CHECK(ba_spsc_producer_open(rings.there, &p) == BA_RING_OK && ba_spsc_consumer_open(rings.back, &c) == BA_RING_OK,
        "open");
  pthread_t t;
  pthread_create(&t, NULL, round_trip ? echo : arrive, &rings);
  ba_span out = {0}, in = {0};
  for (uint64_t i = 0; i < SAMPLES; i++) {
    CHECK(ba_spsc_try_claim(&p, 1, 1, &out) == BA_RING_OK && out.first, "room");
    *(item *)out.first = (item){.sequence = i, .stamp = ticks()};
    ba_spsc_publish(&p, 1);
    while (ba_spsc_try_poll(&c, 1, 1, &in) != BA_RING_OK) ba_pause();
    const item it = *(const item *)in.first;
    ba_spsc_release(&c, 1);
    CHECK(it.sequence == i, "order");
    samples[i] = round_trip ? ticks() - it.stamp : it.check;
  }
  pthread_join(t, NULL);
  report_latency(name, samples, SAMPLES, scale);
  ba_spsc_destroy(rings.there);
  ba_spsc_destroy(rings.back);
  free(samples);
}

/* Many threads on one ring. */

enum { SIDE = 50 };

typedef struct crowd {
  ba_mpmc_ring *ring;
  uint32_t batch;
  uint64_t items; /* of each producer */
  BA_ATOMIC(uint64_t) counts[SIDE];
  BA_ATOMIC(uint64_t) sums[SIDE];
  BA_ATOMIC(uint32_t) next_source;
} crowd;

static void *crowd_produce(void *arg) {
  crowd *c = arg;
  const uint32_t source = ba_fetch_add_relaxed(&c->next_source, 1);
  ba_mpmc_producer p;
  CHECK(ba_mpmc_producer_open(c->ring, &p) == BA_RING_OK, "open");
  for (uint64_t s = 0; s < c->items;) {
    ba_span span;
    const uint64_t left = c->items - s;
    CHECK(ba_mpmc_wait_claim(&p, 1, left < c->batch ? (uint32_t)left : c->batch, BA_WAIT_FOREVER, &span) == BA_RING_OK,
          "claim");
    for (uint32_t i = 0; i < span.n; i++) {
      item *it = i < span.first_n ? (item *)span.first + i : (item *)span.second + (i - span.first_n);
      *it = (item){.sequence = s + i, .check = mix(s + i) ^ source, .source = source};
    }
    ba_mpmc_publish(&p);
    s += span.n;
  }
  return NULL;
}

static void *crowd_consume(void *arg) {
  crowd *c = arg;
  ba_mpmc_consumer p;
  uint64_t next[SIDE] = {0}, counts[SIDE] = {0}, sums[SIDE] = {0};
  CHECK(ba_mpmc_consumer_open(c->ring, &p) == BA_RING_OK, "open");
  ba_span span;
  while (ba_mpmc_wait_poll(&p, 1, c->batch, BA_WAIT_FOREVER, &span) == BA_RING_OK) {
    for (uint32_t i = 0; i < span.n; i++) {
      const item it = i < span.first_n ? ((const item *)span.first)[i] : ((const item *)span.second)[i - span.first_n];
      CHECK(it.source < SIDE && it.check == (mix(it.sequence) ^ it.source), "content");
      CHECK(it.sequence >= next[it.source], "order of producer %llu", (unsigned long long)it.source);
      next[it.source] = it.sequence + 1;
      counts[it.source]++;
      sums[it.source] += mix(it.sequence);
    }
    ba_mpmc_release(&p);
  }
  for (int i = 0; i < SIDE; i++) {
    ba_fetch_add_relaxed(&c->counts[i], counts[i]);
    ba_fetch_add_relaxed(&c->sums[i], sums[i]);
  }
  return NULL;
}

static void hundred_threads(const char *name, uint32_t batch, uint64_t capacity, uint64_t items) {
  if (!wanted(name)) return;
  static crowd c;
  memset(&c, 0, sizeof(c));
  c.batch = batch;
  c.items = items / SIDE;
  CHECK(ba_mpmc_create(&(ba_ring_options){.capacity = capacity, .item_bytes = 32}, SIDE, SIDE, &c.ring) == BA_RING_OK,
        "create");
  pthread_t producers[SIDE], consumers[SIDE];
  const uint64_t begin = ba_monotonic_ns();
  for (int i = 0; i < SIDE; i++) {
    CHECK(pthread_create(&consumers[i], NULL, crowd_consume, &c) == 0, "thread");
    CHECK(pthread_create(&producers[i], NULL, crowd_produce, &c) == 0, "thread");
  }
  for (int i = 0; i < SIDE; i++) pthread_join(producers[i], NULL);
  ba_mpmc_close(c.ring);
  for (int i = 0; i < SIDE; i++) pthread_join(consumers[i], NULL);
  const uint64_t ns = ba_monotonic_ns() - begin;
  uint64_t sum = 0;
  for (uint64_t s = 0; s < c.items; s++) sum += mix(s);
  for (int i = 0; i < SIDE; i++) {
    CHECK(ba_load_relaxed(&c.counts[i]) == c.items && ba_load_relaxed(&c.sums[i]) == sum, "producer %d: exactly once",
          i);
  }
  report(name, batch, capacity, c.items * SIDE, ns);
  const ba_ring_statistics st = ba_mpmc_statistics(c.ring);
  fprintf(stderr, "  parks: consumers %llu, producers %llu\n", (unsigned long long)st.consumer_parks,
          (unsigned long long)st.producer_parks);
  ba_mpmc_destroy(c.ring);
}

int main(int argc, char **argv) {
  if (argc > 1) seconds = atof(argv[1]);
  if (argc > 2) only = argv[2];
  if (seconds <= 0 || seconds > 60) return fprintf(stderr, "seconds: above 0, at most 60\n"), 2;
  cpu_set_t all;
  sched_getaffinity(0, sizeof(all), &all);
  /* Before anything is pinned: the crowd goes where the system puts it. */
  hundred_threads("100_threads_single", 1, 65536, (uint64_t)(seconds * 2e7) + 1000);
  hundred_threads("100_threads_batch", 256, 65536, (uint64_t)(seconds * 1e8) + 1000);
  pin(0);
  hand_over("spsc_batch", run_spsc, 1024, 8192);
  hand_over("spsc_single", run_spsc, 1, 8192);
  hand_over("mpmc_batch", run_mpmc, 1024, 8192);
  hand_over("mpmc_single", run_mpmc, 1, 8192);
  hand_over("two_processes_batch", run_shm, 1024, 8192);
  bare_latency();
  latency("latency_one_way", false);
  latency("latency_round_trip", true);
  return 0;
}
