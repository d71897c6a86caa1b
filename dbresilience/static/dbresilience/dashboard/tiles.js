// Six numbers to read first. A tile that is not well says so by its words and its mark, not by its colour alone.

import { element, renew } from "./elements.js";
import { duration, numberOf } from "./numbers.js";

export function showTiles(place, facts) {
  const { pool, minute } = facts.together;
  const share = pool.max_size ? pool.in_use / pool.max_size : 0;
  const refused = minute.refused_total + minute.too_slow_total;
  const tiles = [
    tile("In use", `${pool.in_use} of ${pool.max_size}`, `${pool.idle} idle`, share >= 1 ? "warning" : "well", share),
    tile("Waiting", pool.waiting, minute.timed_out_total ? `${minute.timed_out_total} waited in vain` : "for a connection", pool.waiting ? "critical" : "well"),
    tile("Wait, p95", duration(minute.wait_seconds.p95), `p99 ${duration(minute.wait_seconds.p99)}`, minute.wait_seconds.p95 > 0.1 ? "warning" : "well"),
    tile("Query, p95", duration(minute.query_seconds.p95), `p99 ${duration(minute.query_seconds.p99)}`, "well"),
    tile("Hold, p95", duration(minute.hold_seconds.p95), `p99 ${duration(minute.hold_seconds.p99)}`, "well"),
    tile("Refused", refused, `${refused === 1 ? "request" : "requests"}; ${numberOf(minute.failed_total, "statement")} failed`, refused ? "critical" : "well"),
  ];
  renew(place, tiles);
}

function tile(name, value, more, level, share) {
  const parts = [element("span", { class: "dash-tile-name" }, [name]), element("strong", {}, [String(value)]), element("small", {}, [more])];
  if (share !== undefined) parts.push(element("meter", { min: 0, max: 1, value: share.toFixed(2), "aria-label": "share of the connections in use" }));
  return element("li", { class: "dash-tile", "data-level": level }, parts);
}
