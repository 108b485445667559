"use strict";
// A network as network.py describes it: steps on arrays of numbers, each of which writes into an array of its own.

/** The numbers that a text holds as bytes, little end first, of 8, 16 or 32 bits. */
function unpacked(text, bits) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  if (bits === 8) return bytes;
  if (bits === 32) return new Float32Array(bytes.buffer);
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const half = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const exponent = (half >> 10) & 31, fraction = half & 1023;
    const size = exponent === 31 ? (fraction ? NaN : Infinity)
      : exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    numbers[i] = half & 0x8000 ? -size : size;
  }
  return numbers;
}

/** The error function, to 1e-7 (Abramowitz and Stegun, 1964, 7.1.26 has 1.5e-7; a series where it is small). */
function erf(x) {
  const size = Math.abs(x);
  if (size < 1.5) {
    let term = size, sum = size;
    for (let n = 1; n < 24; n++) {
      term *= -size * size / n;
      sum += term / (2 * n + 1);
    }
    return Math.sign(x) * 2 / Math.sqrt(Math.PI) * sum;
  }
  const t = 1 / (1 + 0.3275911 * size);
  const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - tail * Math.exp(-size * size));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x, beta = 1, threshold = 20) => (x * beta > threshold ? x : Math.log1p(Math.exp(x * beta)) / beta);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

const EACH = {
  sigmoid, softplus, relu: (x) => (x > 0 ? x : 0), tanh: Math.tanh, exp: Math.exp, expm1: Math.expm1, log: Math.log,
  log1p: Math.log1p, sqrt: Math.sqrt, abs: Math.abs, neg: (x) => -x, reciprocal: (x) => 1 / x, pow: (x, p) => x ** p,
  silu: (x) => x * sigmoid(x), gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  elu: (x, alpha = 1, scale = 1) => scale * (x > 0 ? x : alpha * Math.expm1(x)),
  celu: (x, alpha = 1) => (x > 0 ? x : alpha * Math.expm1(x / alpha)),
  selu: (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  leaky_relu: (x, slope = 0.01) => (x > 0 ? x : slope * x), softsign: (x) => x / (1 + Math.abs(x)),
  mish: (x) => x * Math.tanh(softplus(x)), hardtanh: (x, low = -1, high = 1) => clamp(x, low, high),
  relu6: (x) => clamp(x, 0, 6), hardsigmoid: (x) => clamp(x / 6 + 0.5, 0, 1),
  hardswish: (x) => x * clamp(x / 6 + 0.5, 0, 1), log_sigmoid: (x) => -softplus(-x),
};

const BETWEEN = {
  add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b,
  maximum: (a, b) => Math.max(a, b), minimum: (a, b) => Math.min(a, b), lt: (a, b) => +(a < b), gt: (a, b) => +(a > b),
  where: (is, a, b) => (is ? a : b),
};

/** The product of the row of x and the row of weights that give number k, of `fan` numbers each. */
function dot(x, weight, fan, k) {
  const width = weight.length / fan, from = Math.floor(k / width) * fan, at = (k % width) * fan;
  let a = 0, b = 0, c = 0, d = 0, j = 0;
  for (; j + 3 < fan; j += 4) {
    a += weight[at + j] * x[from + j];
    b += weight[at + j + 1] * x[from + j + 1];
    c += weight[at + j + 2] * x[from + j + 2];
    d += weight[at + j + 3] * x[from + j + 3];
  }
  for (; j < fan; j++) a += weight[at + j] * x[from + j];
  return a + b + c + d;
}

/** out[row, column] = the product of a row of `a` and one of `b`, of `depth` numbers each, plus what was there.
 *
 * Four rows and two columns at a time, so that a number that is read is used several times; beyond the end it is the last
 * row or column again, which is not written. */
function product(a, b, out, depth) {
  const rows = a.length / depth, columns = b.length / depth;
  for (let row = 0; row < rows; row += 4) {
    const [p, q, r, s] = [0, 1, 2, 3].map((k) => Math.min(row + k, rows - 1) * depth);
    for (let column = 0; column < columns; column += 2) {
      const t = column * depth, u = Math.min(column + 1, columns - 1) * depth;
      let pt = 0, pu = 0, qt = 0, qu = 0, rt = 0, ru = 0, st = 0, su = 0;
      for (let k = 0; k < depth; k++) {
        const x = b[t + k], y = b[u + k], ap = a[p + k], aq = a[q + k], ar = a[r + k], as = a[s + k];
        pt += ap * x;
        pu += ap * y;
        qt += aq * x;
        qu += aq * y;
        rt += ar * x;
        ru += ar * y;
        st += as * x;
        su += as * y;
      }
      const both = column + 1 < columns, at = row * columns + column;
      out[at] += pt;
      if (both) out[at + 1] += pu;
      if (row + 1 < rows) out[at + columns] += qt;
      if (row + 1 < rows && both) out[at + columns + 1] += qu;
      if (row + 2 < rows) out[at + 2 * columns] += rt;
      if (row + 2 < rows && both) out[at + 2 * columns + 1] += ru;
      if (row + 3 < rows) out[at + 3 * columns] += st;
      if (row + 3 < rows && both) out[at + 3 * columns + 1] += su;
    }
  }
}

/** For each place of a kernel: where it reads or writes in a map of `width` columns, -1 outside, and where it lies. */
function places(large, small, kernel, stride, padding) {
  const found = [];
  for (let y = 0; y < small[0]; y++) {
    for (let x = 0; x < small[1]; x++) {
      for (let i = 0; i < kernel[0]; i++) {
        for (let j = 0; j < kernel[1]; j++) {
          const row = y * stride[0] + i - padding[0], column = x * stride[1] + j - padding[1];
          const isInside = row >= 0 && row < large[0] && column >= 0 && column < large[1];
          found.push(isInside ? row * large[1] + column : -1);
        }
      }
    }
  }
  return Int32Array.from(found); // pixels of the small map, by places of the kernel
}

const STEPS = {
  linear([x, weight, bias], out) {
    const fan = weight.length / bias.length;
    return () => {
      for (let k = 0; k < out.length; k++) out[k] = bias[k % bias.length] + dot(x, weight, fan, k);
    };
  },

  conv([x, weight, bias], out, { of: [channels, height, width], kernel, stride, padding, shape: [, maps, rows, columns] }) {
    const place = places([height, width], [rows, columns], kernel, stride, padding);
    const taps = kernel[0] * kernel[1], pixels = rows * columns, patches = new Float32Array(pixels * channels * taps);
    return () => {
      for (let pixel = 0; pixel < pixels; pixel++) {
        for (let channel = 0; channel < channels; channel++) {
          const to = (pixel * channels + channel) * taps, from = channel * height * width;
          for (let tap = 0; tap < taps; tap++) {
            const at = place[pixel * taps + tap];
            patches[to + tap] = at < 0 ? 0 : x[from + at];
          }
        }
      }
      for (let i = 0; i < out.length; i++) out[i] = bias[Math.floor(i / pixels)];
      product(weight, patches, out, channels * taps);
    };
  },

  conv_transpose([x, weight, bias], out, { of: [channels, height, width], kernel, stride, padding, shape: [, maps, rows, columns] }) {
    const place = places([rows, columns], [height, width], kernel, stride, padding);
    const taps = kernel[0] * kernel[1], pixels = height * width, each = maps * taps;
    const turned = new Float32Array(weight.length), columnsOfX = new Float32Array(x.length);
    for (let channel = 0; channel < channels; channel++) {
      for (let k = 0; k < each; k++) turned[k * channels + channel] = weight[channel * each + k];
    }
    const spread = new Float32Array(each * pixels);
    return () => {
      for (let channel = 0; channel < channels; channel++) {
        for (let pixel = 0; pixel < pixels; pixel++) columnsOfX[pixel * channels + channel] = x[channel * pixels + pixel];
      }
      spread.fill(0);
      product(turned, columnsOfX, spread, channels);
      for (let i = 0; i < out.length; i++) out[i] = bias[Math.floor(i / (rows * columns))];
      for (let map = 0; map < maps; map++) {
        for (let tap = 0; tap < taps; tap++) {
          for (let pixel = 0; pixel < pixels; pixel++) {
            const at = place[pixel * taps + tap];
            if (at >= 0) out[map * rows * columns + at] += spread[(map * taps + tap) * pixels + pixel];
          }
        }
      }
    };
  },

  upsample([x], out, { of: [channels, height, width], shape: [, , rows, columns] }) {
    return () => {
      for (let channel = 0; channel < channels; channel++) {
        for (let row = 0; row < rows; row++) {
          const from = (channel * height + Math.floor((row * height) / rows)) * width, to = (channel * rows + row) * columns;
          for (let column = 0; column < columns; column++) out[to + column] = x[from + Math.floor((column * width) / columns)];
        }
      }
    };
  },

  norm([x], out, { groups, eps }) {
    return () => {
      const size = x.length / groups;
      for (let group = 0; group < groups; group++) {
        let mean = 0, variance = 0;
        for (let i = group * size; i < (group + 1) * size; i++) mean += x[i] / size;
        for (let i = group * size; i < (group + 1) * size; i++) variance += (x[i] - mean) ** 2 / size;
        const factor = 1 / Math.sqrt(variance + eps);
        for (let i = group * size; i < (group + 1) * size; i++) out[i] = (x[i] - mean) * factor;
      }
    };
  },

  scale([x, factor, shift], out, { inner }) {
    return () => {
      for (let i = 0; i < out.length; i++) {
        const k = Math.floor(i / inner) % factor.length;
        out[i] = x[i] * factor[k] + shift[k];
      }
    };
  },

  slice([x], out, { start, length, every }) {
    return () => {
      for (let row = 0; row * length < out.length; row++) {
        for (let i = 0; i < length; i++) out[row * length + i] = x[row * every + start + i];
      }
    };
  },

  cat(parts, out, { lengths }) {
    return () => {
      const total = lengths.reduce((sum, length) => sum + length, 0);
      parts.forEach((part, place) => {
        const before = lengths.slice(0, place).reduce((sum, length) => sum + length, 0);
        for (let i = 0; i < part.length; i++) {
          out[Math.floor(i / lengths[place]) * total + before + (i % lengths[place])] = part[i];
        }
      });
    };
  },

  expand([x], out, { of, shape }) {
    return () => {
      for (let i = 0; i < out.length; i++) {
        let rest = i, at = 0, step = 1;
        for (let dim = shape.length - 1; dim >= 0; dim--) {
          if (of[dim] > 1) at += (rest % shape[dim]) * step;
          step *= of[dim];
          rest = Math.floor(rest / shape[dim]);
        }
        out[i] = x[at];
      }
    };
  },
};

/** What the steps compute: a function of as many arrays as there are inputs. Its result is overwritten by the next call. */
function network({ steps, weights, bits }) {
  const constants = unpacked(weights, bits);
  const arrays = steps.map((step) => {
    if (step.op === "weights") return constants.subarray(step.at, step.at + step.size);
    return new Float32Array(step.shape.reduce((product, side) => product * side, 1));
  });
  const inputs = arrays.filter((_, place) => steps[place].op === "input");
  const work = [];
  steps.forEach((step, place) => {
    const out = arrays[place], reads = step.reads.map((each) => arrays[each]);
    if (step.op in STEPS) work.push(STEPS[step.op](reads, out, step));
    if (step.op in EACH) work.push(each(EACH[step.op], step.args, reads[0], out));
    if (step.op in BETWEEN) work.push(between(BETWEEN[step.op], reads, out));
  });
  return (...given) => {
    inputs.forEach((input, place) => input.set(given[place]));
    for (const step of work) step();
    return arrays.at(-1);
  };
}

function each(f, args, x, out) {
  if (f === EACH.relu) return () => { for (let i = 0; i < out.length; i++) out[i] = x[i] > 0 ? x[i] : 0; };
  return () => { for (let i = 0; i < out.length; i++) out[i] = f(x[i], ...args); };
}

function between(f, reads, out) {
  const [a, b, c = b] = reads;
  const [i1, i2, i3] = [a, b, c].map((array) => (array.length === 1 ? 0 : 1));
  return () => { for (let i = 0; i < out.length; i++) out[i] = f(a[i * i1], b[i * i2], c[i * i3]); };
}
