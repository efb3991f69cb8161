/* Output queues and their merging reader: see outputs.h for who enters and what always holds. */
#include <bitactor/alloc.h>
#include <bitactor/outputs.h>
#include <string.h>
#include <unistd.h>

static bool before(ba_output_key a, ba_output_key b) {
  if (a.position != b.position) return (int64_t)(a.position - b.position) < 0; /* positions wrap */
  return a.index < b.index;
}

ba_subscription *ba_outputs_create(uint32_t queues, uint32_t capacity, bool inline_mode, bool drop, int event_fd,
                                   uint64_t position) {
  ba_subscription *s = ba_alloc_aligned(sizeof *s, BA_CACHE_LINE);
  if (!s) return NULL;
  s->queues = queues;
  s->capacity = capacity;
  s->inline_mode = inline_mode;
  s->drop = drop;
  s->event_fd = event_fd;
  ba_wait_point_init(&s->news, false, false);
  ba_wait_point_init(&s->room, false, false);
  pthread_mutex_init(&s->growth, NULL);
  s->queue = ba_alloc_aligned(queues * sizeof *s->queue, BA_CACHE_LINE);
  bool whole = s->queue != NULL;
  for (uint32_t q = 0; whole && q < queues; q++) {
    s->queue[q].mask = capacity - 1;
    ba_store_relaxed(&s->queue[q].frontier_position, position); /* relaxed: not shared yet */
    s->queue[q].items = ba_alloc_aligned(capacity * sizeof(ba_output), BA_CACHE_LINE);
    whole = s->queue[q].items != NULL;
  }
  if (whole) return s;
  s->event_fd = -1; /* still the caller's */
  ba_outputs_destroy(s);
  return NULL;
}

void ba_outputs_destroy(ba_subscription *s) {
  for (uint32_t q = 0; s->queue && q < s->queues; q++) ba_free(s->queue[q].items);
  ba_free(s->queue);
  if (s->event_fd >= 0) close(s->event_fd);
  pthread_mutex_destroy(&s->growth);
  ba_free(s);
}

void ba_outputs_advance(ba_subscription *s, uint32_t shard, ba_output_key frontier) {
  ba_output_queue *q = &s->queue[shard];
  uint64_t sequence = ba_load_relaxed(&q->frontier_sequence); /* relaxed: only this shard writes it */
  /* The release stores below may not pass the odd sequence before them; the reader's acquire loads pair with them,
   * and a reader that saw a new half sees the odd (or a later) sequence and reads again. */
  ba_store_relaxed(&q->frontier_sequence, sequence + 1);
  ba_store_release(&q->frontier_position, frontier.position);
  ba_store_release(&q->frontier_index, frontier.index);
  /* seq_cst: as a release, the above; and it loses no wake-up of the reader (wait.h). */
  ba_store_seq_cst(&q->frontier_sequence, sequence + 2);
}

static ba_output_key frontier_of(ba_output_queue *q) {
  for (;;) {
    ba_output_key key;
    /* acquire, three times: pairs with the releases in ba_outputs_advance; a value newer than `first` makes the last
     * load see a newer sequence. */
    uint64_t first = ba_load_seq_cst(&q->frontier_sequence); /* seq_cst: loses no wake-up (wait.h) */
    key.position = ba_load_acquire(&q->frontier_position);
    key.index = ba_load_acquire(&q->frontier_index);
    if (!(first & 1) && ba_load_relaxed(&q->frontier_sequence) == first) return key;
    ba_pause();
  }
}

void ba_outputs_notify(ba_subscription *s) {
  ba_wake(&s->news);
  if (s->event_fd < 0) return;
  /* See ba_subscription_arm for why this is a read-modify-write. */
  if (ba_fetch_add_acq_rel(&s->armed, 0) && ba_exchange_acq_rel(&s->armed, 0)) {
    uint64_t one = 1;
    ssize_t written = write(s->event_fd, &one, sizeof one);
    (void)written; /* an eventfd write fails only when its counter is full: then it is readable */
  }
}

static bool grow(ba_output_queue *q, uint64_t published, uint64_t released) {
  uint64_t capacity = (q->mask + 1) * 2;
  ba_output *items = ba_alloc_aligned(capacity * sizeof *items, BA_CACHE_LINE);
  if (!items) return false;
  for (uint64_t at = released; at != published; at++) items[at & (capacity - 1)] = q->items[at & q->mask];
  ba_free(q->items);
  q->items = items;
  q->mask = capacity - 1;
  return true;
}

static void push_inline(ba_subscription *s, const ba_output *output) {
  ba_output_queue *q = s->queue;
  pthread_mutex_lock(&s->growth);
  /* relaxed: the mutex orders both sides of an inline engine. */
  uint64_t published = ba_load_relaxed(&q->published), released = ba_load_relaxed(&q->released);
  bool room = published - released <= q->mask && !(s->drop && published - released >= s->capacity);
  if (!room && !s->drop) room = grow(q, published, released);
  if (room) {
    q->items[published & q->mask] = *output;
    ba_store_release(&q->published, published + 1); /* release: ba_subscription_arm looks without the mutex */
  } else {
    ba_outputs_lose(s);
  }
  pthread_mutex_unlock(&s->growth);
}

static bool queue_has_room(ba_output_queue *q, uint64_t published) {
  if (published - q->released_seen <= q->mask) return true;
  /* seq_cst: pairs with the store in take; the reader has copied the outputs whose slots are reused. */
  q->released_seen = ba_load_seq_cst(&q->released);
  return published - q->released_seen <= q->mask;
}

/* Waits for room; false when there will be none. */
static bool wait_for_room(ba_subscription *s, ba_output_queue *q, uint64_t published,
                          const BA_ATOMIC(uint32_t) *closing) {
  ba_waiter waiter = ba_waiter_begin_picky(&s->room, BA_WAIT_FOREVER);
  bool room;
  /* seq_cst: pair with the stores that are followed by ba_wake(&s->room), so that no wake-up is lost. */
  while (!(room = queue_has_room(q, published)) && !ba_load_seq_cst(closing) && !ba_load_seq_cst(&s->detached) &&
         ba_waiter_step(&waiter)) {
  }
  ba_waiter_end(&waiter);
  return room;
}

void ba_outputs_lose(ba_subscription *s) { ba_fetch_add_relaxed(&s->dropped, 1); /* relaxed: a count */ }

bool ba_outputs_try_push(ba_subscription *s, uint32_t shard, const ba_output *output) {
  if (ba_load_relaxed(&s->detached)) return true; /* relaxed: a flag that is only ever set; nobody reads */
  if (s->inline_mode) {
    push_inline(s, output);
    return true;
  }
  ba_output_queue *q = &s->queue[shard];
  uint64_t published = ba_load_relaxed(&q->published); /* relaxed: only this shard writes it */
  if (!queue_has_room(q, published)) {
    if (!s->drop) return false;
    ba_outputs_lose(s);
    return true;
  }
  q->items[published & q->mask] = *output;
  /* release: pairs with the acquire in take; the item is visible before its count. */
  ba_store_release(&q->published, published + 1);
  return true;
}

void ba_outputs_push(ba_subscription *s, uint32_t shard, const ba_output *output, const BA_ATOMIC(uint32_t) *closing) {
  ba_output_queue *q = &s->queue[shard];
  /* relaxed: only this shard writes it */
  if (!s->inline_mode && !wait_for_room(s, q, ba_load_relaxed(&q->published), closing)) {
    ba_outputs_lose(s);
    return;
  }
  (void)ba_outputs_try_push(s, shard, output);
}

bool ba_outputs_full(ba_subscription *s) {
  if (s->drop || ba_load_relaxed(&s->detached)) return false; /* relaxed: a flag that is only ever set */
  pthread_mutex_lock(&s->growth);
  bool full = ba_load_relaxed(&s->queue->published) - ba_load_relaxed(&s->queue->released) >= s->capacity;
  pthread_mutex_unlock(&s->growth);
  return full;
}

typedef struct front {
  uint64_t at;  /* next to take */
  uint64_t end; /* published */
} front;

static ba_output_key key_at(const ba_output_queue *q, uint64_t at) {
  const ba_output *o = &q->items[at & q->mask];
  return (ba_output_key){o->position, o->index};
}

/* Takes up to max deliverable outputs, merged; with peek takes none and says whether there is one. */
static uint32_t take(ba_subscription *s, ba_output *out, uint32_t max, bool peek) {
  front fronts[BA_SHARDS_MAX];
  /* seq_cst: pairs with the store in ba_engine_close. After the end no output comes, and shards may have ended at
   * different positions: all that is there can be delivered, up to the frontier furthest ahead. */
  bool ended = ba_load_seq_cst(&s->ended);
  ba_output_key limit = frontier_of(&s->queue[0]);
  for (uint32_t i = 1; i < s->queues; i++) {
    ba_output_key frontier = frontier_of(&s->queue[i]);
    if (before(frontier, limit) != ended) limit = frontier;
  }
  for (uint32_t i = 0; i < s->queues; i++) {
    /* The frontiers were read first: what lies before the limit had been published by then. relaxed: only the reader
     * writes released; acquire: pairs with the release in ba_outputs_push. */
    fronts[i].at = ba_load_relaxed(&s->queue[i].released);
    fronts[i].end = ba_load_acquire(&s->queue[i].published);
  }
  uint32_t n = 0;
  while (n < max || peek) {
    uint32_t best = s->queues;
    ba_output_key best_key = limit, second = limit; /* what the best queue may be read up to */
    for (uint32_t i = 0; i < s->queues; i++) {
      if (fronts[i].at == fronts[i].end) continue;
      ba_output_key key = key_at(&s->queue[i], fronts[i].at);
      if (before(key, best_key)) {
        second = best_key;
        best_key = key;
        best = i;
      } else if (before(key, second)) {
        second = key;
      }
    }
    if (peek) return best != s->queues;
    if (best == s->queues) break;
    const ba_output_queue *q = &s->queue[best];
    front *f = &fronts[best];
    do out[n++] = q->items[f->at++ & q->mask];
    while (n < max && f->at != f->end && before(key_at(q, f->at), second));
  }
  for (uint32_t i = 0; i < s->queues; i++) {
    /* seq_cst: pairs with the load in queue_has_room; as a release, the copies above are done before the slots are
     * reused; as seq_cst, it loses no wake-up (wait.h). */
    ba_store_seq_cst(&s->queue[i].released, fronts[i].at);
  }
  if (n) ba_wake(&s->room);
  return n;
}

static uint32_t take_any(ba_subscription *s, ba_output *out, uint32_t max) {
  if (!s->inline_mode) return take(s, out, max, false);
  pthread_mutex_lock(&s->growth);
  uint32_t n = take(s, out, max, false);
  pthread_mutex_unlock(&s->growth);
  return n;
}

int ba_subscription_read(ba_subscription *s, ba_output *out, uint32_t max, uint64_t timeout_ns, uint32_t *n) {
  ba_waiter waiter = ba_waiter_begin_picky(&s->news, timeout_ns);
  bool ended;
  do {
    /* seq_cst, before the take: what was pushed before the end is visible to it; and no wake-up is lost. */
    ended = ba_load_seq_cst(&s->ended);
    *n = take_any(s, out, max);
  } while (!*n && !ended && ba_waiter_step(&waiter));
  ba_waiter_end(&waiter);
  return *n ? BA_OK : ended ? BA_CLOSED : BA_TIMEOUT;
}

static bool deliverable(ba_subscription *s) {
  if (s->inline_mode) pthread_mutex_lock(&s->growth);
  bool any = take(s, NULL, 0, true) != 0;
  if (s->inline_mode) pthread_mutex_unlock(&s->growth);
  return any;
}

bool ba_subscription_arm(ba_subscription *s) {
  /* acq_rel read-modify-writes of `armed` on both sides: if ba_outputs_notify's came first, this one synchronises
   * with it and the look below sees what was pushed before it; if it comes later, it sees the 1 and writes the fd. */
  (void)ba_exchange_acq_rel(&s->armed, 1);
  /* acquire: pairs with the release that sets it. */
  if (!ba_load_acquire(&s->ended) && !deliverable(s)) return false;
  (void)ba_exchange_acq_rel(&s->armed, 0);
  return true;
}

uint64_t ba_subscription_dropped(ba_subscription *s) { return ba_load_relaxed(&s->dropped); /* relaxed: a count */ }
