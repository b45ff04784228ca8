// What a number is made of. Every function gives {value, stored, size, ...}: the number done again in float64, what the
// network has, and the sum of the terms' sizes, to which rounding is proportional. Nothing here touches the document.

const ROUNDING = 8 * 2 ** -24;

/** The arithmetic behind number `at` of layer k. */
async function arithmetic(net, k, at) {
  const layer = net.layers[k];
  const [stored, x] = await Promise.all([net.values(k), k ? net.values(k - 1) : null]);
  const made = await BY_KIND[layer.kind](net, k, at, x);
  return {...made, stored: stored[ravel(at, layer.shape)]};
}

const BY_KIND = {
  async input(net, k, [c, i, j]) {
    const [C, , W] = net.layers[0].shape;
    const {scale, mean, std, order} = net.recipe;
    const byte = (await tensor(net.pixels))[(i * W + j) * C + order[c]];
    const value = (byte / scale - mean[c]) / std[c];
    return {byte, value, size: Math.abs(byte / scale / std[c]) + Math.abs(mean[c] / std[c])};
  },

  async conv(net, k, [f, i, j], x) {
    const layer = net.layers[k];
    const [CG, KH, KW] = layer.kernel.slice(1);
    const [weight, bias] = await Promise.all([tensor(layer.weight), tensor(layer.bias)]);
    const first = Math.floor(f / (layer.shape[0] / layer.groups)) * CG; // map of its group
    const window = {first, count: CG, rows: taps(layer.rows[i]), columns: taps(layer.columns[j])};
    const filter = weight.subarray(f * CG * KH * KW, (f + 1) * CG * KH * KW);
    return weightedSum(products(x, net.layers[k - 1].shape, window, filter), bias[f]);
  },

  async dense(net, k, [u], x) {
    const layer = net.layers[k];
    const {count} = layer.largest;
    const n = layer.inputs;
    const [at, weight, rest, sizes, bias] = await Promise.all(
      [layer.largest.at, layer.largest.weight, layer.rest, layer.sizes, layer.bias].map(tensor),
    );
    const terms = [];
    let total = 0;
    for (let t = u * count; t < (u + 1) * count; t++) {
      terms.push({at: [at[t]], x: x[at[t]], weight: weight[t], value: x[at[t]] * weight[t]});
      total += terms.at(-1).value;
    }
    const made = {
      terms,
      others: n - count,
      rest: rest[u],
      bias: bias[u],
      value: total + rest[u] + bias[u],
      total: total + rest[u],
      size: sizes[u] + Math.abs(bias[u]),
      count: n,
    };
    const row = layer.whole.units.indexOf(u);
    if (row < 0) return made;
    const whole = (await tensor(layer.whole.weight)).subarray(row * n, (row + 1) * n);
    const [origin] = net.origin(k - 1, [0]);
    const {shape} = net.layers[origin];
    const [C, H, W] = shape.length === 3 && shape[0] * shape[1] * shape[2] === n ? shape : [1, ...folded(n)];
    const window = {first: 0, count: C, rows: taps([0, H, 1]), columns: taps([0, W, 1])};
    return {...made, ...weightedSum(products(x, [C, H, W], window, whole), bias[u])};
  },

  async max(net, k, [c, i, j], x) {
    const {window, cells} = pixels(net, k, c, i, j, x);
    const inner = cells.filter(cell => cell.inside);
    const winner = inner.find(cell => cell.x !== cell.x) ?? inner.reduce((a, b) => (b.x > a.x ? b : a));
    return {
      window,
      cells,
      winner,
      ties: inner.filter(cell => cell.x === winner.x).length,
      value: winner.x,
      size: Math.abs(winner.x),
    };
  },

  async avg(net, k, [c, i, j], x) {
    const {window, cells} = pixels(net, k, c, i, j, x);
    const inner = cells.filter(cell => cell.inside);
    const sum = values => values.reduce((a, b) => a + b, 0);
    const total = sum(inner.map(cell => cell.x));
    const divisor = net.layers[k].divisors?.[i][j] ?? inner.length;
    return {
      window,
      cells,
      count: inner.length,
      divisor,
      total,
      value: total / divisor,
      size: Math.abs(sum(inner.map(cell => Math.abs(cell.x))) / divisor),
    };
  },

  async lrn(net, k, at, x) {
    const {shape, window} = net.layers[k];
    const {scale, beta, k: constant} = window;
    const terms = neighbours(window, shape, at).map(place => ({at: place, x: x[ravel(place, shape)]}));
    for (const term of terms) term.value = term.x * term.x;
    const squares = terms.reduce((sum, term) => sum + term.value, 0);
    const own = x[ravel(at, shape)];
    const base = constant + scale * squares;
    const power = base ** beta;
    const value = own / power;
    return {terms, own, squares, base, power, value, size: Math.abs(value)};
  },

  async softmax(net, k, [u], x) {
    const largest = x.reduce((a, b) => Math.max(a, b), -Infinity);
    const terms = Array.from(x, (v, n) => ({at: [n], x: v, value: Math.exp(v - largest)}));
    const denominator = terms.reduce((sum, term) => sum + term.value, 0);
    const own = terms[u].value;
    const value = own / denominator;
    terms.sort((a, b) => b.value - a.value);
    return {terms, largest, own, x: x[u], denominator, value, size: value * (1 + largest - x[u])};
  },

  relu: each(x => (x > 0 || x !== x ? x : 0)),
  tanh: each(Math.tanh),
  sigmoid: each(x => 1 / (1 + Math.exp(-x))),
  dropout: each(x => x),
  flatten: each(x => x),
  same: each(x => x),
};

/** Of a layer that makes each number from one. */
function each(made) {
  return async (net, k, at, x) => {
    const {shape} = net.layers[k - 1];
    const from = ravel(at, net.layers[k].shape);
    const value = made(x[from]);
    return {x: x[from], from: shape.length === at.length ? at : unravel(from, shape), value, size: Math.abs(value)};
  };
}

/** The places that the normalisation of `at` looks at: across the maps of its group, or within its map. */
function neighbours({low, high, groups = 1, region = 'across'}, [C, H, W], [c, i, j]) {
  const near = (at, first, end) => {
    const from = Math.max(first, at - low);
    return Array.from({length: Math.min(end, at + high + 1) - from}, (_, n) => from + n);
  };
  if (region === 'within') return near(i, 0, H).flatMap(row => near(j, 0, W).map(column => [c, row, column]));
  const first = Math.floor(c / (C / groups)) * (C / groups);
  return near(c, first, first + C / groups).map(map => [map, i, j]);
}

/** The pixels under a pooling window. */
function pixels(net, k, c, i, j, x) {
  const layer = net.layers[k];
  const [, H, W] = net.layers[k - 1].shape;
  const window = {rows: taps(layer.rows[i]), columns: taps(layer.columns[j])};
  const cells = [];
  for (const r of window.rows)
    for (const s of window.columns) {
      const within = r >= 0 && s >= 0 && r < H && s < W;
      cells.push({at: [c, r, s], inside: within, x: within ? x[(c * H + r) * W + s] : 0});
    }
  return {window, cells};
}

/** Patch x filter = products, map by map of a window; what lies in the padding is marked, and 0. */
function products(x, [, H, W], window, filter) {
  const {first, count, rows, columns} = window;
  const K = rows.length * columns.length;
  const made = {
    window,
    filter,
    patch: new Float32Array(count * K),
    products: new Float64Array(count * K),
    padding: new Uint8Array(K),
    sums: new Float64Array(count),
    total: 0,
    size: 0,
  };
  for (let c = 0, n = 0; c < count; c++)
    for (const r of rows)
      for (const s of columns) {
        if (n >= filter.length) break; // a folded row may not fill its last line
        const within = r >= 0 && s >= 0 && r < H && s < W;
        if (within) made.patch[n] = x[((first + c) * H + r) * W + s];
        else made.padding[n % K] = 1;
        const product = (made.products[n] = made.patch[n] * filter[n]);
        made.sums[c] += product;
        made.size += Math.abs(product);
        n++;
      }
  for (const sum of made.sums) made.total += sum;
  return made;
}

function weightedSum(parts, bias) {
  return {
    parts,
    bias,
    count: parts.filter.length,
    total: parts.total,
    value: parts.total + bias,
    size: parts.size + Math.abs(bias),
  };
}

/** A row of n numbers as a nearly square picture, or as it is where it is short: [height, width]. */
function folded(n) {
  const width = n <= 16 ? n : Math.ceil(Math.sqrt(n));
  return [Math.ceil(n / width), width];
}
