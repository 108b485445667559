"use strict";
// What the charts of compare.html have in common: numbers of axes, places of labels, a frame, layers of groups, a tip.

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
    const wide = this.tip.offsetWidth, right = x + 16 + wide <= this.box.width ? x + 16 : x - 16 - wide;
    this.tip.style.left = `${Math.max(0, Math.min(right, this.box.width - wide))}px`;
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
