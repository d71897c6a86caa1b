// The tables: processes, sessions of the server, what happened, slow queries.

import { element, fill, renew } from "./elements.js";
import { age, duration } from "./numbers.js";

const BREAKER = { closed: "✓ closed", open: "✕ open", paused: "‖ paused" };
const STATE = { alive: "", silent: "! silent", ended: "ended", killed: "✕ ended without a word" };
const EVENT_MARKS = {
  breaker_opened: "✕",
  breaker_closed: "✓",
  pool_paused: "‖",
  pool_resumed: "▸",
  pool_condemned: "↻",
  pool_closed: "↻",
  process_began: "+",
  process_ended: "−",
  process_killed: "✕",
};

export function showProcesses(table, { processes, at }) {
  const rows = processes.map((each) => {
    const { pool, minute } = each;
    const gone = each.ended_at !== null;
    const row = [
      [element("strong", {}, [each.what]), ` ${each.pid}`],
      gone ? `${STATE[each.state]}, ${age(at - each.ended_at)} ago` : STATE[each.state] || `for ${age(each.age_seconds)}`,
      gone ? "" : useOf(pool),
      gone ? "" : String(pool.idle),
      gone ? "" : String(pool.waiting),
      gone ? "" : BREAKER[pool.breaker],
      String(minute.refused_total + minute.too_slow_total),
      percentiles(minute.wait_seconds),
      percentiles(minute.hold_seconds),
      percentiles(minute.query_seconds),
    ];
    row.attributes = { "data-state": each.state, "data-breaker": pool.breaker };
    return row;
  });
  const headings = ["process", "state", "in use", "idle", "waiting", "breaker", "refused", "wait p50 / p95 / p99", "hold", "query"];
  fill(table, headings, rows, "No process has used this database within the last hour.");
}

export function showSessions(table, sum, { server, together, processes }) {
  const mayOpen = together.pool.max_size;
  const workers = processes.filter((each) => each.ended_at === null);
  const pools = workers.map((each) => each.pool.max_size);
  const same = pools.length > 1 && pools.every((size) => size === pools[0]);
  const product = same ? `${pools.length} × ${pools[0]} = ${mayOpen}` : String(mayOpen);
  if (server.state !== "ok") {
    sum.dataset.level = "unknown";
    sum.textContent = `The server does not answer at the moment (${server.state}), so its sessions are not known. The pools here may open ${product} connections to this database as this user.`;
    fill(table, ["application"], [], "Shown again once the server answers.");
    return;
  }
  const limit = server.limit === null ? "" : `, at most ${server.limit} for this user or database`;
  const slots = `max_connections ${server.max_connections}, ${server.reserved} reserved, ${server.others} taken by others${limit}`;
  sum.dataset.level = mayOpen > server.left ? "warning" : "well";
  const verdict = mayOpen > server.left ? "more than the server takes: lower max_size" : "which fits";
  sum.textContent = `The pools here may open ${product} connections to this database as this user; the server has ${server.left} for them (${slots}), ${verdict}. Now ${server.sessions} are open.`;
  const rows = server.groups.map((group) => [
    `${group.application || "no name"}${group.here ? "" : " (another database)"}`,
    group.state,
    String(group.sessions),
    group.longest_transaction_seconds ? duration(group.longest_transaction_seconds) : "–",
  ]);
  fill(table, ["application", "state", "sessions", "longest transaction"], rows, "Nobody is connected.");
}

export function showEvents(list, { events, at }) {
  const items = events.slice(0, 40).map((event) =>
    element("li", { "data-event": event.event }, [
      element("span", { "aria-hidden": "true" }, [EVENT_MARKS[event.event] ?? "·"]),
      element("time", { datetime: new Date(event.at * 1000).toISOString() }, [`${age(at - event.at)} ago`]),
      element("span", {}, [event.text, event.pids.length > 1 ? ` (${event.pids.length} processes)` : ` (${event.pids[0]})`]),
    ]),
  );
  renew(list, items.length ? items : [element("li", {}, ["Nothing in the last hour."])]);
}

export function showSlowQueries(table, { slow_queries: queries, at }) {
  const rows = queries.map((query) => [
    `${age(at - query.at)} ago`,
    duration(query.seconds),
    String(query.count),
    [element("code", {}, [query.call_site])],
    query.path || "–",
    [element("code", { class: "dash-sql" }, [query.sql])],
  ]);
  fill(table, ["last", "slowest", "times", "call site", "request", "statement"], rows, "None.");
}

function useOf(pool) {
  const share = pool.max_size ? pool.in_use / pool.max_size : 0;
  return [element("meter", { min: 0, max: 1, value: share.toFixed(2), "aria-hidden": "true" }), ` ${pool.in_use} of ${pool.max_size}`];
}

const percentiles = ({ p50, p95, p99 }) => (p50 === null ? "–" : [p50, p95, p99].map(duration).join(" / "));
