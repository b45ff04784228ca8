// The terms of the number that was picked; a click on one goes on into it.

const heading = (text, note) => el('h3', {}, text, note && el('small', {}, note));

const TERMS = {
  conv: (net, k, [f], made) => mapTerms(net, k, made, `filter ${f}`),
  dense(net, k, [u], made) {
    const largest = el(
      'div.largest',
      {},
      heading('Its largest products', 'a click goes on into one'),
      denseBars(net, k, made),
    );
    if (!made.parts) return [largest];
    const all = mapTerms(net, k, made, `row ${u}`);
    return made.parts.window.count > 1 ? [...all, largest] : [largest, ...all];
  },
  max: (net, k, at, made) => [windowCells(net, k, made), into(net, k - 1, made.winner.at, 'into the winner,')],
  avg: (net, k, at, made) => [windowCells(net, k, made)],
  lrn: (net, k, at, {terms}) => [
    heading('The squares of its neighbours', 'a click goes on into one'),
    bars(
      terms.map(({at, x, value}) => ({
        label: `${originName(net, k - 1, at)}²`,
        value,
        note: `${number(x)}²`,
        on: () => descend(k - 1, at),
      })),
      'Squares',
    ),
    into(net, k - 1, at),
  ],
  softmax(net, k, at, {terms}) {
    const shown = terms.slice(0, 10).map(({at, x, value}) => ({
      label: net.labels[at[0]],
      value,
      note: `exp of ${number(x)} less the largest`,
      on: () => descend(k - 1, at),
    }));
    const rest = terms.slice(10);
    if (rest.length) shown.push({label: others(rest.length), value: rest.reduce((sum, term) => sum + term.value, 0)});
    return [
      into(net, k - 1, at, 'into the logit'),
      heading('The largest exponentials', 'a click goes on into a logit'),
      bars(shown, 'Exponentials'),
    ];
  },
};
for (const kind of ['relu', 'tanh', 'sigmoid', 'dropout', 'flatten', 'same'])
  TERMS[kind] = (net, k, at, {from}) => [into(net, k - 1, from)];

/** The largest products of a unit; those that are 0 count among the others. */
function denseBars(net, k, {terms, count, rest, bias}) {
  const some = terms.filter(term => term.value !== 0);
  const items = some.map(({at, x, weight, value}) => ({
    label: originName(net, k - 1, at),
    value,
    note: `${number(x)} × ${number(weight)}`,
    on: () => descend(k - 1, at),
  }));
  return bars([...items, {label: others(count - some.length), value: rest}, {label: 'bias', value: bias}], 'Products');
}

/** What each map of the window adds, and for one of them, or all of the picture's, patch × filter = products. */
function mapTerms(net, k, made, weights) {
  const {bias, parts} = made;
  const {sums} = parts;
  const {first, count} = parts.window;
  const {label} = net.layers[origin(net, k)];
  if (count <= 3) return [heading(`${label} × ${weights} = products`), productLines(net, k, made, [...sums.keys()])];
  const order = [...sums.keys()].sort((a, b) => Math.abs(sums[b]) - Math.abs(sums[a]));
  const some = order.filter(c => sums[c] !== 0);
  const [shown, rest] = [some.slice(0, 8), some.slice(8)];
  const detail = el('div.detail');
  const items = shown.map(c => ({
    label: `${label}[${first + c}]`,
    value: sums[c],
    on: event => open(c, event.currentTarget),
  }));
  if (rest.length) items.push({label: others(rest.length), value: rest.reduce((sum, c) => sum + sums[c], 0)});
  const list = bars([...items, {label: 'bias', value: bias}], 'What each map adds');
  const zeros = count - some.length;

  function open(c, pressed) {
    for (const button of list.querySelectorAll('button'))
      button.setAttribute('aria-pressed', String(button === pressed));
    fill(
      detail,
      heading(`Map ${first + c} of ${label}`, `its patch × ${weights} = products`),
      productLines(net, k, made, [c]),
    );
  }
  open(order[0], list.querySelector('button'));
  return [
    heading(`What each of the ${count} maps of ${label} adds`, zeros > 0 && `${zeros} add exactly 0`),
    list,
    detail,
  ];
}

/** Patch × filter = products of some maps, a line each, under one scale; a click goes into a pixel of a patch. */
function productLines(net, k, made, maps) {
  const {window, patch, filter, products, padding, sums} = made.parts;
  const {first, rows, columns} = window;
  const K = rows.length * columns.length;
  const lower = net.layers[origin(net, k)];
  const dense = net.layers[k].kind === 'dense';
  const kind = (name, values, signed, hatched) => ({name, values, scale: new Scale(largest(values), signed), hatched});
  const kinds = [
    kind('patch', patch, lower.min < 0, true),
    kind('weights', filter, true, false),
    kind('products', products, true, true),
  ];
  const read = el(
    'p.read',
    {},
    'Arrow keys or the pointer read the products; Enter or a click goes on into the pixel.',
  );
  // a dense layer's window is the whole of what it reads: unit n, wherever that was made
  const place = (c, n) =>
    dense ? [c * K + n] : [first + c, rows[Math.floor(n / columns.length)], columns[n % columns.length]];
  const there = (c, n) => !padding[n] && c * K + n < filter.length;
  const tell = (c, n) => {
    const m = c * K + n;
    if (padding[n]) return `padding: 0 × ${number(filter[m])} adds nothing`;
    return there(c, n)
      ? `${originName(net, k - 1, place(c, n))}: ${number(patch[m])} × ${number(filter[m])} = ${number(products[m])}`
      : '';
  };
  const enter = (c, n) => there(c, n) && descend(k - 1, place(c, n));
  const named = c => (lower.shape.length !== 3 ? '' : k === 1 ? channel(net, c) : `map ${first + c}`);
  const line = c =>
    el(
      'div.line',
      {},
      maps.length > 1 && el('span.name', {}, named(c)),
      tiles(made.parts, c, kinds, {
        label: `${lower.label} ${named(c)}`,
        tell: n => tell(c, n),
        enter: n => enter(c, n),
        read,
      }),
      el('p.sum', {}, 'Σ = ', el('b', {}, number(sums[c], 6))),
    );
  const legends = kinds.map(({name, scale}) => legend(scale, name));
  for (const each of legends) each.style.width = `${columns.length * sideOf(columns.length)}px`;
  return el('div', {}, maps.map(line), el('div.legends', {}, legends), read);
}

/** How large a cell is, where three canvases of so many columns stand in a line. */
const sideOf = w => Math.max(1, Math.min(44, Math.floor((($('sum').clientWidth || 360) - 84) / 3 / w)));

/** The three canvases of one line. */
function tiles({window: {rows, columns}, padding}, c, kinds, {label, tell, enter, read}) {
  const [h, w] = [rows.length, columns.length];
  const row = el('div.tiles');
  const canvases = kinds.map(() => el('canvas'));
  const draw = marked =>
    kinds.forEach(({values, scale, hatched}, t) =>
      drawCells(
        canvases[t],
        {h, w, side: sideOf(w), marked, value: n => values[c * h * w + n], padding: hatched ? n => padding[n] : null},
        scale,
      ),
    );
  walkable(row, {
    h,
    w,
    label: `Patch, weights and products of ${label}, ${h} by ${w}`,
    at: (i, j, keyed) => {
      draw(i * w + j);
      read.textContent = tell(i * w + j);
      if (keyed) say(read.textContent);
    },
    enter: (i, j) => enter(i * w + j),
    leave: () => draw(),
  });
  draw();
  const op = sign => el('span.op', {'aria-hidden': 'true'}, sign);
  return fill(row, canvases[0], op('×'), canvases[1], op('='), canvases[2]);
}

/** The numbers under a pooling window; the winner is outlined. */
function windowCells(net, k, {window, cells, winner}) {
  const [h, w] = [window.rows.length, window.columns.length];
  const canvas = el('canvas');
  const row = el('div.tiles.single', {}, canvas);
  const scale = new Scale(largest(cells.map(cell => cell.x)), net.layers[k - 1].min < 0);
  const won = winner ? cells.indexOf(winner) : undefined;
  const side = Math.max(4, Math.min(64, Math.floor((($('sum').clientWidth || 360) - 40) / w)));
  const read = el('p.read', {}, 'Arrow keys or the pointer read the numbers; Enter or a click goes on into one.');
  const draw = marked =>
    drawCells(canvas, {h, w, side, marked, value: n => cells[n].x, padding: n => !cells[n].inside}, scale);
  walkable(row, {
    h,
    w,
    label: `The ${h} by ${w} numbers of the window`,
    at: (i, j, keyed) => {
      const cell = cells[i * w + j];
      const won = cell === winner ? ', the winner' : '';
      draw(i * w + j);
      read.textContent = cell.inside ? `${shownName(net, k - 1, cell.at)} = ${number(cell.x, 6)}${won}` : 'padding';
      if (keyed) say(read.textContent);
    },
    enter: (i, j) => cells[i * w + j].inside && descend(k - 1, cells[i * w + j].at),
    leave: () => draw(won),
  });
  draw(won);
  return el('div', {}, row, legend(scale, ''), read);
}
