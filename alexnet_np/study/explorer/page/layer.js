// The open layer: what it does, its numbers, one map enlarged beside the grid of all.

/** How a layer's numbers lie on a sheet: as its maps, or its units folded to a square. */
function sheetOf({shape}) {
  if (shape.length === 3) return {C: shape[0], H: shape[1], W: shape[2], at: (c, i, j) => [c, i, j], place: at => at};
  const [H, W] = folded(shape[0]);
  const last = shape[0] - 1;
  return {C: 1, H, W, at: (c, i, j) => [Math.min(last, i * W + j)], place: ([u]) => [0, Math.floor(u / W), u % W]};
}

/** The layer of the other network, where there is one and it has a layer of that name: [n, k], or null. */
function twin(n, k) {
  const found = nets[1 - n]?.layers.findIndex(layer => layer.label === nets[n].layers[k].label) ?? -1;
  return found < 0 ? null : [1 - n, found];
}

const alike = (a, b) => String(a.shape) === String(b.shape);

/** The layer's numbers, and beside them the other network's and the differences, where there are two and they fit. */
async function sheetsOf(n, k) {
  const sheet = async (n, k) => {
    const layer = nets[n].layers[k];
    return {n, k, layer, values: await nets[n].values(k), signed: layer.min < 0, title: nets.length > 1 ? 'AB'[n] : ''};
  };
  const own = await sheet(n, k);
  const beside = twin(n, k);
  if (!beside) return [own];
  const other = await sheet(...beside);
  const [a, b] = n ? [other, own] : [own, other];
  if (!alike(a.layer, b.layer)) return [a, b];
  return [a, b, {...own, title: 'B − A', values: b.values.map((v, i) => v - a.values[i]), signed: true}];
}

let panel = null; // of the open layer: {n, k, showMap, mark}
let turns = 0; // what was asked for later overtakes what is still being decoded

async function showLayer() {
  const {n, k} = state;
  const net = nets[n];
  const layer = net.layers[k];
  const turn = ++turns;
  const filtered = layer.kind === 'conv' && state.view === 'filters';
  const [sheets, weight] = await Promise.all([sheetsOf(n, k), filtered ? tensor(layer.weight) : null]);
  if (turn !== turns) return;
  const body = filtered ? filters(net, k, weight) : maps(sheets);
  const what = `${NAMES[layer.kind]}${layer.name === layer.label ? '' : ` · ${layer.name}`}`;
  fill(
    $('layer'),
    el('h2', {id: 'layer-title'}, layer.label, el('small', {}, what)),
    el('p.formula', {}, formula(net, k)),
    facts(net, layer),
    controls(layer, filtered ? [] : sheets),
    body.element,
  );
  panel = {n, k, ...body};
  markNetwork(k);
  panel.showMap();
}

// What is shown, and how bright

/** A group of buttons of which one is pressed. */
function choice(name, key, options) {
  const choose = value => async () => {
    state[key] = value;
    await showLayer();
    $('layer').querySelector(`[data-choice=${key}] [aria-pressed=true]`)?.focus();
  };
  const buttons = options.map(([value, text]) =>
    el('button', {type: 'button', 'aria-pressed': String(state[key] === value), onclick: choose(value)}, text),
  );
  return el(
    'div.choice',
    {role: 'group', 'aria-label': name, 'data-choice': key},
    el('span', {'aria-hidden': 'true'}, name),
    buttons,
  );
}

/** `sheets`: those of the maps, none where filters are shown. */
function controls(layer, sheets) {
  const ofMaps = layer.shape.length === 3;
  const by = sheets.length ? 'map' : 'filter';
  const several = sheets.length > 0 && layer.shape[0] > 3;
  const grid = sheets.map(({title}, s) => [s, title]);
  return el(
    'div.controls',
    {},
    layer.kind === 'conv' && choice('Show', 'view', Object.entries({maps: 'maps', filters: 'filters'})),
    ofMaps && choice('Brightness', 'norm', Object.entries({map: `by ${by}`, layer: 'over the layer'})),
    ofMaps && several && choice('Order', 'order', Object.entries({number: 'by number', strength: 'strongest first'})),
    ofMaps && sheets.length > 1 && choice('Grid', 'grid', grid),
  );
}

// Maps

const scaleOf = (sheet, start, size) =>
  new Scale(state.norm === 'map' ? largest(sheet.values, start, size) : largest(sheet.values), sheet.signed);

function maps(sheets) {
  const own = sheets.find(sheet => sheet.n === state.n);
  const {C} = sheetOf(own.layer);
  const figures = el('div.enlarged', {'data-count': sheets.length});
  const read = el('p.read');
  const marks = [];
  const units = own.layer.shape.length === 1;
  const grid = units ? strongest(own) : C > 1 ? mapGrid(sheets[Math.min(state.grid, sheets.length - 1)]) : null;

  function showMap() {
    const held = figures.contains(document.activeElement);
    state.map = Math.min(state.map, C - 1);
    marks.length = 0;
    const made = sheets.map(sheet => enlarged(sheet, point, marks));
    fill(figures, made);
    if (held) figures.querySelector('.frame').focus();
    grid?.press?.(state.map);
    mark();
  }

  function mark() {
    for (const m of marks) m(state.at);
    point(own, state.at);
  }

  /** Say what number `at` of a sheet is, and of those beside it. */
  function point(sheet, at) {
    if (!at) return fill(read, 'Point at a number, or walk with the arrow keys; a click or Enter explains it.');
    const all = sheets.filter(other => alike(other.layer, sheet.layer));
    const values = all.map(other => [
      ` ${other.title} = `,
      el('b', {}, number(other.values[ravel(at, other.layer.shape)], 6)),
    ]);
    const name = `${shownName(nets[sheet.n], sheet.k, at)} ${className(nets[sheet.n], sheet.k, at)}`;
    return fill(read, name.trim(), values.flat());
  }

  const wide = sheets.length > 1 ? '.wide' : '';
  const element = el(`div.maps${wide}`, {}, el('div.one', {}, figures, read), grid?.element);
  return {element, showMap, mark};
}

/** One map, large; `marks` gets the function that marks the number that is explained. */
function enlarged(sheet, point, marks) {
  const {C, H, W, at, place} = sheetOf(sheet.layer);
  const map = Math.min(state.map, C - 1);
  const start = map * H * W;
  const scale = scaleOf(sheet, start, H * W);
  const canvas = el('canvas');
  const net = nets[sheet.n];
  const spot = el('div.spot', {hidden: true});
  const cursor = el('div.cursor', {hidden: true});
  const frame = el('div.frame', {}, canvas, spot, cursor);
  paint(canvas, sheet.values, start, H, W, scale);
  walkable(frame, {
    h: H,
    w: W,
    start: () => (sheet.n === state.n && state.at ? place(state.at).slice(1) : null),
    label: `${sheet.title} ${sheet.layer.label}${C > 1 ? `, map ${map}` : ''}: ${H} by ${W} numbers`.trim(),
    at: (i, j, keyed) => {
      point(sheet, at(map, i, j));
      showField(net, sheet.k, at(map, i, j));
      if (keyed) say($('layer').querySelector('.read').textContent);
      if (keyed) put(cursor, [map, i, j], H, W);
    },
    enter: (i, j, keyed) => pick(sheet.n, sheet.k, at(map, i, j), {keyed}),
    leave: () => {
      cursor.hidden = true;
      if (state.at) panel.mark();
      if (state.at) showField(nets[state.n], state.k, state.at);
    },
  });
  marks.push(found => {
    const where = found && sheet.layer.shape.length === found.length ? place(found) : null;
    spot.hidden = where?.[0] !== map;
    if (!spot.hidden) put(spot, where, H, W);
  });
  const units = `${whole(sheet.layer.shape[0])} units${H > 1 ? `, ${W} a row` : ''}`;
  const what = sheet.layer.shape.length === 1 ? units : `map ${map} of ${C}`;
  return el('figure', {}, el('figcaption', {}, sheet.title && `${sheet.title}: `, what), frame, legend(scale, ''));
}

function put(spot, [, i, j], H, W) {
  spot.hidden = false;
  Object.assign(spot.style, {
    left: `${(100 * j) / W}%`,
    top: `${(100 * i) / H}%`,
    width: `${100 / W}%`,
    height: `${100 / H}%`,
  });
}

/** All maps, small; one is pressed. */
function mapGrid(sheet) {
  const {C, H, W} = sheetOf(sheet.layer);
  const size = H * W;
  const order = [...Array(C).keys()];
  const limits = order.map(c => largest(sheet.values, c * size, size));
  const scales = order.map(c => scaleOf(sheet, c * size, size));
  if (state.order === 'strength') order.sort((a, b) => limits[b] - limits[a]);
  const name = c => `map ${c}${limits[c] === 0 ? ', 0 everywhere' : ''}`;
  const pixel = (c, p) => scales[c].pixel(sheet.values[c * size + p]);
  return thumbnails(`All ${C} maps`, {order, H, W, name, pixel});
}

function chooseMap(c) {
  if (state.at?.length === 3 && state.view === 'maps') return pick(state.n, state.k, [c, ...state.at.slice(1)]);
  state.map = c;
  return panel.showMap();
}

/** A layer of units: its strongest, by name where they are classes. */
function strongest({values, layer, n, k}) {
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 12);
  const limit = layer.kind === 'softmax' ? 1 : undefined;
  const items = order.map(u => ({
    label: className(nets[n], k, [u]) || shownName(nets[n], k, [u]),
    value: values[u],
    on: event => pick(n, k, [u], {keyed: byKey(event)}),
  }));
  return {element: el('div.strongest', {}, el('h3', {}, 'The strongest'), bars(items, 'The strongest', limit))};
}
