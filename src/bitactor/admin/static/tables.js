// Tables: an actor's live states, producers, rows of a query.

import { cell, el, integer, numbers } from "./format.js";
import { get, post } from "./source.js";

const NUMERIC = /^(f8|f4|[iu][1248]|TINYINT|SMALLINT|INTEGER|U?BIGINT|U?HUGEINT|DOUBLE|FLOAT|DECIMAL.*)$/;

/** A table of rows. columns: [{name, type}]; sort: {name, down} and onSort(name) make headers buttons. */
export function grid(columns, rows, { sort = null, onSort = null } = {}) {
  const side = columns.map((column) => (NUMERIC.test(column.type) && column.name !== "key" ? "" : "text"));
  const head = columns.map((column, at) => {
    const state = sort && sort.name === column.name ? (sort.down ? "descending" : "ascending") : null;
    const sortable = onSort && !column.type.endsWith("]") && column.type !== "text";
    const label = sortable ? el("button", { type: "button", onclick: () => onSort(column.name) }, column.name) : column.name;
    return el("th", { scope: "col", class: side[at], "aria-sort": state, title: column.type }, label);
  });
  const shown = columns.map((_, at) => (side[at] ? cell : numbers(rows.map((row) => row[at]))));
  const body = rows.map((row) => el("tr", {}, row.map((value, at) => el("td", { class: side[at] }, shown[at](value)))));
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
}

/** The live table of one actor; `refresh` is called once a second and asks no faster than answers come. */
export class LiveTable {
  constructor(onRefusal) {
    this.actor = document.getElementById("table-actor");
    this.filter = document.getElementById("table-filter");
    this.limit = document.getElementById("table-limit");
    this.holder = document.getElementById("table");
    this.said = document.getElementById("table-said");
    this.onRefusal = onRefusal;
    this.sort = null;
    this.asking = false;
    this.actor.addEventListener("change", () => { this.sort = null; this.refresh(); });
    for (const one of [this.filter, this.limit]) one.addEventListener("change", () => this.refresh());
  }

  actors(names) {
    if (names.join() === [...this.actor.options].map((option) => option.value).join()) return;
    this.actor.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  }

  sortBy(name) {
    this.sort = this.sort?.name === name ? { name, down: !this.sort.down } : { name, down: true };
    this.refresh();
  }

  async refresh() {
    if (this.asking || !this.actor.value) return;
    this.asking = true;
    const parameters = { limit: this.limit.value, integers: "text" };
    if (this.sort) parameters.sort = `${this.sort.down ? "-" : ""}${this.sort.name}`;
    if (this.filter.value.trim()) parameters.filter = this.filter.value.trim();
    const asked = this.actor.value;
    try {
      const answer = await get(`/actors/${encodeURIComponent(asked)}/table`, parameters);
      if (asked === this.actor.value) this.show(answer);
    } catch (refusal) {
      this.said.textContent = refusal.message;
      if (refusal.status !== 400) this.onRefusal(refusal);
    } finally {
      this.asking = false;
    }
  }

  show(answer) {
    const which = this.filter.value.trim() ? `${integer(answer.matched)} of ${integer(answer.keys)} keys` : `${integer(answer.keys)} keys`;
    this.said.textContent = `${which}, at position ${integer(answer.position)}`;
    if (!answer.rows.length) {
      this.holder.replaceChildren(el("p", { class: "empty" }, answer.keys ? "No key matches." : "No key yet: this actor has seen no signal."));
      return;
    }
    const focused = this.holder.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.holder.replaceChildren(grid(answer.columns, answer.rows, { sort: this.sort, onSort: (name) => this.sortBy(name) }));
    if (focused) [...this.holder.querySelectorAll("th button")].find((one) => one.textContent === focused)?.focus();
  }
}

/** Replicas and lanes of a service over NATS, as /cluster tells of them. */
export function cluster({ replicas, lanes }) {
  const orphans = lanes.filter((lane) => lane.owner === null).length;
  const said = `${integer(replicas.length)} replicas, ${integer(lanes.length)} lanes${orphans ? `, ${integer(orphans)} without an owner` : ""}`;
  document.getElementById("lanes-said").textContent = said;
  document.getElementById("lanes-card").hidden = false;
  const number = (value) => (value === null || value === undefined ? "–" : integer(value));
  const columns = (names) => names.map(([name, type]) => ({ name, type }));
  document.getElementById("replicas").replaceChildren(grid(
    columns([["replica", "text"], ["lanes", "u8"], ["taken", "u8"], ["app", "text"], ["state", "text"]]),
    replicas.map((one) => [one.replica, number(one.lanes.length), number(one.moves), one.fingerprint.slice(0, 8),
      one.draining ? "draining" : Object.keys(one.barred).length ? "cannot take all" : one.answering ? "this one" : "ready"]),
  ));
  document.getElementById("lanes").replaceChildren(grid(
    columns([["lane", "u8"], ["owner", "text"], ["generation", "u8"], ["position", "u8"], ["lag", "u8"], ["snapshot at", "u8"]]),
    lanes.map((one) => [number(one.lane), one.owner ?? "nobody", number(one.generation), number(one.position), number(one.lag), number(one.snapshot)]),
  ));
}

export function producers(rows) {
  document.getElementById("producers-said").textContent = rows.length ? `${integer(rows.length)} known` : "";
  const holder = document.getElementById("producers");
  if (!rows.length) {
    holder.replaceChildren(el("p", { class: "empty" }, "No producer has connected yet."));
    return;
  }
  const columns = [["name", "text"], ["connected", "text"], ["next", "u8"], ["epoch", "u4"], ["identity", "text"]];
  const shown = rows.slice(0, 200).map((one) => [one.name, one.connected ? "yes" : "no", integer(one.next), one.epoch, one.identity]);
  holder.replaceChildren(grid(columns.map(([name, type]) => ({ name, type })), shown));
}

/** The SQL form. */
export function sqlForm(onRefusal) {
  const form = document.getElementById("sql-form");
  const text = document.getElementById("sql");
  const said = document.getElementById("sql-said");
  const holder = document.getElementById("sql-rows");
  const run = async () => {
    said.className = "unit";
    said.textContent = "running";
    const begun = performance.now();
    try {
      const answer = await post("/query", { sql: text.value, limit: 500 }, { integers: "text" });
      const more = answer.truncated ? ", and more" : "";
      said.textContent = `${integer(answer.rows.length)} rows${more} in ${Math.round(performance.now() - begun)} ms`;
      holder.replaceChildren(grid(answer.columns, answer.rows));
    } catch (refusal) {
      said.className = "unit bad";
      said.textContent = refusal.message;
      holder.replaceChildren();
      if (refusal.status === 401) onRefusal(refusal);
    }
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  });
  return (suggestion) => { if (!text.value) text.value = suggestion; };
}
