// Numbers, durations and elements, as the dashboard shows them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 1234567 -> "1,234,567" */
export function integer(value) {
  return whole.format(value);
}

/** 1234567 -> "1.23 M": three digits and a unit of thousands. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const units = ["", "k", "M", "G", "T", "P"];
  let at = 0;
  let left = Math.abs(value);
  while (left >= 999.5 && at < units.length - 1) {
    left /= 1000;
    at += 1;
  }
  const digits = left >= 100 || (at === 0 && Number.isInteger(left)) ? 0 : left >= 10 ? 1 : 2;
  return `${value < 0 ? "−" : ""}${left.toFixed(digits)}${at ? ` ${units[at]}` : ""}`;
}

/** Bytes with binary units: 1536 -> "1.50 KiB". */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let left = value;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${at === 0 || left >= 100 ? left.toFixed(0) : left >= 10 ? left.toFixed(1) : left.toFixed(2)} ${units[at]}`;
}

/** Seconds: 0.00025 -> "250 µs", 75 -> "1 min 15 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds === 0) return "0 s";
  const trim = (value) => String(Number(value.toPrecision(3)));
  if (seconds < 1e-6) return `${trim(seconds * 1e9)} ns`;
  if (seconds < 1e-3) return `${trim(seconds * 1e6)} µs`;
  if (seconds < 1) return `${trim(seconds * 1e3)} ms`;
  if (seconds < 60) return `${trim(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** A value of a table's cell. Integers come as texts and keep every digit. */
export function cell(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return `[${value.map(cell).join(", ")}]`;
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(9)));
  return String(value);
}

/** How a column of numbers is shown: digits in groups, and as many decimals in each row as the finest of them has. */
export function numbers(values) {
  const floats = values.filter((value) => typeof value === "number" && Number.isFinite(value));
  const wide = floats.some((value) => value !== 0 && (Math.abs(value) >= 1e15 || Math.abs(value) < 1e-4));
  const decimals = Math.max(0, ...floats.map((value) => String(Number(value.toPrecision(9))).split(".")[1]?.length ?? 0));
  const float = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (value) => {
    if (typeof value === "number" && Number.isFinite(value)) return wide ? cell(value) : float.format(value);
    return typeof value === "string" && /^-?\d+$/.test(value) ? whole.format(BigInt(value)) : cell(value);
  };
}

/** An element with attributes (class, title, data-…, on… functions) and children (elements or texts). */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  return filled(made, attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return filled(made, attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}
