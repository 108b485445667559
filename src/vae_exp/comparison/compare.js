// The charts of compare.html and its switches: curves with bands, rate and distortion, parallel coordinates.

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
    this.box.top = 26;
    this.scale(x, y);
    const { left, right, bottom } = this.box;
    for (const elbo of ticks(-x[1] - y[1], -x[0] - y[0], 8)) {
      const ends = x.map((value) => `${this.x(value)},${this.y(-elbo - value)}`);
      add(this.svg, "path", { class: "diagonal", d: `M${ends.join("L")}`, "clip-path": this.clip });
      const at = Math.max(x[0], -elbo - y[1]);
      const px = this.x(at) + 5, py = this.y(-elbo - at) + 14;
      if (px < right - 30 && py < bottom - 6) add(this.svg, "text", { x: px, y: py, class: "elbo" }, short(elbo));
    }
    this.frame(x, y, `kl, nats per ${this.section.unit}`, false);
    add(this.svg, "text", { x: left - 7, y: 12, "text-anchor": "end" }, "recon");
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
    this.unit = data.unit;
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
