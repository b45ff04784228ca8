// The network as a row of boxes. Each side and each width grows with the square root of what it stands for, since 224
// pixels and 4096 units would leave no room to see 6 and 3.

const SIDE = 6.1;
const MAPS = 2.1;
const UNITS = 1.02;
const TILT = 0.32;
const SVG = 'http://www.w3.org/2000/svg';

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A layer's box: [width, height, depth]. */
function box({shape}) {
  if (shape.length === 1) return [7, Math.max(8, UNITS * Math.sqrt(shape[0])), 3];
  const [C, H, W] = shape;
  return [MAPS * Math.sqrt(C), SIDE * Math.sqrt(H), TILT * SIDE * Math.sqrt(W)];
}

function drawBox(layer, room) {
  const [w, h, d] = box(layer);
  const width = w + d + 2;
  const top = room - h - 1;
  const path = points => `M${points.map(p => p.join(' ')).join('L')}Z`;
  const [x, y] = [1, top];
  const faces = {
    front: [
      [x, y],
      [x + w, y],
      [x + w, y + h],
      [x, y + h],
    ],
    top: [
      [x, y],
      [x + d, y - d],
      [x + d + w, y - d],
      [x + w, y],
    ],
    side: [
      [x + w, y],
      [x + w + d, y - d],
      [x + w + d, y + h - d],
      [x + w, y + h],
    ],
  };
  const drawn = Object.entries(faces).map(([face, points]) => svg('path', {class: face, d: path(points)}));
  return svg('svg', {width, height: room, viewBox: `0 0 ${width} ${room}`, 'aria-hidden': 'true'}, ...drawn);
}

/** The row of one network; a click opens a layer. */
function showNetwork(net) {
  const room = Math.max(...net.layers.map(layer => box(layer)[1] + box(layer)[2])) + 3;
  const buttons = net.layers.map((layer, k) =>
    el(
      `button.box.${layer.kind}${layer.same ? '.same' : ''}`,
      {
        type: 'button',
        title: `${layer.label}: ${NAMES[layer.kind]}, ${layer.shape.join('×')}`,
        'data-layer': layer.name,
        'aria-label': `${layer.label}, ${NAMES[layer.kind]}, ${layer.shape.join(' by ')}`,
        onclick: () => openLayer(k),
      },
      drawBox(layer, room),
      el('span', {}, layer.label),
    ),
  );
  const row = el('div.boxes', {}, buttons);
  row.addEventListener('keydown', event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    const to = buttons[buttons.indexOf(document.activeElement) + step];
    if (!to) return;
    to.focus();
    event.preventDefault();
  });
  fill(
    $('network'),
    row,
    el(
      'p.note',
      {},
      'Heights show the side of the maps, widths how many there are, tall thin ' +
        'boxes dense units: each by its square root.',
    ),
  );
}

const NAMES = {
  input: 'the picture',
  conv: 'convolution',
  dense: 'dense layer',
  max: 'max pooling',
  avg: 'average pooling',
  lrn: 'local response normalisation',
  relu: 'ReLU',
  tanh: 'tanh',
  sigmoid: 'sigmoid',
  dropout: 'dropout',
  flatten: 'flattening',
  softmax: 'softmax',
  same: 'nothing',
};

/** Which box is the open layer's; the tab key stops there only. */
function markNetwork(k) {
  for (const [n, button] of [...$('network').querySelectorAll('.box')].entries()) {
    if (n === k) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
    button.tabIndex = n === k ? 0 : -1;
    if (n === k) reveal(button, $('network').firstChild);
  }
}

/** Scroll a box, and nothing around it, so far that its child is seen. */
function reveal(child, scroller) {
  const [inner, outer] = [child.getBoundingClientRect(), scroller.getBoundingClientRect()];
  if (inner.left < outer.left) scroller.scrollLeft -= outer.left - inner.left + 20;
  if (inner.right > outer.right) scroller.scrollLeft += inner.right - outer.right + 20;
  if (inner.top < outer.top) scroller.scrollTop -= outer.top - inner.top + 4;
  if (inner.bottom > outer.bottom) scroller.scrollTop += inner.bottom - outer.bottom + 4;
}
