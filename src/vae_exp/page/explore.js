// The explorer: one z, that sliders, a plane, classes and images change, and the picture at it.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const [channels, height, width] = data.shape;
const latents = data.latents, size = latents.length;
const decode = network(data.network);
const rows = (text) => {
  const numbers = unpacked(text, 32);
  return Array.from({ length: numbers.length / size }, (_, k) => numbers.subarray(k * size, (k + 1) * size));
};
const draws = data.draws.map(rows), codes = rows(data.codes.z), pixels = unpacked(data.examples.x, 8);
const examples = rows(data.examples.z).map((z, k) => ({ z, y: data.examples.y[k], c: data.examples.c?.[k] }));
let z = Float32Array.from(data.start), c = data.examples.c ? Float32Array.from(data.examples.c[0]) : null;
let ends = [0, examples.length - 1], isPlaying = false, isWaiting = false;

/** Numbers from 0, black, to 1, white, `(C, H, W)`, as pixels: grey, or the first three channels. */
function picture(numbers, factor = 255) {
  const image = new ImageData(width, height), area = width * height;
  for (let i = 0; i < area; i++) {
    for (let k = 0; k < 3; k++) {
      const channel = channels === 1 ? 0 : k;
      image.data[4 * i + k] = channel < channels ? Math.round(numbers[channel * area + i] * factor) : 0;
    }
    image.data[4 * i + 3] = 255;
  }
  return image;
}

function put(canvas, image) {
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const at = (z) => (c ? decode(z, c) : decode(z));
const exampleImage = (k) => picture(pixels.subarray(k * channels * height * width, (k + 1) * channels * height * width), 1);

function show() {
  isWaiting = false;
  put(find("picture"), picture(at(z)));
  sliders.forEach(({ input, output }, k) => {
    const value = z[latents[k].d];
    input.value = value;
    output.textContent = value.toFixed(2).replace("-", "−");
  });
  buttons.forEach((button, k) => {
    button.setAttribute("aria-pressed", data.contexts[k].every((each, i) => Math.abs(each - c[i]) < 1e-6));
  });
  attributes.forEach(({ attribute, input, output }) => {
    const far = attribute.c.map((each) => each.reduce((sum, value, i) => sum + (value - c[attribute.places[i]]) ** 2, 0));
    input.value = far.indexOf(Math.min(...far));
    output.textContent = attribute.texts[input.value];
  });
  if (plane) plane.show(z, c ? c.join() : "");
}

/** Another z, and where given another c, at the next frame. */
function move(to, context) {
  z = Float32Array.from(to);
  if (context) c = Float32Array.from(context);
  if (!isWaiting) requestAnimationFrame(show);
  isWaiting = true;
}

const largest = Math.max(...latents.map((latent) => latent.kl ?? latent.variance), 1); // so that nearly nothing is a line
const sliders = latents.map((latent) => {
  const row = document.createElement("label");
  row.className = latent.dead ? "latent dead" : "latent";
  const amount = latent.kl ?? latent.variance;
  row.innerHTML = '<span></span><span class="kl"><i></i><span></span></span><input type="range"><output></output>';
  row.firstChild.textContent = `z${latent.d}`;
  row.querySelector("i").style.width = `${Math.max((100 * amount) / largest, 1)}%`;
  row.querySelector(".kl span").textContent = amount >= 0.01 || amount <= 0 ? amount.toFixed(2).replace("-", "−") : amount.toPrecision(1);
  const [input, output] = [row.querySelector("input"), row.querySelector("output")];
  Object.assign(input, { min: latent.low, max: latent.high, step: (latent.high - latent.low) / 400 });
  input.addEventListener("input", () => move(z.map((each, d) => (d === latent.d ? Number(input.value) : each))));
  find("sliders").append(row);
  return { input, output };
});

const attributes = data.attributes.map((attribute) => {
  const row = document.createElement("label");
  row.className = "attribute";
  row.innerHTML = '<span></span><input type="range" min="0" step="1"><output></output>';
  row.firstChild.textContent = attribute.name;
  const [input, output] = [row.querySelector("input"), row.querySelector("output")];
  input.max = attribute.c.length - 1;
  input.addEventListener("input", () => {
    const to = Float32Array.from(c);
    attribute.places.forEach((place, i) => { to[place] = attribute.c[input.value][i]; });
    move(z, to);
  });
  find("attributes").append(row);
  return { attribute, input, output };
});

const buttons = (data.contexts || []).map((context, k) => {
  const button = document.createElement("button");
  button.textContent = k;
  button.style.borderBottomColor = colourOf(k, data.contexts.length);
  button.addEventListener("click", () => move(z, context));
  find("classes").append(button);
  return button;
});

if (draws.length) {
  find("random").addEventListener("click", () => {
    const k = draws.length > 1 ? Math.max(buttons.findIndex((each) => each.getAttribute("aria-pressed") === "true"), 0) : 0;
    move(draws[k][Math.floor(Math.random() * draws[k].length)]);
  });
}
find("centre").addEventListener("click", () => move(data.start));

// The plane, of more than one latent.
const unit = (d) => Float32Array.from({ length: size }, (_, k) => (k === d ? 1 : 0));
const axes = [
  ...latents.map(({ d, low, high }) => ({ name: `z${d}`, vector: unit(d), low, high })),
  ...data.axes.map(({ name, vector }) => ({ name, vector: Float32Array.from(vector) })),
];
find("planar").hidden = size < 2;
const plane = size < 2 ? null : new Plane(find("plane"), {
  axes, codes, labels: data.codes.y, size: [width, height], paint: (each) => picture(at(each)), moved: (to) => move(to),
});
if (plane) {
  const chosen = ["across", "up"].map(find);
  chosen.forEach((select, side) => {
    axes.forEach(({ name }, k) => select.add(new Option(name, k)));
    select.value = size > 2 && size > latents.filter((each) => !each.dead).length && side ? 1 : side;
    select.addEventListener("change", () => {
      const other = chosen[1 - side];
      if (other.value === select.value) other.value = plane.picked[side];
      plane.pick(...chosen.map((each) => Number(each.value)));
      move(z);
    });
  });
  plane.pick(0, 1);
  for (const what of ["mosaic", "points"]) {
    find(what).addEventListener("change", (event) => {
      plane[what] = event.target.checked;
      move(z);
    });
  }
  new ResizeObserver(() => plane.z && plane.draw()).observe(find("plane"));
}

const classes = [...new Set(data.codes.y)].filter((y) => y >= 0).sort((a, b) => a - b);
if (classes.length <= 10) {
  for (const y of classes) {
    const entry = document.createElement("span");
    entry.textContent = y;
    entry.style.setProperty("--c", colourOf(y, classes.at(-1) + 1));
    find("legend").append(entry);
  }
}

// From image to image.
const thumbs = examples.map(({ y }, k) => {
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  put(canvas, exampleImage(k));
  button.append(canvas);
  button.title = y < 0 ? `image ${k}` : `y = ${y}`;
  button.setAttribute("aria-label", button.title);
  button.addEventListener("click", () => {
    setEnds([ends[1], k]);
    travel(1);
  });
  find("strip").append(button);
  return button;
});

function setEnds(both) {
  ends = both;
  ["from", "to"].forEach((id, side) => {
    put(find(id), exampleImage(ends[side]));
    const { y } = examples[ends[side]];
    find(`${id}-label`).textContent = y < 0 ? "" : `y = ${y}`;
  });
  thumbs.forEach((thumb, k) => thumb.classList.toggle("is-end", ends.includes(k)));
}

function travel(share) {
  find("share").value = share;
  const [a, b] = ends.map((k) => examples[k]);
  const mix = (from, to) => from.map((each, i) => (1 - share) * each + share * to[i]);
  move(mix(a.z, b.z), a.c && mix(a.c, b.c));
}

find("share").addEventListener("input", (event) => travel(Number(event.target.value)));
find("play").addEventListener("click", () => {
  isPlaying = !isPlaying;
  find("play").setAttribute("aria-pressed", isPlaying);
  const start = performance.now() - Math.acos(1 - 2 * Number(find("share").value)) * (2000 / Math.PI);
  const step = (now) => {
    if (!isPlaying) return;
    travel((1 - Math.cos(((now - start) * Math.PI) / 2000)) / 2);
    requestAnimationFrame(step);
  };
  if (isPlaying) requestAnimationFrame(step);
});

// How long a picture takes, which says how many stand in the plane.
const times = Array.from({ length: 5 }, () => {
  const before = performance.now();
  at(z);
  return performance.now() - before;
}).sort((a, b) => a - b);
const cost = Math.max(times[0], 0.1);
find("speed").textContent = `A picture takes ${cost < 10 ? cost.toFixed(1) : Math.round(cost)} ms.`;
if (plane) {
  plane.side = Math.min(Math.max(Math.floor(Math.sqrt(500 / cost)), 4), size === 2 ? 16 : 12);
  plane.mosaic = find("mosaic").checked = cost < 20;
}
setEnds(ends);
travel(0);
