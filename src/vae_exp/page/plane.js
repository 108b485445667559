// The plane of two directions of the latent space: codes as dots, decoded pictures behind them, a place to drag.

const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];

function colourOf(y, classes) {
  if (y < 0) return COLOURS[0];
  return classes <= 10 ? COLOURS[y % 10] : `hsl(${(360 * y) / classes} 65% 50%)`;
}

function inner(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

class Plane {
  /** Arguments: the canvas; axes `{name, vector, low, high}`; codes, an array for each point; their labels; `paint`,
   * which draws the picture at a z into an ImageData; the size of a picture; `moved(z)`, called when it is dragged. */
  constructor(canvas, { axes, codes, labels, paint, size, moved }) {
    Object.assign(this, { canvas, axes, codes, labels, paint, size, moved });
    this.classes = Math.max(...labels) + 1;
    this.picked = [0, 1];
    this.mosaic = this.points = true;
    this.tiles = document.createElement("canvas");
    this.side = 10;
    const drag = (event) => {
      const box = canvas.getBoundingClientRect();
      const share = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
      this.go(share.map((s, k) => this.ranges[k][0] + Math.min(Math.max(s, 0), 1) * (this.ranges[k][1] - this.ranges[k][0])));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      drag(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && drag(event));
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!by) return;
      event.preventDefault();
      this.go(this.place(this.z).map((at, k) => at + (by[k] * (this.ranges[k][1] - this.ranges[k][0])) / 60));
    });
  }

  get directions() {
    return this.picked.map((k) => this.axes[k].vector);
  }

  place(z) {
    return this.directions.map((v) => inner(v, z));
  }

  /** Chooses the axes, and fits the plane to the codes. */
  pick(across, up) {
    this.picked = [across, up];
    this.places = this.codes.map((z) => this.place(z));
    this.ranges = this.picked.map((k, side) => {
      const values = this.places.map((place) => place[side]).sort((a, b) => a - b);
      const at = (q) => values[Math.round(q * (values.length - 1))];
      const low = Math.min(at(0.002), this.axes[k].low ?? Infinity), high = Math.max(at(0.998), this.axes[k].high ?? -Infinity);
      const margin = 0.06 * (high - low) || 1;
      return [low - margin, high + margin];
    });
    this.rest = null;
  }

  /** z with other places along the two directions, which need not be at right angles. */
  with(z, wanted) {
    const [v, u] = this.directions, [a, b] = this.place(z);
    const g = inner(v, u), da = wanted[0] - a, db = wanted[1] - b, det = 1 - g * g || 1;
    const s = (da - g * db) / det, t = (db - g * da) / det;
    return z.map((each, i) => each + s * v[i] + t * u[i]);
  }

  go(wanted) {
    this.moved(this.with(this.z, wanted));
  }

  /** Shows z and what is around it; `key` says what else the pictures depend on. */
  show(z, key) {
    this.z = z;
    const rest = [...this.with(z, [0, 0])].map((each) => each.toFixed(4)).join() + key + this.picked;
    if (rest !== this.rest) {
      this.rest = rest;
      this.cell = 0;
    }
    this.draw();
    if (this.mosaic && this.cell < this.side ** 2 && !this.waiting) this.fill();
  }

  /** Decodes the next pictures behind the dots, for a few milliseconds at a time. */
  fill() {
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const [width, height] = this.size, until = performance.now() + 9, n = this.side;
      if (this.tiles.width !== n * width) [this.tiles.width, this.tiles.height] = [n * width, n * height];
      const context = this.tiles.getContext("2d");
      while (this.cell < n * n && performance.now() < until) {
        const row = Math.floor(this.cell / n), column = this.cell % n;
        const share = [(column + 0.5) / n, 1 - (row + 0.5) / n];
        const at = share.map((s, k) => this.ranges[k][0] + s * (this.ranges[k][1] - this.ranges[k][0]));
        context.putImageData(this.paint(this.with(this.z, at)), column * width, row * height);
        this.cell += 1;
      }
      this.draw();
      if (this.mosaic && this.cell < n * n) this.fill();
    });
  }

  draw() {
    const { canvas } = this, side = canvas.clientWidth * (window.devicePixelRatio || 1);
    if (canvas.width !== Math.round(side)) canvas.width = canvas.height = Math.round(side);
    const context = canvas.getContext("2d"), unit = window.devicePixelRatio || 1;
    context.clearRect(0, 0, side, side);
    if (this.mosaic) {
      context.imageSmoothingEnabled = false;
      context.drawImage(this.tiles, 0, 0, side, side);
    }
    const x = (value) => ((value - this.ranges[0][0]) / (this.ranges[0][1] - this.ranges[0][0])) * side;
    const y = (value) => (1 - (value - this.ranges[1][0]) / (this.ranges[1][1] - this.ranges[1][0])) * side;
    const dot = (at, radius) => {
      context.beginPath();
      context.arc(x(at[0]), y(at[1]), radius * unit, 0, 2 * Math.PI);
    };
    if (this.points) {
      context.globalAlpha = 0.75;
      this.places.forEach((place, k) => {
        context.fillStyle = colourOf(this.labels[k], this.classes);
        dot(place, 2.1);
        context.fill();
      });
      context.globalAlpha = 1;
    }
    const at = this.place(this.z);
    for (const [colour, width] of [["#000", 5], ["#fff", 2.4]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * unit;
      dot(at, 8);
      context.stroke();
    }
  }
}
