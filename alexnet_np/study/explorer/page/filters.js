// The weights of a convolution as pictures: all filters of the first, as the paper's figure 3; all kernels of one of
// the others.

function filters(net, k, weight) {
  const layer = net.layers[k];
  const [F, ...kernel] = layer.kernel;
  const size = kernel[0] * kernel[1] * kernel[2];
  const first = k === 1;
  const whole = largest(weight);
  const {mean, std, min, max} = layer.filters;
  const limit = f => (state.norm === 'layer' ? whole : largest(weight, f * size, size));
  const read = el(
    'p.read',
    {},
    `All weights: mean ${number(mean, 3)}, deviation ${number(std, 3)}, from ${number(min, 3)} to ${number(max, 3)}.`,
  );
  const large = el('div.enlarged');
  const grid = first ? filterGrid(net, weight, layer.kernel, limit) : null;

  function showMap() {
    const f = (state.map = Math.min(state.map, F - 1));
    const canvas = el('canvas', {
      role: 'img',
      'aria-label': `filter ${f}: ${kernel[0]} kernels of ${kernel[1]} by ${kernel[2]}`,
    });
    const scale = new Scale(limit(f), true);
    const mixed = first && kernel[0] === 3;
    if (mixed) drawMixed(canvas, weight, f, kernel, limit(f), net.recipe.order);
    else drawKernels(canvas, weight, f, kernel, scale);
    const words = first
      ? `filter ${f} of ${F}`
      : `filter ${f} of ${F}: its ${kernel[0]} kernels, one for each map that it reads`;
    fill(
      large,
      el(
        'figure',
        {},
        el('figcaption', {}, words),
        el(`div.frame.still${first ? '' : '.kernels'}`, {}, canvas),
        mixed ? el('p.note', {}, 'red, green and blue together: grey is 0') : legend(scale, ''),
      ),
    );
    grid?.press(f);
  }

  const step = (by, text, name) =>
    el('button', {type: 'button', 'aria-label': name, onclick: () => chooseMap((state.map + by + F) % F)}, text);
  const steps = el('div.steps', {}, step(-1, '‹', 'the filter before'), step(1, '›', 'the filter after'));
  const element = el(`div.maps${first ? '' : '.wide'}`, {}, el('div.one', {}, steps, large, read), grid?.element);
  return {element, showMap, mark() {}};
}

/** All filters of the first layer, small; one is pressed. */
function filterGrid(net, weight, [F, C, KH, KW], limit) {
  const size = KH * KW;
  const order = [...Array(F).keys()];
  const scales = order.map(f => new Scale(limit(f), true));
  const limits = order.map(limit);
  const mixed = (f, p) => mixedPixel(weight, f * 3 * size + p, size, limits[f], net.recipe.order);
  const pixel = (f, p) => (C === 3 ? mixed(f, p) : scales[f].pixel(weight[f * size + p]));
  return thumbnails(`All ${F} filters`, {order, H: KH, W: KW, name: f => `filter ${f}`, pixel});
}

/** The pixel of a filter over colours: its three channels as red, green and blue, 0 as grey. */
function mixedPixel(weight, first, size, limit, order) {
  const rgb = [0, 0, 0];
  for (let c = 0; c < 3; c++) rgb[order[c]] = Math.round(127.5 + (127.5 * weight[first + c * size]) / (limit || 1));
  return packed(rgb);
}

/** A filter over colours, all channels together. */
function drawMixed(canvas, weight, f, [C, KH, KW], limit, order) {
  const size = KH * KW;
  paint(
    canvas,
    Array.from({length: size}, (_, p) => p),
    0,
    KH,
    KW,
    {
      pixel: p => mixedPixel(weight, f * C * size + p, size, limit, order),
    },
  );
}

/** All kernels of one filter on one canvas, a line of background between them. */
function drawKernels(canvas, weight, f, [C, KH, KW], scale) {
  const across = Math.ceil(Math.sqrt(C));
  const [h, w] = [Math.ceil(C / across) * (KH + 1) - 1, across * (KW + 1) - 1];
  const sheet = new Float32Array(h * w);
  for (let c = 0; c < C; c++)
    for (let u = 0; u < KH; u++)
      for (let v = 0; v < KW; v++)
        sheet[(Math.floor(c / across) * (KH + 1) + u) * w + (c % across) * (KW + 1) + v] =
          weight[((f * C + c) * KH + u) * KW + v];
  paint(canvas, sheet, 0, h, w, scale);
}
