'use strict';
// The arrays of the page, and every layer's values: kept, or done again exactly as the network does them.

const $ = id => document.getElementById(id);
const ARRAYS = {f4: Float32Array, f8: Float64Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array};
const decoded = new Map();

/** An array of the page by its name: a promise, kept; decoded when it is first asked for. */
function tensor(id) {
  if (!decoded.has(id)) decoded.set(id, decode(id));
  return decoded.get(id);
}

/** base64, then gzip, then the bytes of equal significance, which lie together, put back into numbers. */
async function decode(id) {
  const {
    textContent: text,
    dataset: {type},
  } = $(id);
  const Kind = ARRAYS[type];
  const packed = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), c => c.charCodeAt(0));
  $(id).remove();
  const gunzip = new DecompressionStream('gzip');
  const writer = gunzip.writable.getWriter();
  writer.write(packed);
  writer.close();
  const bytes = new Uint8Array(await new Response(gunzip.readable).arrayBuffer());
  const size = Kind.BYTES_PER_ELEMENT;
  const count = bytes.length / size;
  const numbers = new Uint8Array(bytes.length);
  for (let k = 0; k < size; k++)
    for (let i = 0, from = k * count; i < count; i++) numbers[i * size + k] = bytes[from + i];
  return new Kind(numbers.buffer);
}

/** A network of the page with its layers; layer k takes what layer k - 1 gives. */
class Net {
  constructor(described) {
    Object.assign(this, described);
    this.known = [];
  }

  /** The values of layer k, as the network has them: a promise of a Float32Array. */
  values(k) {
    return (this.known[k] ??= this.layers[k].values ? tensor(this.layers[k].values) : this.again(k));
  }

  async again(k) {
    const layer = this.layers[k];
    if (layer.kind === 'input') return normalised(await tensor(this.pixels), layer.shape, this.recipe);
    const x = await this.values(k - 1);
    if (layer.kind === 'relu') return x.map(v => (v > 0 || v !== v ? v : 0));
    if (layer.kind === 'max') return maxima(x, this.layers[k - 1].shape, layer);
    return x; // it only hands on
  }

  /** Where a number of layer k is first made: past the layers that only hand on. Gives [k, index]. */
  origin(k, at) {
    while (this.layers[k].same) {
      const shape = this.layers[k - 1].shape;
      if (shape.length > at.length) at = unravel(at[0], shape);
      k--;
    }
    return [k, at];
  }

  /** What a number of layer k sees of the picture: [top, bottom, left, right], half-open. */
  sees(k, at) {
    const {maps, rows, columns} = this.layers[k].field;
    const [, i, j] = at.length === 3 ? at : unravel(at[0], maps);
    return [...rows[i], ...columns[j]];
  }
}

/** (bytes / scale - mean) / std in float32 arithmetic, (H,W,C) to (C,H,W). */
function normalised(bytes, [C, H, W], {scale, mean, std, order}) {
  const x = new Float32Array(C * H * W);
  const f = Math.fround;
  for (let c = 0; c < C; c++)
    for (let p = 0; p < H * W; p++)
      x[c * H * W + p] = f(f(bytes[p * C + order[c]] / f(scale)) - f(mean[c])) / f(std[c]);
  return x;
}

function maxima(x, [C, H, W], {shape: [, OH, OW], rows, columns}) {
  const y = new Float32Array(C * OH * OW);
  const [near, across] = [inside(rows, H), inside(columns, W)];
  for (let c = 0, o = 0; c < C; c++)
    for (let i = 0; i < OH; i++)
      for (let j = 0; j < OW; j++, o++) {
        let best = -Infinity;
        for (const r of near[i])
          for (const s of across[j]) {
            const v = x[(c * H + r) * W + s];
            if (v > best || v !== v) best = v;
          }
        y[o] = best;
      }
  return y;
}

/** The places of one window, padding and all: [first, how many, how far apart]. */
const taps = ([first, count, step]) => Array.from({length: count}, (_, t) => first + t * step);
const inside = (windows, size) => windows.map(w => taps(w).filter(t => t >= 0 && t < size));

/** A number's index from its place in the array, and back. */
const unravel = (n, [, H, W]) => [Math.floor(n / (H * W)), Math.floor(n / W) % H, n % W];
const ravel = (at, [, H, W]) => (at.length === 1 ? at[0] : (at[0] * H + at[1]) * W + at[2]);
