// The dashboard: asks for figures once a second and shows them. Nothing here knows what a database is.

import { Charts } from "./charts.js";
import { showEvents, showProcesses, showSessions, showSlowQueries } from "./tables.js";
import { showTiles } from "./tiles.js";

const EVERY_MS = 1000;
const HIDDEN_EVERY_MS = 5000;
const GIVE_UP_MS = 4000;
const MARKS = { well: "✓", warning: "!", critical: "✕", unknown: "…" };
const ANNOUNCE_AGAIN_MS = 5000;

const root = document.querySelector("[data-dashboard]");
const find = (name) => root.querySelector(`[data-${name}]`);
const controls = find("controls");
const charts = new Charts(find("charts"));

let asked = 0;
let failingSince = null;
let announced = { level: "", gist: "", at: 0 };
let timer = null;

function showHeadline({ level, text }) {
  const headline = find("headline");
  if (headline.dataset.level !== level) {
    headline.dataset.level = level;
    find("mark").textContent = MARKS[level];
    document.title = document.title.replace(/^([✓!✕] )?/, `${MARKS[level]} `);
  }
  if (find("headline-text").textContent !== text) find("headline-text").textContent = text;
  announce(level, text);
}

// A screen reader hears what is new, not every second's numbers.
function announce(level, text) {
  const gist = text.replace(/[\d.]+/g, "#");
  const now = Date.now();
  const isNews = level !== announced.level || (gist !== announced.gist && now - announced.at > ANNOUNCE_AGAIN_MS);
  if (!isNews) return;
  announced = { level, gist, at: now };
  find("announcement").textContent = text;
}

function show(facts) {
  showHeadline(facts.headline);
  find("pass-note").hidden = !facts.by_pass;
  find("updated").textContent = `as of ${new Date(facts.at * 1000).toLocaleTimeString([], { hourCycle: "h23" })}`;
  showTiles(find("tiles"), facts);
  charts.add(facts.series, facts.events, Number(controls.elements.window.value));
  showProcesses(find("processes"), facts);
  showSessions(find("sessions"), find("sum"), facts);
  showEvents(find("events"), facts);
  showSlowQueries(find("slow"), facts);
  offerProcesses(facts.processes);
}

function offerProcesses(processes) {
  const select = controls.elements.process;
  const wanted = processes.map((each) => [each.id, `${each.pid} ${each.what}${each.ended_at ? " (ended)" : ""}`]);
  const there = [...select.options].slice(1).map((option) => [option.value, option.text]);
  if (JSON.stringify(wanted) === JSON.stringify(there)) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...wanted.map(([value, text]) => new Option(text, value)));
  select.value = wanted.some(([value]) => value === chosen) ? chosen : "";
}

async function ask() {
  const mine = ++asked;
  const { database, process, window } = Object.fromEntries(new FormData(controls));
  const query = new URLSearchParams({ database, process, window, after: charts.knownUntil() });
  try {
    const answer = await fetch(`${root.dataset.url}?${query}`, { signal: AbortSignal.timeout(GIVE_UP_MS), redirect: "error" });
    if (answer.status === 403) throw new Error("Log in again: this page may not be shown to you any more.");
    if (!answer.ok) throw new Error(answer.status === 503 ? "The database is away, and this page has no pass: load it again once the database is back." : `The site answered ${answer.status}.`);
    const facts = await answer.json();
    if (mine !== asked) return;
    failingSince = null;
    show(facts);
  } catch (error) {
    if (mine !== asked) return;
    failingSince ??= Date.now();
    const seconds = Math.round((Date.now() - failingSince) / 1000);
    const isOurs = error.message.endsWith(".") && error.name === "Error";
    showHeadline({ level: "critical", text: isOurs ? error.message : `The site has not answered for ${seconds} s.` });
  }
  clearTimeout(timer);
  timer = setTimeout(ask, document.hidden ? HIDDEN_EVERY_MS : EVERY_MS);
}

function askNow() {
  clearTimeout(timer);
  ask();
}

controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("change", (event) => {
  if (event.target.name === "database") controls.elements.process.value = "";
  charts.forget();
  askNow();
});
document.addEventListener("visibilitychange", () => document.hidden || askNow());
ask();
