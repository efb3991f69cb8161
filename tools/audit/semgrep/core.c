/* What the rules of core.yaml must find (ruleid) and must let pass (ok); read by semgrep, never compiled. */

void copies(char *to, const char *from, size_t n) {
  // ruleid: unbounded-copy
  strcpy(to, from);
  // ruleid: unbounded-copy
  sprintf(to, "%s", from);
  // ok: unbounded-copy
  memcpy(to, from, n);
  // ok: unbounded-copy
  snprintf(to, n, "%s", from);
}

void room(size_t n) {
  // ruleid: stack-by-input
  char *a = alloca(n);
  // ok: stack-by-input
  char b[16];
}

void numbers(const char *text, char **end) {
  // ruleid: number-without-error
  int a = atoi(text);
  // ok: number-without-error
  unsigned long long b = strtoull(text, end, 10);
}

void programs(const char *text) {
  // ruleid: shell-from-core
  system(text);
  // ok: shell-from-core
  puts(text);
}

void chance(void *to) {
  // ruleid: guessable
  int a = rand();
  // ok: guessable
  getrandom(to, 16, 0);
}

void threads(char *text, char **rest) {
  // ruleid: not-thread-safe
  strtok(text, " ");
  // ok: not-thread-safe
  strtok_r(text, " ", rest);
}
