// What the open layer does, in a line, and its figures.

/** The input's row or column of output `name` and place `inner` in its window. */
function affine(windows, name, inner) {
  const [first, count, step] = windows[0];
  const stride = (windows[1]?.[0] ?? first + 1) - first;
  return [
    stride === 1 ? name : `${stride}${name}`,
    count > 1 && `+ ${step === 1 ? '' : step}${inner}`,
    first !== 0 && (first < 0 ? `− ${-first}` : `+ ${first}`),
  ]
    .filter(Boolean)
    .join(' ');
}

/** What an average divides by is not the same everywhere where windows reach over an edge. */
function uneven({divisors}) {
  const [[one]] = divisors;
  return divisors.every(row => row.every(divisor => divisor === one)) ? '' : ', another number at the edges';
}

function formula(net, k) {
  const layer = net.layers[k];
  const {recipe} = net;
  const window = layer.rows && `${affine(layer.rows, 'i', 'u')}, ${affine(layer.columns, 'j', 'v')}`;
  switch (layer.kind) {
    case 'input': {
      const means = recipe.mean.map(v => number(v, 4)).join(', ');
      return `x = (byte / ${recipe.scale} − mean) / std, mean ${means}, std ${recipe.std.join(', ')}`;
    }
    case 'conv':
      return `y[f, i, j] = b[f] + Σ w[f, c, u, v] · x[c, ${window}]`;
    case 'dense':
      return 'y[u] = b[u] + Σ w[u, n] · x[n]';
    case 'max':
      return `y[c, i, j] = max x[c, ${window}], u and v from 0 to ${layer.rows[0][1] - 1}`;
    case 'avg':
      if (layer.divisors) return `y[c, i, j] = Σ x[c, ${window}] / ${layer.divisors[0][0]}${uneven(layer)}`;
      return layer.same
        ? 'y = x: at this size every window holds one pixel'
        : 'y[c, i, j] = the mean of the pixels in its window';
    case 'lrn': {
      const {low, high, scale, beta, k: constant, groups = 1, region = 'across'} = layer.window;
      const y = `y = x / (${constant} + ${number(scale, 3)} · Σ x′²)^${beta}`;
      if (region === 'within') return `${y}, x′ from ${low} before to ${high} after in rows and columns of the map`;
      return `${y}, x′ from ${low} maps before to ${high} after${groups > 1 ? ', within the tower' : ''}`;
    }
    case 'relu':
      return 'y = max(0, x)';
    case 'tanh':
      return 'y = tanh x';
    case 'sigmoid':
      return 'y = 1 / (1 + exp(−x))';
    case 'dropout':
      return (
        `y = x: dropout does nothing here. In training it sets a unit to 0 with probability ${layer.p} ` +
        `and divides the others by ${1 - layer.p}.`
      );
    case 'flatten':
      return 'y[n] = x[c, i, j], n = (c · H + i) · W + j';
    case 'softmax':
      return 'y[u] = exp(x[u]) / Σ exp(x[n])';
    default:
      return 'y = x';
  }
}

function facts(net, layer) {
  const {kernel, shape} = layer;
  const groups = layer.groups > 1 ? `, ${layer.groups} groups` : '';
  const rows = [
    ['shape', shape.join(' × ')],
    kernel && ['filters', `${kernel[0]} of ${kernel.slice(1).join(' × ')}${groups}`],
    layer.parameters && ['parameters', whole(layer.parameters)],
    layer.parameters && ['their bytes', bytes(4 * layer.parameters)],
    layer.macs && ['multiply-adds', many(layer.macs)],
    ['output', bytes(4 * shape.reduce((a, b) => a * b, 1))],
    layer.seconds && ['time here', `${number(1e3 * layer.seconds, 3)} ms, ${net.backend}`],
    ['mean, deviation', `${number(layer.mean, 3)}, ${number(layer.std, 3)}`],
    ['range', `${number(layer.min, 3)} … ${number(layer.max, 3)}`],
    layer.zeros && ['exactly zero', percent(layer.zeros)],
    shape.length === 3 && (layer.dead || layer.kind === 'relu') && ['dead maps', `${layer.dead} of ${shape[0]}`],
  ];
  return el(
    'dl.facts',
    {},
    rows.filter(Boolean).map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))),
  );
}
