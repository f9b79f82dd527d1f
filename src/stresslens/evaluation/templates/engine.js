"use strict";
// Computes a flat graph (evaluation/flat_graph.py) on one image: no page is needed for it.
const engine = (() => {
  const size = sides => sides.reduce((product, side) => product * side, 1);

  function erf(x) { // Abramowitz & Stegun 7.1.26, error below 1.5e-7
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-x * x);
    return x < 0 ? tail - 1 : 1 - tail;
  }
  const sigmoid = x => 1 / (1 + Math.exp(-x));
  const MAPS = {
    clamp: (low, high) => x => low !== null && x < low ? low : high !== null && x > high ? high : x,
    leaky: slope => x => x > 0 ? x : slope * x,
    elu: (alpha, scale, rate) => x => scale * (x > 0 ? x : alpha * Math.expm1(rate * x)),
    gelu: () => x => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
    gelu_tanh: () => x => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
    sigmoid: () => sigmoid,
    tanh: () => Math.tanh,
    silu: () => x => x * sigmoid(x),
    hardswish: () => x => x * Math.min(Math.max(x + 3, 0), 6) / 6,
    hardsigmoid: () => x => Math.min(Math.max(x + 3, 0), 6) / 6,
    softplus: (beta, threshold) => x => x * beta > threshold ? x : Math.log1p(Math.exp(x * beta)) / beta,
    exp: () => Math.exp,
    log: () => Math.log,
    abs: () => Math.abs,
    scale: factor => x => factor * x,
    power: exponent => exponent === -0.5 ? x => 1 / Math.sqrt(x) : x => x ** exponent,
  };
  const TWO = {
    add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b,
    max: Math.max, min: Math.min,
  };

  // out (rows, n) = bias + weight (rows, k) · columns (k, n); four columns of the weight at a time.
  function multiply(out, start, weight, first, bias, columns, rows, k, n) {
    for (let row = 0; row < rows; row++) {
      const at = start + row * n, w = first + row * k;
      out.fill(bias ? bias[row] : 0, at, at + n);
      let j = 0;
      for (; j + 3 < k; j += 4) {
        const a = weight[w + j], b = weight[w + j + 1], c = weight[w + j + 2], d = weight[w + j + 3];
        const p = j * n, q = p + n, r = q + n, s = r + n;
        for (let i = 0; i < n; i++) {
          out[at + i] += a * columns[p + i] + b * columns[q + i] + c * columns[r + i] + d * columns[s + i];
        }
      }
      for (; j < k; j++) {
        const a = weight[w + j], p = j * n;
        for (let i = 0; i < n; i++) out[at + i] += a * columns[p + i];
      }
    }
  }

  // The patches of channels [first, first + count) as columns (count·kh·kw, oh·ow).
  function unfold(columns, x, first, count, height, width, step) {
    const [, oh, ow] = step.sides, [kh, kw] = step.kernel, [sh, sw] = step.stride;
    const [ph, pw] = step.padding, [dh, dw] = step.dilation;
    let at = 0;
    for (let c = first; c < first + count; c++) {
      for (let i = 0; i < kh; i++) {
        for (let j = 0; j < kw; j++) {
          for (let row = 0; row < oh; row++) {
            const y = row * sh - ph + i * dh, from = (c * height + y) * width;
            if (y < 0 || y >= height) {
              columns.fill(0, at, at + ow);
              at += ow;
              continue;
            }
            for (let column = 0, z = j * dw - pw; column < ow; column++, z += sw) {
              columns[at++] = z < 0 || z >= width ? 0 : x[from + z];
            }
          }
        }
      }
    }
  }

  const KINDS = {
    conv(step, [x], [[channels, height, width]]) {
      const { groups, out } = step, [filters, oh, ow] = step.sides;
      const count = channels / groups, rows = filters / groups, k = count * step.kernel[0] * step.kernel[1];
      step.columns ??= new Float32Array(k * oh * ow);
      for (let g = 0; g < groups; g++) {
        unfold(step.columns, x, g * count, count, height, width, step);
        const bias = step.bias && step.bias.subarray(g * rows, (g + 1) * rows);
        multiply(out, g * rows * oh * ow, step.weight, g * rows * k, bias, step.columns, rows, k, oh * ow);
      }
    },
    linear(step, [x], [sides]) {
      const { out, weight, bias } = step, k = sides[sides.length - 1], outputs = step.sides[step.sides.length - 1];
      for (let row = 0; row * k < x.length; row++) {
        for (let o = 0; o < outputs; o++) {
          let sum = bias ? bias[o] : 0;
          for (let j = 0, w = o * k, i = row * k; j < k; j++) sum += weight[w++] * x[i++];
          out[row * outputs + o] = sum;
        }
      }
    },
    maxpool(step, [x], [[, height, width]]) {
      const [channels, oh, ow] = step.sides, [kh, kw] = step.kernel, [sh, sw] = step.stride;
      const [ph, pw] = step.padding, [dh, dw] = step.dilation;
      let at = 0;
      for (let c = 0; c < channels; c++) {
        for (let row = 0; row < oh; row++) {
          for (let column = 0; column < ow; column++) {
            let highest = -Infinity;
            for (let i = 0, y = row * sh - ph; i < kh; i++, y += dh) {
              if (y < 0 || y >= height) continue;
              for (let j = 0, z = column * sw - pw; j < kw; j++, z += dw) {
                if (z < 0 || z >= width) continue;
                const value = x[(c * height + y) * width + z];
                if (value > highest) highest = value;
              }
            }
            step.out[at++] = highest;
          }
        }
      }
    },
    separable(step, [x], [[, height, width]]) {
      const [channels, oh, ow] = step.sides, middle = step.middle ??= new Float64Array(oh * width);
      const rows = step.spans ??= [spans(step.rows, oh, height), spans(step.columns, ow, width)];
      let at = 0;
      for (let c = 0; c < channels; c++) {
        middle.fill(0);
        for (let o = 0; o < oh; o++) {
          for (let i = rows[0][o][0]; i < rows[0][o][1]; i++) {
            const a = step.rows[o * height + i], from = (c * height + i) * width;
            for (let z = 0; z < width; z++) middle[o * width + z] += a * x[from + z];
          }
        }
        for (let o = 0; o < oh; o++) {
          for (let p = 0; p < ow; p++) {
            let sum = 0;
            for (let z = rows[1][p][0]; z < rows[1][p][1]; z++) sum += step.columns[p * width + z] * middle[o * width + z];
            step.out[at++] = sum;
          }
        }
      }
    },
    map(step, [x]) {
      const f = step.f ??= MAPS[step.name](...step.numbers);
      for (let i = 0; i < x.length; i++) step.out[i] = f(x[i]);
    },
    two(step, [a, b], sides) {
      const f = TWO[step.name], n = step.out.length;
      const [p, q] = step.places ??= sides.map(each => places(each, step.sides));
      for (let i = 0; i < n; i++) step.out[i] = f(a[p ? p[i] : i], b[q ? q[i] : i]);
    },
    reduce(step, [x], [sides]) {
      const n = sides[step.axis], inner = size(sides.slice(step.axis + 1)), { name, out } = step;
      for (let o = 0; o < out.length; o++) {
        let total = name === "max" ? -Infinity : 0;
        for (let k = 0, i = Math.floor(o / inner) * n * inner + o % inner; k < n; k++, i += inner) {
          total = name === "max" ? Math.max(total, x[i]) : total + x[i];
        }
        out[o] = name === "mean" ? total / n : total;
      }
    },
    cat(step, values, sides) {
      const whole = size(step.sides.slice(step.axis));
      let start = 0;
      values.forEach((x, k) => {
        const part = size(sides[k].slice(step.axis));
        for (let i = 0, at = start; i < x.length; i += part, at += whole) step.out.set(x.subarray(i, i + part), at);
        start += part;
      });
    },
    gather(step, [x]) {
      if (!step.index) step.out.set(x);
      else for (let i = 0; i < step.out.length; i++) step.out[i] = step.index[i] < 0 ? step.fill : x[step.index[i]];
    },
  };

  // For each row of a matrix (rows, n) the first and the end of its values that are not 0.
  function spans(matrix, rows, n) {
    return Array.from({ length: rows }, (_, row) => {
      let first = 0, end = n;
      while (first < n && !matrix[row * n + first]) first++;
      while (end > first && !matrix[row * n + end - 1]) end--;
      return [first, end];
    });
  }

  // Where each value of an array with sides `to` is in one with sides `from`; null if they are equal.
  function places(from, to) {
    if (String(from) === String(to)) return null;
    return Int32Array.from({ length: size(to) }, (_, i) => {
      let place = 0, stride = 1;
      for (let axis = to.length - 1; axis >= 0; axis--) {
        if (from[axis] > 1) place += i % to[axis] * stride;
        i = Math.floor(i / to[axis]);
        stride *= from[axis];
      }
      return place;
    });
  }

  const ARRAYS = { weight: Float32Array, bias: Float32Array, values: Float32Array, rows: Float32Array, columns: Float32Array, index: Int32Array };

  function bytes(text) {
    const found = atob(text), result = new Uint8Array(found.length);
    for (let i = 0; i < found.length; i++) result[i] = found.charCodeAt(i);
    return result;
  }

  // A function of an image, Float32Array (C·H·W) in [0, 1], to its logits, of steps and of base64 text.
  function load(steps, text) {
    const { buffer } = bytes(text);
    const ready = steps.map(step => {
      const own = { ...step, out: step.kind === "image" ? null : new Float32Array(size(step.sides)) };
      for (const [name, Kind] of Object.entries(ARRAYS)) {
        if (step[name]) own[name] = new Kind(buffer, 4 * step[name][0], step[name][1]);
      }
      if (own.kind === "constant") own.out = own.values;
      return own;
    });
    return image => {
      ready[steps.findIndex(step => step.kind === "image")].out = image;
      for (const step of ready) {
        if (step.kind === "image" || step.kind === "constant") continue;
        const of = step.of.map(k => ready[k]);
        KINDS[step.kind](step, of.map(each => each.out), of.map(each => each.sides));
      }
      return ready[ready.length - 1].out;
    };
  }

  function softmax(logits, temperature) {
    const highest = Math.max(...logits);
    const odds = Array.from(logits, logit => Math.exp((logit - highest) / temperature));
    const sum = odds.reduce((a, b) => a + b, 0);
    return odds.map(odd => odd / sum);
  }

  // What a window does that covers the image around every `stride`-th pixel, as `stresslens explain` does it:
  // (top, bottom, left, right) of each window.
  function windows(height, width, stride, high, wide) {
    const found = [];
    for (let y = Math.floor((stride - 1) / 2); y - Math.floor((stride - 1) / 2) < height; y += stride) {
      for (let x = Math.floor((stride - 1) / 2); x - Math.floor((stride - 1) / 2) < width; x += stride) {
        const top = y - Math.floor((high - 1) / 2), left = x - Math.floor((wide - 1) / 2);
        found.push([Math.max(top, 0), Math.min(top + high, height), Math.max(left, 0), Math.min(left + wide, width)]);
      }
    }
    return found;
  }

  function covered(image, [channels, height, width], [top, bottom, left, right], fill) {
    const result = image.slice();
    for (let c = 0; c < channels; c++) {
      for (let y = top; y < bottom; y++) result.fill(fill, (c * height + y) * width + left, (c * height + y) * width + right);
    }
    return result;
  }

  return { load, bytes, softmax, windows, covered };
})();
