"use strict";
// Draws the charts of compare.html from its data: curves with bands, the rate-distortion plane, parallel coordinates.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 6;
const AXES = { step: "steps", epoch: "epochs", seconds: "seconds of training" };

/** Adds an element of SVG to a parent. */
function add(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Round numbers from low to high, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

/** A number of an axis: 1.5k, 0.25, -98. */
function short(value) {
  const [factor, unit] = Math.abs(value) >= 1e6 ? [1e6, "M"] : Math.abs(value) >= 1e4 ? [1e3, "k"] : [1, ""];
  return String(+(value / factor).toPrecision(5)).replace("-", "−") + unit;
}

function fixed(value) {
  return (Math.abs(value) < 1 ? value.toPrecision(3) : value.toFixed(2)).replace("-", "−");
}

/** Low and high of some values, with a margin. */
function range(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const margin = 0.06 * (high - low) || 0.01 * Math.abs(low) || 1;
  return [low - margin, high + margin];
}

/** Whether a number belongs to the picture of some; what diverged does not, as in figures.py. */
function near(values) {
  const sorted = [...values].sort((a, b) => a - b), half = Math.floor(sorted.length / 2);
  const middle = sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  return (value) => Math.abs(value - middle) <= 10 * Math.max(Math.abs(middle), 10);
}

/** Places near the wanted ones, at least `gap` apart, in [low, high]: isotonic regression, as in figures.py. */
function spread(wanted, gap, low, high) {
  const order = wanted.map((_, index) => index).sort((a, b) => wanted[a] - wanted[b]);
  gap = Math.min(gap, (high - low) / Math.max(order.length - 1, 1));
  const blocks = [];
  order.forEach((index, rank) => {
    blocks.push([wanted[index] - gap * rank, 1]);
    while (blocks.length > 1 && blocks.at(-1)[0] < blocks.at(-2)[0]) {
      const [above, many] = blocks.pop(), [below, few] = blocks.pop();
      blocks.push([(above * many + below * few) / (many + few), many + few]);
    }
  });
  const found = [], end = high - gap * (order.length - 1);
  blocks.flatMap(([place, count]) => Array(count).fill(place)).forEach((place, rank) => {
    found[order[rank]] = Math.min(Math.max(place, low), end) + gap * rank;
  });
  return found;
}

/** A chart: a title, an SVG that is drawn again when something changes, a tip. */
class Chart {
  constructor(section, title, height, isWide) {
    this.section = section;
    this.height = height;
    this.figure = document.createElement("figure");
    if (isWide) this.figure.className = "wide-chart";
    const head = document.createElement("b");
    head.textContent = title;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", title);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.figure.append(head, this.svg, this.tip);
    section.place.append(this.figure);
    this.svg.addEventListener("pointermove", (event) => this.hover(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
  }

  begin(left) {
    this.svg.replaceChildren();
    const width = this.figure.clientWidth || 600;
    const longest = Math.max(0, ...this.section.visible.map((group) => group.name.length));
    this.labelled = width >= 480;
    const right = this.labelled ? Math.min(18 + 6.6 * longest, 0.4 * width) : 12;
    this.box = { left, right: width - right, top: 10, bottom: this.height - 36, width };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    this.layers = new Map();
  }

  /** Scales from values to pixels. */
  scale(x, y) {
    const { left, right, top, bottom } = this.box;
    this.x = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (right - left);
    this.y = (value) => bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (bottom - top);
    const id = `clip${Chart.count = (Chart.count || 0) + 1}`;
    const clip = add(add(this.svg, "clipPath", { id }), "rect", { x: left - 1, y: top, width: right - left + 2, height: bottom - top });
    this.clip = `url(#${id})`;
    return clip;
  }

  frame(x, y, label, hasGrid) {
    const { left, right, top, bottom } = this.box;
    for (const value of ticks(y[0], y[1], Math.max(3, (bottom - top) / 48))) {
      if (hasGrid) add(this.svg, "line", { class: "grid", x1: left, x2: right, y1: this.y(value), y2: this.y(value) });
      add(this.svg, "text", { x: left - 7, y: this.y(value) + 4, "text-anchor": "end" }, short(value));
    }
    for (const value of ticks(x[0], x[1], Math.max(2, (right - left) / 55))) {
      add(this.svg, "text", { x: this.x(value), y: bottom + 16, "text-anchor": "middle" }, short(value));
    }
    add(this.svg, "text", { x: right, y: bottom + 31, "text-anchor": "end" }, label);
  }

  /** The layer of a group, in its colour. */
  layer(group) {
    if (!this.layers.has(group)) {
      const colour = `group c${group.place % COLOURS}`;
      this.layers.set(group, add(this.svg, "g", { class: colour, "data-group": group.place }));
    }
    return this.layers.get(group);
  }

  dashes(group) {
    return `d${Math.floor(group.place / COLOURS) % 3}`;
  }

  /** Names at the right, each with a thin line from where its group ends, `[group, x, y]` in pixels; the value if outside. */
  labels(ends) {
    if (!this.labelled) return;
    const { right, top, bottom, width } = this.box;
    const inside = ends.map(([, , y]) => Math.min(Math.max(y, top), bottom));
    const places = spread(inside, 14, top + 2, bottom);
    const most = Math.floor((width - right - 16) / 6.3);
    ends.forEach(([group, x, end, value], index) => {
      const outside = end > bottom + 1 ? ` ↓ ${short(value)}` : end < top - 1 ? ` ↑ ${short(value)}` : "";
      const y = places[index], layer = this.layer(group);
      const bend = x > right - 8 ? "" : `L${right},${y}`;
      add(layer, "path", { class: "leader", d: `M${x},${inside[index]}${bend}L${right + 12},${y}` });
      const name = group.name.length > most ? `${group.name.slice(0, most - 1)}…` : group.name;
      add(layer, "text", { class: "label", x: right + 15, y: y + 4 }, name + outside);
    });
  }

  /** Where the pointer is, in pixels of the drawing. */
  at(event) {
    const box = this.svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  show(event, rows) {
    this.tip.replaceChildren(...rows);
    this.tip.hidden = false;
    const [x, y] = this.at(event);
    const isLeft = x > this.box.width / 2 && x + 16 + this.tip.offsetWidth > this.box.width;
    this.tip.style.left = isLeft ? "" : `${x + 16}px`;
    this.tip.style.right = isLeft ? `${this.box.width - x + 16}px` : "";
    this.tip.style.top = `${Math.max(0, Math.min(y, this.height - this.tip.offsetHeight))}px`;
  }

  leave() {
    this.tip.hidden = true;
    if (this.cross) this.cross.setAttribute("visibility", "hidden");
    this.section.highlight(null);
  }

  highlight(group) {
    this.svg.classList.toggle("hot", group !== null);
    for (const [key, layer] of this.layers) layer.classList.toggle("on", key === group);
  }
}

/** The rows of a tip: a head, then a colour, a name and a number for each entry. */
function rowsOf(head, entries, hot) {
  const title = document.createElement("div");
  title.textContent = head;
  const table = document.createElement("table");
  for (const [group, text] of entries) {
    const row = table.insertRow();
    row.className = `c${group.place % COLOURS}${group === hot ? " on" : ""}`;
    const key = document.createElement("span");
    key.className = "key-line";
    row.insertCell().append(key);
    row.insertCell().textContent = group.name;
    row.insertCell().textContent = text;
  }
  return [title, table];
}

class Curves extends Chart {
  constructor(section, term, title) {
    super(section, `${title} (validation)`, 300, false);
    this.term = term;
  }

  draw() {
    this.begin(48);
    const axis = this.section.axis;
    this.lines = this.section.visible.flatMap((group) => {
      const x = group.axes[axis], columns = group.curves[this.term];
      if (!x || !columns) return [];
      const rows = x.map((at, row) => [at, ...columns.map((column) => column[row])]).filter((row) => !row.includes(null));
      return rows.length ? [{ group, rows }] : [];
    });
    this.cross = null;
    if (!this.lines.length) {
      add(this.svg, "text", { x: this.box.left, y: 40 }, `nothing to show over ${AXES[axis]}`);
      return;
    }
    const last = Math.max(...this.lines.map(({ rows }) => rows.at(-1)[0]));
    // The first tenth is far from all that follows: it may leave the picture.
    const isNear = near(this.lines.map(({ rows }) => rows.at(-1)[1]));
    const inside = this.lines.filter(({ rows }) => isNear(rows.at(-1)[1]));
    const shown = inside.flatMap(({ rows }) => rows.filter((row) => row[0] >= last / 10).flatMap((row) => row.slice(1)));
    const x = [0, last || 1], y = range(shown);
    this.scale(x, y);
    this.frame(x, y, AXES[axis], true);
    const { top, bottom } = this.box;
    this.cross = add(this.svg, "line", { class: "cross", y1: top, y2: bottom, visibility: "hidden" });
    for (const { group, rows } of this.lines) {
      const layer = this.layer(group);
      const point = (row, column) => `${this.x(row[0]).toFixed(1)},${this.y(row[column]).toFixed(1)}`;
      const low = rows.map((row) => point(row, 2)), high = rows.map((row) => point(row, 3)).reverse();
      add(layer, "path", { class: "band", d: `M${[...low, ...high].join("L")}Z`, "clip-path": this.clip });
      const d = `M${rows.map((row) => point(row, 1)).join("L")}`;
      add(layer, "path", { class: `line ${this.dashes(group)}`, d, "clip-path": this.clip });
      if (rows.length === 1) add(layer, "circle", { class: "dot", cx: this.x(rows[0][0]), cy: this.y(rows[0][1]), r: 3 });
    }
    this.labels(this.lines.map(({ group, rows }) => [group, this.x(rows.at(-1)[0]), this.y(rows.at(-1)[1]), rows.at(-1)[1]]));
  }

  hover(event) {
    if (!this.cross) return;
    const [px, py] = this.at(event);
    const near = this.lines.map(({ group, rows }) => {
      const row = rows.reduce((best, each) => (Math.abs(this.x(each[0]) - px) < Math.abs(this.x(best[0]) - px) ? each : best));
      return { group, row };
    });
    const nearest = (distance) => near.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    const column = nearest(({ row }) => Math.abs(this.x(row[0]) - px)).row[0];
    const hot = nearest(({ row }) => Math.abs(this.y(row[1]) - py) + Math.abs(this.x(row[0]) - px)).group;
    this.cross.setAttribute("x1", this.x(column));
    this.cross.setAttribute("x2", this.x(column));
    this.cross.setAttribute("visibility", "visible");
    const entries = near.sort((a, b) => b.row[1] - a.row[1]).map(({ group, row }) => {
      const isOne = group.seeds.length === 1 || !this.labelled;
      return [group, fixed(row[1]) + (isOne ? "" : `  (${fixed(row[2])} … ${fixed(row[3])})`)];
    });
    const most = entries.length > 14 ? entries.filter(([group]) => group === hot) : entries;
    this.show(event, rowsOf(`${AXES[this.section.axis]}: ${short(column)}`, most, hot));
    this.section.highlight(hot);
  }
}

/** KL against recon: a dot for each seed, a ring for the mean; on a diagonal the ELBO is the same. */
class Plane extends Chart {
  constructor(section) {
    super(section, `Rate and distortion (${section.stage})`, 300, false);
  }

  draw() {
    this.begin(48);
    const groups = this.section.visible.filter((group) => group.plane.length);
    this.rings = [];
    if (!groups.length) return;
    const points = groups.flatMap((group) => group.plane);
    const [x, y] = [0, 1].map((d) => points.map((point) => point[d])).map((column) => range(column.filter(near(column))));
    this.scale(x, y);
    const { left, right, top, bottom } = this.box;
    for (const elbo of ticks(-x[1] - y[1], -x[0] - y[0], 8)) {
      const ends = x.map((value) => `${this.x(value)},${this.y(-elbo - value)}`);
      add(this.svg, "path", { class: "diagonal", d: `M${ends.join("L")}`, "clip-path": this.clip });
      const at = Math.max(x[0], -elbo - y[1]);
      const px = this.x(at) + 5, py = this.y(-elbo - at) + 14;
      if (px < right - 30 && py < bottom - 6) add(this.svg, "text", { x: px, y: py, class: "elbo" }, short(elbo));
    }
    this.frame(x, y, `kl, nats per image`, false);
    add(this.svg, "text", { x: left + 4, y: top + 2 }, "recon");
    for (const group of groups) {
      const layer = this.layer(group);
      const mean = [0, 1].map((d) => group.plane.reduce((sum, point) => sum + point[d], 0) / group.plane.length);
      for (const point of group.plane) add(layer, "circle", { class: "dot", cx: this.x(point[0]), cy: this.y(point[1]), r: 3, "clip-path": this.clip });
      add(layer, "circle", { class: "ring", cx: this.x(mean[0]), cy: this.y(mean[1]), r: 6, "clip-path": this.clip });
      this.rings.push({ group, mean, px: this.x(mean[0]), py: this.y(mean[1]) });
    }
    this.labels(this.rings.map(({ group, mean, px, py }) => [group, Math.min(px + 6, right), py, mean[1]]));
  }

  hover(event) {
    if (!this.rings || !this.rings.length) return;
    const [px, py] = this.at(event);
    const distance = (ring) => Math.hypot(ring.px - px, ring.py - py);
    const { group, mean } = this.rings.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    const text = `kl ${fixed(mean[0])}, recon ${fixed(mean[1])}`;
    this.show(event, rowsOf(`elbo ${fixed(-mean[0] - mean[1])}`, [[group, text]], group));
    this.section.highlight(group);
  }
}

/** A line for each run, through its config to its numbers. */
class Parallel extends Chart {
  constructor(section, columns) {
    super(section, "From the config to the numbers, a line for each run", 330, true);
    this.columns = columns;
  }

  draw() {
    this.begin(70);
    const count = this.columns.length;
    this.scale([0, count - 1], [0, 1]);
    this.box.top = 40;
    this.box.bottom = this.height - 14;
    this.scale([0, count - 1], [0, 1]);
    const { top, bottom } = this.box;
    this.paths = [];
    const ends = new Map();
    let run = 0;
    for (const group of this.section.groups) {
      for (const _ of group.seeds) {
        const line = this.columns.map((column, x) => [this.x(x), column.places[run]]).filter(([, place]) => place !== null);
        run += 1;
        if (!this.section.visible.includes(group) || !line.length) continue;
        const points = line.map(([x, place]) => [x, this.y(place)]);
        const d = `M${points.map((point) => point.map((p) => p.toFixed(1)).join(",")).join("L")}`;
        add(this.layer(group), "path", { class: `line thin ${this.dashes(group)}`, d });
        this.paths.push({ group, points });
        if (line.at(-1)[0] === this.x(count - 1)) ends.set(group, [...(ends.get(group) || []), points.at(-1)[1]]);
      }
    }
    this.columns.forEach((column, x) => {
      add(this.svg, "line", { class: "grid", x1: this.x(x), x2: this.x(x), y1: top, y2: bottom });
      const isTight = this.x(1) - this.x(0) < 7 * Math.max(...this.columns.map((each) => each.title.length));
      const anchor = !this.labelled && x === count - 1 ? "end" : "middle";
      add(this.svg, "text", { x: this.x(x), y: top - (isTight && x % 2 ? 26 : 12), "text-anchor": anchor }, column.title);
      for (const [place, text] of column.ticks) {
        add(this.svg, "text", { class: "halo", x: this.x(x) - 6, y: this.y(place) + 4, "text-anchor": "end" }, text.replace("-", "−"));
      }
    });
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    this.labels([...ends].map(([group, values]) => [group, this.x(count - 1), mean(values)]));
  }

  hover(event) {
    const [px, py] = this.at(event);
    let best = null, least = 24;
    for (const { group, points } of this.paths) {
      for (let k = 1; k < points.length; k++) {
        const [[x1, y1], [x2, y2]] = [points[k - 1], points[k]];
        if (px < x1 || px > x2) continue;
        const distance = Math.abs(y1 + ((y2 - y1) * (px - x1)) / (x2 - x1) - py);
        if (distance < least) [best, least] = [group, distance];
      }
    }
    if (best) this.show(event, rowsOf("", [[best, ""]], best));
    else this.tip.hidden = true;
    this.section.highlight(best);
  }
}

/** A section of the page: its table switches groups on and off, its charts draw those that are on. */
class Section {
  constructor(element, data) {
    this.element = element;
    this.place = element.querySelector(".draw");
    this.stage = data.stage;
    this.groups = data.groups.map((group, place) => ({ ...group, place }));
    this.shown = data.shown;
    this.axis = data.axes[0];
    this.rows = [...element.querySelectorAll("tr[data-group]")];
    this.on = new Set();
    this.charts = [];
    if (this.axis) for (const term in data.terms) this.charts.push(new Curves(this, term, data.terms[term]));
    if (this.groups.some((group) => group.plane.length)) this.charts.push(new Plane(this));
    if (this.groups.length > 1 && data.parallel.length) this.charts.push(new Parallel(this, data.parallel));
    this.switches(data.axes);
    this.pick("best");
  }

  get visible() {
    return this.groups.filter((group) => this.on.has(group.place));
  }

  switches(axes) {
    const bar = this.element.querySelector(".axis");
    bar.hidden = axes.length < 2;
    for (const axis of axes) {
      const button = document.createElement("button");
      button.textContent = axis;
      button.dataset.axis = axis;
      button.setAttribute("aria-pressed", axis === this.axis);
      button.addEventListener("click", () => {
        this.axis = axis;
        for (const other of bar.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
        this.draw();
      });
      bar.querySelector(".choice").append(button);
    }
    for (const button of this.element.querySelectorAll("[data-pick]")) {
      button.addEventListener("click", () => this.pick(button.dataset.pick));
      button.hidden = button.dataset.pick === "best" && this.groups.length <= this.shown;
    }
    for (const row of this.rows.slice(0, this.groups.length)) {
      const place = Number(row.dataset.group);
      row.querySelector(".switch").addEventListener("click", () => {
        if (!this.on.delete(place)) this.on.add(place);
        this.draw();
      });
      row.addEventListener("pointerenter", () => this.highlight(this.on.has(place) ? this.groups[place] : null));
      row.addEventListener("pointerleave", () => this.highlight(null));
    }
  }

  pick(which) {
    const count = { best: this.shown, all: this.groups.length, none: 0 }[which];
    this.on = new Set(this.groups.slice(0, count).map((group) => group.place));
    this.draw();
  }

  draw() {
    for (const row of this.rows) {
      const isOn = this.on.has(Number(row.dataset.group));
      row.classList.toggle("off", !isOn);
      const button = row.querySelector(".switch");
      if (button) button.setAttribute("aria-pressed", isOn);
    }
    for (const chart of this.charts) chart.draw();
  }

  highlight(group) {
    for (const chart of this.charts) chart.highlight(group);
  }
}

const data = JSON.parse(document.getElementById("data").textContent);
const sections = [...document.querySelectorAll(".compared")].map((element, place) => new Section(element, data[place]));
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  for (const section of sections) section.draw();
});
