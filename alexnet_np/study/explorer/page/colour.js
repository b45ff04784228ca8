// Colours: from the page's background at 0, blue below and orange above, or one ramp for what has one sign; light and
// dark. Ramps are mixed in OKLab, so that equal steps of a number look alike.

const RAMPS = {
  light: {
    zero: '#ffffff',
    below: ['#74a9e4', '#08306b'],
    above: ['#f2994a', '#7a2300'],
    one: ['#d7b3e6', '#8e3b9e', '#2a0845'],
  },
  dark: {
    zero: '#191d23',
    below: ['#2f78c9', '#b5dbff'],
    above: ['#c8641b', '#ffd9ad'],
    one: ['#5a3789', '#c264c4', '#ffe6ad'],
  },
};
const NAN = '#e6007a';
const LINES = {
  // of what is drawn over the colours
  light: {ground: '#f3f1ec', hatch: '#a9a498', grid: '#00000022', mark: '#c2410c'},
  dark: {ground: '#23282f', hatch: '#6b7480', grid: '#ffffff22', mark: '#ff9d5c'},
};

const theme = () =>
  document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');

const linear = c => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const gamma = c => (c <= 0.0031308 ? c * 12.92 : 1.055 * c ** (1 / 2.4) - 0.055);

function toLab(hex) {
  const [r, g, b] = [1, 3, 5].map(i => linear(parseInt(hex.slice(i, i + 2), 16) / 255));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function toRGB([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map(c => Math.round(255 * Math.min(1, Math.max(0, gamma(c)))));
}

const STEPS = 256;
const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // a pixel as canvases keep it

/** The colours between the given ones, as pixels. */
function ramp(hexes) {
  const stops = hexes.map(toLab);
  const colours = new Uint32Array(STEPS);
  for (let i = 0; i < STEPS; i++) {
    const at = (i / (STEPS - 1)) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at));
    colours[i] = packed(toRGB(stops[k].map((from, c) => from + (stops[k + 1][c] - from) * (at - k))));
  }
  return colours;
}

const ramps = {};
for (const [name, {zero, below, above, one}] of Object.entries(RAMPS))
  ramps[name] = {below: ramp([zero, ...below]), above: ramp([zero, ...above]), one: ramp([zero, ...one])};

/** Numbers as colours: `signed` from -limit over 0 to limit, else from 0 to limit. */
class Scale {
  constructor(limit, signed) {
    Object.assign(this, {limit, signed});
    const {below, above, one} = ramps[theme()];
    this.below = below;
    this.above = signed ? above : one;
    this.factor = limit > 0 ? (STEPS - 1) / limit : 0;
    this.nan = packed([1, 3, 5].map(i => parseInt(NAN.slice(i, i + 2), 16)));
  }

  pixel(v) {
    if (v !== v) return this.nan;
    const step = Math.min(STEPS - 1, Math.round(Math.abs(v) * this.factor) || 0);
    return v < 0 ? (this.signed ? this.below[step] : this.above[0]) : this.above[step];
  }

  css(v) {
    const pixel = this.pixel(v);
    return `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;
  }

  /** What can be read on that colour. */
  ink(v) {
    const pixel = this.pixel(v);
    const [r, g, b] = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255].map(c => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? '#000' : '#fff';
  }
}

/** The largest size among n numbers from `start`. */
function largest(values, start = 0, n = values.length) {
  let limit = 0;
  for (let i = start; i < start + n; i++) {
    const size = Math.abs(values[i]);
    if (size > limit && size < Infinity) limit = size;
  }
  return limit;
}

/** h x w numbers from `start` as a canvas of so many pixels; CSS enlarges it. */
function paint(canvas, values, start, h, w, scale) {
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext('2d');
  const image = context.createImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  const n = Math.min(h * w, values.length - start);
  for (let i = 0; i < n; i++) pixels[i] = scale.pixel(values[start + i]);
  context.putImageData(image, 0, 0);
}

/** Cells large enough to see: coloured, hatched where `padding`, with the number in them where it fits. */
function drawCells(canvas, {h, w, side, value, padding, marked}, scale) {
  const ratio = Math.max(1, devicePixelRatio || 1);
  const context = canvas.getContext('2d');
  const px = Math.round(side * ratio);
  canvas.width = w * px;
  canvas.height = h * px;
  canvas.style.width = `${w * side}px`;
  canvas.style.height = `${h * side}px`;
  context.font = `${Math.min(13, side / 3.7) * ratio}px ui-monospace, monospace`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  for (let i = 0; i < h; i++)
    for (let j = 0; j < w; j++) {
      const n = i * w + j;
      const v = value(n);
      if (v === undefined) continue;
      if (padding?.(n)) {
        hatch(context, j * px, i * px, px, ratio);
        continue;
      }
      context.fillStyle = scale.css(v);
      context.fillRect(j * px, i * px, px, px);
      if (side >= 38) {
        context.fillStyle = scale.ink(v);
        context.fillText(short(v), (j + 0.5) * px, (i + 0.5) * px);
      }
    }
  if (side >= 6) gridLines(context, h, w, px, ratio);
  if (marked !== undefined) outline(context, (marked % w) * px, Math.floor(marked / w) * px, px, ratio);
}

function hatch(context, x, y, side, ratio) {
  context.save();
  context.beginPath();
  context.rect(x, y, side, side);
  context.clip();
  context.fillStyle = LINES[theme()].ground;
  context.fillRect(x, y, side, side);
  context.strokeStyle = LINES[theme()].hatch;
  context.lineWidth = 1.2 * ratio;
  const gap = 5 * ratio;
  context.beginPath();
  for (let d = Math.ceil((x + y) / gap) * gap; d < x + y + 2 * side; d += gap) {
    // lines x + y = d, the same in every cell
    context.moveTo(d - y + 1, y - 1);
    context.lineTo(d - y - side - 1, y + side + 1);
  }
  context.stroke();
  context.restore();
}

function gridLines(context, h, w, px, ratio) {
  context.strokeStyle = LINES[theme()].grid;
  context.lineWidth = ratio / 2;
  context.beginPath();
  for (let i = 0; i <= h; i++) (context.moveTo(0, i * px), context.lineTo(w * px, i * px));
  for (let j = 0; j <= w; j++) (context.moveTo(j * px, 0), context.lineTo(j * px, h * px));
  context.stroke();
}

function outline(context, x, y, px, ratio) {
  context.lineWidth = 3 * ratio;
  context.strokeStyle = LINES[theme()].mark;
  context.strokeRect(x + 1.5 * ratio, y + 1.5 * ratio, px - 3 * ratio, px - 3 * ratio);
}
