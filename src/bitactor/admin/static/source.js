// Where the figures come from: the API of this very host, with a token where it asks for one.

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status; // 0: the service cannot be reached
  }
}

const TOKEN = "bitactor-token";

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token); // for this tab alone
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

/** JSON from the API; 64-bit integers of states as texts, because numbers here are doubles. */
export async function get(path, parameters = {}) {
  return ask(path, parameters, {});
}

export async function post(path, body, parameters = {}) {
  const headers = { "content-type": "application/json" };
  return ask(path, parameters, { method: "POST", headers, body: JSON.stringify(body) });
}

async function ask(path, parameters, options) {
  const query = new URLSearchParams(parameters);
  const headers = { accept: "application/json", ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(`/api/v1${path}${query.size ? `?${query}` : ""}`, {
      ...options, headers, cache: "no-store", signal: AbortSignal.timeout(30000),
    });
  } catch {
    throw new Refusal(0, "the service cannot be reached");
  }
  const body = await answer.json().catch(() => ({ message: `status ${answer.status}` }));
  if (!answer.ok) throw new Refusal(answer.status, body.message);
  return body;
}

/** Samples of the last minutes: what rates and distributions over time are made of. */
export class History {
  constructor(secondsMax) {
    this.secondsMax = secondsMax;
    this.samples = [];
  }

  add(sample) {
    const last = this.samples.at(-1);
    if (last && (sample.time < last.time || sample.statistics.started_at !== last.statistics.started_at)) {
      this.samples = []; // another process: its counters begin anew
    }
    this.samples.push(sample);
    while (this.samples.length > 2 && sample.time - this.samples[0].time > this.secondsMax) this.samples.shift();
  }

  get newest() {
    return this.samples.at(-1);
  }

  /** The newest sample that is at least so many seconds older than the newest of all, or the oldest. */
  before(seconds) {
    const limit = this.newest.time - seconds;
    for (let at = this.samples.length - 1; at >= 0; at -= 1) {
      if (this.samples[at].time <= limit) return this.samples[at];
    }
    return this.samples[0];
  }

  /** A counter's rates: [[seconds ago, per second]], oldest first. */
  rates(read) {
    const points = [];
    for (let at = 1; at < this.samples.length; at += 1) {
      const [a, b] = [this.samples[at - 1], this.samples[at]];
      const seconds = b.time - a.time;
      if (seconds > 0) points.push([b.time - this.newest.time, Math.max(0, read(b) - read(a)) / seconds]);
    }
    return points;
  }

  values(read) {
    return this.samples.map((sample) => [sample.time - this.newest.time, read(sample)]);
  }

  /** How a histogram grew over the last seconds: counts by bucket. */
  grown(read, seconds) {
    const now = read(this.newest);
    const then = read(this.before(seconds));
    if (now === undefined) return null;
    const before = then === undefined ? now.counts.map(() => 0) : then.counts;
    return { bounds: now.bounds, counts: now.counts.map((count, at) => Math.max(0, count - before[at])) };
  }
}
