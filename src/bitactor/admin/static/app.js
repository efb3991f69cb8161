// The dashboard: asks for the statistics once a second and shows them. Nothing is asked while the page is hidden.

import { lines, shares } from "./charts.js";
import { bytes, duration, el, integer, short } from "./format.js";
import { get, hasToken, History, setToken } from "./source.js";
import { cluster, grid, LiveTable, producers, sqlForm } from "./tables.js";

const EVERY_MS = 1000;
const CHART_S = 120;
const WINDOW_S = 60;
const DURABILITY = { 0: "memory", 1: "os", 2: "normal", 3: "disk", 16: "one server", 17: "one server's disk", 18: "a majority", 19: "a majority's disks" };

const byId = (id) => document.getElementById(id);
const history = new History(CHART_S + 5);
const table = new LiveTable(refused);
const suggest = sqlForm(refused);
let paused = false;
let stopped = false; // a token is asked for
let turn = 0;

function tile(name, value, of, more, { exact, alarm = false } = {}) {
  const shown = el("p", { class: "value", "data-figure": name.toLowerCase().replaceAll(" ", "-"), "data-exact": exact }, value);
  if (of) shown.append(el("span", { class: "of" }, of));
  return el("div", { class: `tile${alarm ? " alarm" : ""}` }, el("p", { class: "name" }, name), shown, el("p", { class: "more", title: more }, more));
}

function showTiles(now, accepted, processed, outward) {
  const { engine, log } = now.statistics;
  const keys = engine.actors.reduce((sum, actor) => sum + actor.keys, 0);
  const dropped = Object.values(engine.dropped).reduce((sum, count) => sum + count, 0);
  const last = (points) => points.at(-1)?.[1] ?? 0;
  const lag = Math.max(0, log.position - log.durable_position);
  byId("tiles").replaceChildren(
    tile("Accepted", short(last(accepted)), "/s", `${integer(engine.accepted)} in all`, { exact: engine.accepted }),
    tile("Processed", short(last(processed)), "/s", `${integer(engine.processed)} in all`, { exact: engine.processed }),
    tile("Outputs", short(last(outward)), "/s", `${integer(engine.emits_outward)} in all`, { exact: engine.emits_outward }),
    tile("Keys", short(keys), "", `${integer(keys)} in ${engine.actors.length} actor${engine.actors.length === 1 ? "" : "s"}`, { exact: keys }),
    tile("Log lag", short(lag), "signals", lag ? "not yet durable" : "all is durable", { exact: lag }),
    tile("Dropped", short(dropped), "signals", `${integer(engine.queued)} queued`, { exact: dropped, alarm: dropped > 0 }),
  );
}

function showHealth(now) {
  const { health, statistics } = now;
  const word = !health.live ? "not live" : health.ready ? "ready" : health.started ? "not ready" : "starting";
  byId("health").className = `health ${!health.live ? "bad" : health.ready ? "good" : "warn"}`;
  byId("health-word").textContent = health.reasons.length ? `${word}: ${health.reasons.join("; ")}` : word;
  const facts = [
    `position ${integer(now.position)}`,
    `${integer(statistics.ingest.connections)} connections`,
    `up ${duration(statistics.started_at === null ? null : now.time - statistics.started_at)}`,
    statistics.event_time_lag_s === null ? null : `event time ${duration(statistics.event_time_lag_s)} behind`,
    statistics.certificate_expires === null ? null : `certificate ends in ${duration(statistics.certificate_expires - now.time)}`,
  ];
  byId("facts").replaceChildren(...facts.filter(Boolean).map((fact) => el("span", {}, fact)));
}

function showDrops({ engine, ingest }) {
  const rows = [
    ...Object.entries(engine.dropped).map(([reason, count]) => ["dropped", reason, count]),
    ...Object.entries(engine.emits_dropped).filter((row) => row[1]).map(([reason, count]) => ["emit dropped", reason, count]),
    ...Object.entries(ingest.refused).map(([reason, count]) => ["refused", reason, count]),
  ].sort((a, b) => b[2] - a[2]);
  const body = rows.map(([what, reason, count]) => el("tr", {}, el("td", { class: "text" }, what), el("td", { class: "text" }, reason),
    el("td", { class: count ? "count" : "zero", "data-reason": reason }, integer(count))));
  const head = ["what", "reason", "count"].map((name, at) => el("th", { scope: "col", class: at < 2 ? "text" : "" }, name));
  byId("drops").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

function showLog({ log, snapshot, ingest, compile_seconds, recovery_s, replayed }) {
  const room = log.size_bytes_max ? ` of ${bytes(log.size_bytes_max)}` : "";
  const pairs = [
    ["kind", `${log.kind}, acknowledged at ${DURABILITY[log.durability] ?? log.durability}`],
    ["records", integer(log.records)],
    ["size", `${bytes(log.size_bytes)}${room}${log.full ? ", full" : ""}`],
    ["durable position", integer(log.durable_position)],
    ["duplicates", integer(ingest.duplicates)],
    ["snapshot", snapshot.position === null ? "none yet" : `at ${integer(snapshot.position)}, ${duration(snapshot.age_s)} ago`],
    ["its size, time", snapshot.position === null ? "–" : `${bytes(snapshot.bytes)}, ${duration(snapshot.seconds)}`],
    ["snapshots failed", integer(snapshot.failures)],
    ["compiled, recovered in", `${duration(compile_seconds)}, ${duration(recovery_s)}`],
    ["replayed", `${integer(replayed)} signals`],
  ];
  byId("log").replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { title: value }, value)]));
}

function showActors({ engine }) {
  const columns = [["actor", "text"], ["keys", "u8"], ["signals", "u8"], ["errors", "u8"], ["over budget", "u8"], ["mean ticks", "f8"]];
  const rows = engine.actors.map((actor) => [actor.name, integer(actor.keys), integer(actor.signals), integer(actor.raised),
    integer(actor.exceeded), short(actor.ticks.mean)]);
  byId("actors").replaceChildren(grid(columns.map(([name, type]) => ({ name, type })), rows));
}

function showDistributions(now) {
  const of = (read) => history.grown((sample) => read(sample.statistics), WINDOW_S);
  for (const [id, read, what] of [
    ["latency", (s) => s.ingest_to_done, "Time from admission to acknowledgement"],
    ["append", (s) => s.log.append_seconds, "Time of log appends"],
    ["sync", (s) => s.log.sync_seconds, "Time of log syncs"],
  ]) shares(byId(id), of(read), { label: duration, unit: "", described: `${what}: share of samples by duration` });
  const chosen = byId("table-actor").value;
  const at = Math.max(0, now.statistics.engine.actors.findIndex((actor) => actor.name === chosen));
  const ticks = now.statistics.engine.actors[at]?.ticks;
  if (!ticks) return;
  byId("ticks-said").textContent = `${now.statistics.engine.actors[at].name}: share of timed signals, last minute; 1,000 ticks are ${duration(1000 / ticks.hz)}`;
  shares(byId("ticks"), of((s) => s.engine.actors[at]?.ticks), { label: short, unit: "ticks", described: "Ticks a signal: share of timed signals" });
}

function show(now) {
  history.add(now);
  const { statistics } = now;
  const rate = (read) => history.rates((sample) => read(sample.statistics.engine));
  const accepted = rate((engine) => engine.accepted);
  const processed = rate((engine) => engine.processed);
  const outward = rate((engine) => engine.emits_outward);
  showHealth(now);
  showTiles(now, accepted, processed, outward);
  lines(byId("throughput"), [
    { name: "accepted", points: accepted }, { name: "processed", points: processed }, { name: "outputs", points: outward },
  ], { seconds: CHART_S, described: "Signals a second over the last two minutes" });
  byId("ring-capacity").textContent = integer(statistics.engine.ring_signals);
  const fill = ({ statistics: { engine } }) => (engine.ring_signals ? (100 * engine.ring_used) / engine.ring_signals : 0);
  lines(byId("ring"), [{ name: "fill", points: history.values(fill) }],
    { seconds: CHART_S, most: 100, label: (value) => `${value}%`, height: 230, described: "Share of the ring in use, percent" });
  table.actors(statistics.engine.actors.map((actor) => actor.name));
  showDistributions(now);
  showDrops(statistics);
  showLog(statistics);
  showActors(statistics);
  suggest(`select * from ${statistics.engine.actors[0]?.name ?? "actor"} limit 10`);
}

function refused(refusal) {
  const asks = refusal.status === 401;
  stopped = stopped || asks;
  byId("main").classList.add("stale");
  byId("health").className = "health bad";
  byId("health-word").textContent = asks ? "token needed" : refusal.status === 503 ? "not ready" : "unreachable";
  byId("notice").hidden = asks;
  byId("notice").textContent = refusal.status === 0 ? "The service cannot be reached. Figures are those of its last answer; trying again every second." : refusal.message;
  if (asks && byId("token-form").hidden) {
    byId("token-form").hidden = false;
    byId("token-wrong").textContent = hasToken() ? "The token given before is not known." : "";
    byId("token").focus();
  }
}

async function tick() {
  if (!paused && !stopped && !document.hidden) {
    try {
      const now = await get("/statistics");
      byId("notice").hidden = true;
      byId("token-form").hidden = true;
      byId("main").classList.remove("stale");
      show(now);
      await table.refresh();
      if (now.statistics.cluster) cluster(await get("/cluster"));
      if (turn % 5 === 0) producers((await get("/producers", { integers: "text" })).producers);
      turn += 1;
    } catch (refusal) {
      if (refusal.status === undefined) throw refusal;
      refused(refusal);
    }
  }
}

async function forever() {
  for (;;) {
    const begun = performance.now();
    await tick();
    await new Promise((done) => { setTimeout(done, Math.max(100, EVERY_MS - (performance.now() - begun))); });
  }
}

function theme(next) {
  const themes = ["auto", "light", "dark"];
  const now = localStorage.getItem("bitactor-theme") ?? "auto";
  const chosen = next ? themes[(themes.indexOf(now) + 1) % 3] : now;
  localStorage.setItem("bitactor-theme", chosen);
  document.documentElement.dataset.theme = chosen;
  byId("theme").textContent = `Theme: ${chosen}`;
}

byId("theme").addEventListener("click", () => theme(true));
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token").value = "";
  byId("token-form").hidden = true;
  stopped = false;
});
theme(false);
forever();
