// Draws the host's JSON, once a second while somebody looks. Everything that comes from outside is set
// as text, never as HTML.
"use strict";

const EVERY_MS = 1000;
const SHOWN_EVENTS = 40;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const span = (kind, text) => element("span", { class: kind }, text);
const code = (text) => element("code", {}, text);
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function time(ms) {
  return ms === null || ms === undefined ? "" : new Date(ms).toLocaleTimeString();
}

function duration(ms) {
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 10000) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function table(heads, rows, empty) {
  if (rows.length === 0) return element("p", { class: "weak" }, empty);
  const head = element("tr", {}, ...heads.map((text) => element("th", {}, text)));
  const body = rows.map((cells) =>
    element("tr", {}, ...cells.map((cell) => element("td", {}, ...[cell].flat().filter((c) => c !== null)))));
  const whole = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "scroll" }, whole);
}

function steps(list) {
  const shown = list.filter((step) => step.ms >= 0.005);
  return element("div", { class: "steps" }, ...shown.map((step) => span("", `${step.step} ${duration(step.ms)}`)));
}

// What a reader opened stays open over the next drawing.
function folded(key, title, ...content) {
  const made = element("details", { "data-key": key }, element("summary", {}, title), ...content);
  made.open = opened.has(key);
  made.addEventListener("toggle", () => (made.open ? opened.add(key) : opened.delete(key)));
  return made;
}
const opened = new Set();

function going(activity) {
  const behind = activity.behind === null ? "" : ` behind ${activity.behind}`;
  const doing = activity.doing === null ? "" : ` (${activity.doing})`;
  return `newer code is on its way: ${activity.step} for ${duration(activity.lasts_ms)}${behind}${doing}`;
}

function plugin(of, publicAddress) {
  const states = { serving: "good", refused: "bad", building: "busy" };
  const trouble = of.refused ?? null;
  const details = of.last_outcome?.details ?? null;
  const link = element("a", { href: `//${publicAddress}${of.mount}` }, code(of.mount));
  const routes = of.routes.map((route) => `${route.method} ${route.path}`).join("\n");
  return [
    [element("strong", {}, of.name), of.version === null ? null : span("weak", ` ${of.version}`)],
    [
      span(trouble === null ? states[of.state] ?? "" : "bad", of.state),
      of.generation === null ? null : ` generation ${of.generation}`,
      of.activity === null
        ? null
        : element("div", { class: "busy" }, going(of.activity)),
      trouble === null ? null : element("div", { class: "bad" }, `newest code refused: ${trouble}`),
      trouble === null || details === null
        ? null
        : folded(`details ${of.name}`, "what the compiler or loader said", element("pre", {}, details)),
      ...of.parked.map((parked) =>
        element("div", { class: "weak" },
          `generation ${parked.generation} is still mapped: ${parked.held_by.join(", ") || "draining"}`)),
    ],
    [link, of.routes.length === 0
      ? null
      : folded(`routes ${of.name}`, count(of.routes.length, "route"), element("pre", {}, routes))],
    [`${of.requests}`, of.in_flight > 0 ? span("weak", ` (${of.in_flight} running)`) : null],
    [span(of.panics > 0 ? "bad" : "", `${of.panics}`)],
    of.last_outcome === null
      ? ""
      : [`${of.last_outcome.event.replaceAll("_", " ")} in ${duration(of.last_outcome.ms)}, `,
        span("weak", time(of.last_outcome.at_ms)), steps(of.last_outcome.steps)],
  ];
}

function slot(of) {
  const by = of.created_by === null || of.created_by === undefined
    ? ""
    : `${of.created_by.plugin} generation ${of.created_by.generation}`;
  const survived = of.reloads_survived === 0 ? "" : `, survived ${count(of.reloads_survived, "reload")}`;
  return [
    code(of.module === "" ? of.key : `${of.module}/${of.key}`),
    [of.kind ?? "", of.type === null ? null : [" ", code(of.type)]].flat(),
    [
      span(of.state === "ready" ? "good" : "busy", of.state),
      of.created_at_ms === null ? null : span("weak", ` made once at ${time(of.created_at_ms)} by ${by}${survived}`),
      of.last_error ? element("div", { class: "bad" }, of.last_error) : null,
    ],
    of.used_by.join(", "),
    `${of.hits}`,
    of.value === null || of.value === undefined
      ? ""
      : folded(`value ${of.module}/${of.key}`, "shown", element("pre", {}, JSON.stringify(of.value, null, 2))),
  ];
}

function event(of) {
  const bad = of.event === "refused" || of.event === "rolled_back" || of.event === "crashed";
  return [
    span("weak", time(of.at_ms)),
    of.plugin,
    [span(bad ? "bad" : "", of.event.replaceAll("_", " ")),
      of.generation === null ? null : ` generation ${of.generation}`],
    [of.reason, of.details === null
      ? null
      : folded(`event ${of.id}`, "details", element("pre", {}, of.details))],
    of.steps.length === 0 ? "" : [duration(of.ms), steps(of.steps)],
  ];
}

function safe(of) {
  const numbers = JSON.stringify(of, null, 2);
  return [
    code(of.name),
    (of.entries === null ? "" : `${of.entries} ${of.entries === 1 ? "entry" : "entries"}, `)
      + `${Math.ceil(of.file_bytes / 1024)} KiB`,
    of.trouble === null ? "" : span("bad", of.trouble),
    folded(`safe ${of.name}`, "shown", element("pre", {}, numbers)),
  ];
}

// Draws a section again only when its data changed, so that what a reader selected stays selected.
const drawn = new Map();
function show(id, data, heads, row, empty) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  document.getElementById(id).replaceChildren(table(heads, data.map(row), empty));
}

async function ask(what) {
  const answer = await fetch(`api/${what}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${what}: ${answer.status}`);
  return answer.json();
}

function headline(host) {
  const numbers = host.numbers;
  const workers = numbers.workers;
  const readiness = host.is_ready ? span("good", "ready") : span("busy", "starting or stopping");
  document.title = `host ${host.listen}`;
  document.getElementById("host").replaceChildren(
    readiness,
    ` ${host.version}, process ${host.pid}, up ${duration(host.uptime_ms)}, serving on http://${host.listen}/: `
      + `${count(numbers.requests, "request")}, ${numbers.in_flight} running, ${numbers.status_5xx} failed, `
      + `${count(numbers.connections, "connection")}; ${workers.busy} of ${workers.max_threads} workers busy`);
}

async function draw() {
  const [host, plugins, registry, safes, events] =
    await Promise.all(["host", "plugins", "registry", "safes", "events"].map(ask));
  headline(host);
  const port = host.listen.slice(host.listen.lastIndexOf(":") + 1);
  show("plugins", plugins.plugins, ["plugin", "state", "answers at", "requests", "panics", "last outcome"],
    (one) => plugin(one, `${location.hostname}:${port}`), "There is no plugin yet; `host new NAME` makes one.");
  show("registry", registry.slots, ["key", "holds", "state", "used by", "hits", ""],
    slot, "No plugin has kept anything yet.");
  show("safes", safes.safes, ["safe", "keeps", "trouble", ""], safe, "No safe is open.");
  show("events", events.events.slice(0, SHOWN_EVENTS), ["time", "plugin", "event", "reason", "steps"],
    event, "Nothing has happened yet.");
}

async function follow() {
  if (!document.hidden) {
    try {
      await draw();
    } catch (error) {
      const words = `the host does not answer (${error.message}); asking again`;
      document.getElementById("host").replaceChildren(span("lost", words));
    }
  }
  setTimeout(follow, EVERY_MS);
}

follow();
