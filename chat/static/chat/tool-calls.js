/** One tool call of an answer: a row that opens to what was asked and what came back. */

import { element, icon } from "./elements.js";

const NAMES = {
  search_my_messages: ["Search my messages", "search"],
  database_status: ["Database status", "database"],
  current_time: ["Current time", "clock"],
  calculate: ["Calculate", "calculate"],
};
const STATES = { running: "running", complete: "check", failed: "failed" };
const STATE_WORDS = { running: "Running", complete: "Done", failed: "Failed" };

/** Brings the rows in `container` in line with `calls`; open rows stay open. */
export function renderToolCalls(container, calls) {
  calls.forEach((call, position) => {
    const present = container.children[position];
    const source = JSON.stringify(call);
    if (present?.dataset.source === source) return;
    const row = toolCall(call);
    row.dataset.source = source;
    if (!present) container.append(row);
    else {
      row.open = present.open;
      const focused = present.contains(document.activeElement);
      present.replaceWith(row);
      if (focused) row.querySelector("summary").focus();
    }
  });
  while (container.children.length > calls.length) container.lastElementChild.remove();
}

export function toolName(name) {
  return NAMES[name]?.[0] ?? name.replaceAll("_", " ");
}

function toolCall({ name, arguments: asked, result, status, duration_seconds: seconds }) {
  const state = STATE_WORDS[status] + (status !== "running" && seconds != null ? ` · ${duration(seconds)}` : "");
  const body = element("div", { class: "tool-body" });
  if (asked && Object.keys(asked).length) body.append(part("Asked with", asked));
  if (status !== "running") body.append(part(status === "failed" ? "What went wrong" : "Result", result));
  else body.append(element("h4", { text: "Still working" }));
  return element(
    "details",
    { class: "tool-call", dataset: { status, tool: name } },
    element(
      "summary",
      {},
      icon(NAMES[name]?.[1] ?? "tool"),
      element("span", { class: "tool-name", text: toolName(name) }),
      element("span", { class: "tool-brief", text: brief(asked) }),
      element("span", { class: "tool-state", text: state }),
      icon(STATES[status], "icon-state"),
      icon("fold", "icon-fold"),
    ),
    body,
  );
}

function part(title, value) {
  const text = typeof value === "string" ? value : JSON.stringify(value ?? null, null, 2);
  return element(
    "div",
    {},
    element("h4", { text: title }),
    element("pre", { text, tabindex: 0, role: "region", "aria-label": title }),
  );
}

function brief(asked) {
  return Object.values(asked ?? {})
    .map((value) => (typeof value === "string" ? value : JSON.stringify(value)))
    .join(", ");
}

function duration(seconds) {
  if (seconds < 0.001) return "under 1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return `${seconds.toFixed(1)} s`;
}
