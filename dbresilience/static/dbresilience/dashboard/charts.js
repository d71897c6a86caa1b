// The charts: five of uPlot's, one time axis, what happened as marks on it, and the same figures as tables.

import { element } from "./elements.js";
import { duration, plain, rate } from "./numbers.js";

// The broken lines are drawn over the solid one: where all three are the same, all three are seen.
const PERCENTILES = [
  { name: "p99", label: "p99", colour: "--dash-second", dash: [] },
  { name: "p95", label: "p95", colour: "--dash-first", dash: [8, 4] },
  { name: "p50", label: "p50", colour: "--dash-calm", dash: [2, 3] },
];
const percentilesOf = (name) => PERCENTILES.map((each) => ({ ...each, column: `${name}_${each.name}` }));

const CHARTS = [
  {
    title: "Connections",
    about: "In use and idle against the maximum, and requests that wait",
    format: plain,
    lines: [
      { column: "max_size", label: "maximum", colour: "--dash-quiet", dash: [2, 4] },
      { column: "idle", label: "idle", colour: "--dash-calm", dash: [8, 4] },
      { column: "in_use", label: "in use", colour: "--dash-first", dash: [], fill: true },
      { column: "waiting", label: "waiting", colour: "--dash-bad", dash: [], width: 2.5, trouble: true },
    ],
    stepped: true,
  },
  {
    title: "Outcomes per second",
    about: "Statements, and what did not go well",
    format: rate,
    lines: [
      { column: "statements", label: "statements", colour: "--dash-calm", dash: [], fill: true },
      { column: "repeated_total", label: "repeated", colour: "--dash-first", dash: [2, 3], trouble: true },
      { column: "failed_total", label: "failed", colour: "--dash-second", dash: [8, 4], trouble: true },
      { column: "timed_out_total", label: "waited in vain", colour: "--dash-third", dash: [8, 3, 2, 3], trouble: true },
      { column: "refused_total", label: "refused", colour: "--dash-bad", dash: [], width: 2.5, trouble: true },
    ],
  },
  { title: "Wait for a connection", about: "From asking to having it", format: duration, logarithmic: true, lines: percentilesOf("wait") },
  { title: "Query time", about: "One statement", format: duration, logarithmic: true, lines: percentilesOf("query") },
  { title: "Hold time", about: "From having a connection to giving it back", format: duration, logarithmic: true, lines: percentilesOf("hold") },
];
const ROWS_OF_TABLE = 12;
// A red line along the bottom would look like trouble, and hide what is under it.
const withoutQuiet = (numbers) => numbers.map((number, at) => (number || numbers[at - 1] || numbers[at + 1] ? number : null));
// The last is drawn over the others.
const MARKED = {
  process_began: "--dash-quiet",
  process_ended: "--dash-quiet",
  pool_condemned: "--dash-third",
  pool_closed: "--dash-third",
  pool_paused: "--dash-second",
  pool_resumed: "--dash-good",
  process_killed: "--dash-bad",
  breaker_closed: "--dash-good",
  breaker_opened: "--dash-bad",
};
const LEAST_SHOWN_SECONDS = 60;

export class Charts {
  constructor(place) {
    this.columns = null;
    this.window = 300;
    this.events = [];
    this.charts = CHARTS.map((about) => new Chart(about, place, this));
    new ResizeObserver(() => this.charts.forEach((chart) => chart.fit())).observe(place);
    const recolour = () => this.charts.forEach((chart) => chart.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  // The newest points are asked for again: a process may have been late.
  knownUntil() {
    const known = this.columns?.t.at(-1) ?? 0;
    return known && Math.max(known - 3 * (this.window === 300 ? 1 : 10), 0);
  }

  forget() {
    this.columns = null;
  }

  add(columns, events, window) {
    this.window = window;
    this.events = events;
    const [first] = columns.t;
    if (this.columns && first !== undefined) {
      const kept = this.columns.t.findIndex((at) => at >= first);
      const keep = kept < 0 ? this.columns.t.length : kept;
      const most = window === 300 ? 300 : 360;
      for (const name of Object.keys(columns)) columns[name] = [...this.columns[name].slice(0, keep), ...columns[name]].slice(-most);
    }
    if (first !== undefined) this.columns = columns;
    if (this.columns) this.charts.forEach((chart) => chart.show(this.columns));
  }
}

class Chart {
  constructor(about, place, all) {
    this.about = about;
    this.all = all;
    this.plot = null;
    this.canvas = element("div", { class: "dash-canvas", "aria-hidden": "true" });
    this.legend = element("dl", { class: "dash-legend" });
    this.table = element("table");
    this.details = element("details", { class: "dash-figures" }, [element("summary", {}, ["Figures"]), element("div", { class: "dash-scroll" }, [this.table])]);
    this.details.addEventListener("toggle", () => this.fillTable());
    this.place = element("figure", { class: "dash-card dash-chart" }, [
      element("figcaption", {}, [element("h2", {}, [about.title]), element("p", {}, [about.about])]),
      this.legend,
      this.canvas,
      this.details,
    ]);
    place.append(this.place);
  }

  show(columns) {
    this.columns = columns;
    if (!this.plot) this.draw();
    else this.plot.setData(this.data());
    this.showNewest();
    this.fillTable();
  }

  data() {
    return [
      this.columns.t,
      ...this.about.lines.map((line) => (line.trouble ? withoutQuiet(this.columns[line.column]) : this.columns[line.column])),
    ];
  }

  fit() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: this.plot.height });
  }

  draw() {
    if (!this.columns) return;
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.data(), this.canvas);
    this.legend.replaceChildren(...this.about.lines.map((line) => this.legendOf(line)));
    this.showNewest();
  }

  options() {
    const { about } = this;
    const axis = { stroke: colour("--dash-axis"), grid: { stroke: colour("--dash-grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    return {
      width: this.canvas.clientWidth || 300,
      height: 190,
      padding: [10, 24, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "dashboard" }, drag: { setScale: false, x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => this.range() },
        y: about.logarithmic ? { distr: 3, range: rangeOfDurations } : { range: (plot, low, high) => [0, Math.max(high * 1.1, 1)] },
      },
      axes: [
        { ...axis, size: 30, space: 70, values: (plot, splits) => splits.map(briefly) },
        { ...axis, size: 58, values: (plot, splits) => splits.map((value) => (value === null ? "" : about.format(value))), ...(about.logarithmic ? { splits: decades } : {}) },
      ],
      series: [
        {},
        ...about.lines.map((line) => ({
          label: line.label,
          stroke: colour(line.colour),
          width: line.width ?? 1.75,
          dash: line.dash,
          fill: line.fill ? colour(line.colour, 0.14) : undefined,
          points: { show: false },
          spanGaps: false,
          paths: about.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
        })),
      ],
      hooks: {
        drawClear: [(plot) => this.shadeOutages(plot)],
        draw: [(plot) => this.markEvents(plot)],
        setCursor: [(plot) => this.showNewest(plot.cursor.idx)],
      },
    };
  }

  // A site that has just begun has no use for four empty minutes.
  range() {
    const last = this.columns.t.at(-1);
    const begun = this.columns.t[this.columns.max_size.findIndex((size) => size !== null)] ?? last;
    return [Math.max(last - this.all.window, Math.min(begun, last - LEAST_SHOWN_SECONDS)), last];
  }

  shadeOutages(plot) {
    const { t, breaker } = this.columns;
    const step = this.all.window === 300 ? 1 : 10;
    const context = plot.ctx;
    context.save();
    for (let from = 0, to; from < t.length; from = to) {
      for (to = from + 1; to < t.length && breaker[to] === breaker[from]; ) to++;
      if (!breaker[from]) continue;
      context.fillStyle = colour(breaker[from] === 2 ? "--dash-bad" : "--dash-second", 0.16);
      const left = Math.max(plot.valToPos(t[from], "x", true), plot.bbox.left);
      const right = Math.min(plot.valToPos(t[to - 1] + step, "x", true), plot.bbox.left + plot.bbox.width);
      context.fillRect(left, plot.bbox.top, right - left, plot.bbox.height);
    }
    context.restore();
  }

  markEvents(plot) {
    const context = plot.ctx;
    const [first, last] = this.range();
    const order = Object.keys(MARKED);
    const marks = this.all.events.filter((event) => event.event in MARKED && event.at >= first && event.at <= last);
    marks.sort((one, other) => order.indexOf(one.event) - order.indexOf(other.event));
    context.save();
    context.lineWidth = devicePixelRatio;
    for (const event of marks) {
      const x = Math.round(plot.valToPos(event.at, "x", true));
      context.strokeStyle = context.fillStyle = colour(MARKED[event.event]);
      context.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      context.beginPath();
      context.moveTo(x, plot.bbox.top);
      context.lineTo(x, plot.bbox.top + plot.bbox.height);
      context.stroke();
      const size = 4 * devicePixelRatio;
      context.beginPath();
      context.moveTo(x - size, plot.bbox.top);
      context.lineTo(x + size, plot.bbox.top);
      context.lineTo(x, plot.bbox.top + size * 1.5);
      context.fill();
    }
    context.restore();
  }

  legendOf(line) {
    const sample = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    sample.setAttribute("viewBox", "0 0 26 8");
    sample.setAttribute("aria-hidden", "true");
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "path");
    stroke.setAttribute("d", "M0 4h26");
    stroke.setAttribute("stroke", colour(line.colour));
    stroke.setAttribute("stroke-width", line.width ?? 2);
    stroke.setAttribute("stroke-dasharray", line.dash.join(" "));
    sample.append(stroke);
    return element("div", {}, [element("dt", {}, [sample, line.label]), element("dd", { "data-column": line.column }, ["–"])]);
  }

  showNewest(index) {
    if (!this.columns) return;
    const shown = index ?? this.plot?.cursor.idx ?? this.columns.t.length - 1;
    for (const value of this.legend.querySelectorAll("dd")) {
      const number = this.columns[value.dataset.column][shown];
      const text = number === null || number === undefined ? "–" : this.about.format(number);
      if (value.textContent !== text) value.textContent = text;
    }
  }

  fillTable() {
    if (!this.details.open || !this.columns) return;
    const { t } = this.columns;
    const rows = Array.from({ length: Math.min(ROWS_OF_TABLE, t.length) }, (_, back) => t.length - 1 - back);
    this.table.replaceChildren(
      element("caption", { class: "dash-hidden" }, [`${this.about.title}, the newest first`]),
      element("thead", {}, [element("tr", {}, ["time", ...this.about.lines.map((line) => line.label)].map((text) => element("th", { scope: "col" }, [text])))]),
      element("tbody", {}, rows.map((row) => element("tr", {}, [
        element("th", { scope: "row" }, [clock(t[row])]),
        ...this.about.lines.map((line) => element("td", {}, [this.columns[line.column][row] === null ? "–" : this.about.format(this.columns[line.column][row])])),
      ]))),
    );
  }
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

const briefly = (at) => (at % 60 ? clock(at) : clock(at).slice(0, 5));

function rangeOfDurations(plot, low, high) {
  if (!(low > 0)) return [1e-4, 1];
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(Math.max(high, low * 10)))];
}

function decades(plot, axis, low, high) {
  const first = Math.round(Math.log10(low));
  return Array.from({ length: Math.round(Math.log10(high)) - first + 1 }, (_, power) => 10 ** (first + power));
}

// The canvas knows neither variables nor light-dark().
const probe = element("span", { class: "dash-hidden" });
document.querySelector("[data-dashboard]").append(probe);
function colour(name, opacity = 1) {
  probe.style.color = `var(${name})`;
  const solid = getComputedStyle(probe).color;
  return opacity === 1 ? solid : solid.replace("rgb(", "rgba(").replace(")", `, ${opacity})`);
}
