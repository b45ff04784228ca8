// The arithmetic behind the number that was picked, beside what the network has.

const shownName = (net, k, at) => `${net.layers[k].label}${index(at)}`;

/** The class that a logit or a probability is of; '' for other numbers. */
const className = (net, k, at) => (k >= net.layers.length - 2 ? net.labels[at[0]] : '');

const channel = (net, c) => (net.layers[0].shape[0] === 3 ? ['red', 'green', 'blue'][net.recipe.order[c]] : 'grey');

/** The name of what a number of layer k is, past the layers that only hand on. */
const originName = (net, k, at) => shownName(net, ...net.origin(k, at));

/** The layer that layer k reads, past those that only hand on. */
const origin = (net, k) =>
  net.origin(
    k - 1,
    net.layers[k - 1].shape.map(() => 0),
  )[0];

async function showSum() {
  const {n, k, at} = state;
  const net = nets[n];
  const layer = net.layers[k];
  const turn = turns;
  const made = await arithmetic(net, k, at);
  if (turn !== turns || state.at !== at) return;
  const named = className(net, k, at);
  const {
    heading: [h2, note],
    rows,
  } = described(net, k, at, made);
  const held = $('sum').contains(document.activeElement);
  fill(
    $('sum'),
    trail(),
    el('h2', {id: 'sum-title', tabindex: -1}, h2, named && el('small', {}, named)),
    el('p.note', {}, note),
    result(rows, made),
    beside(n, k, at),
    TERMS[layer.kind]?.(net, k, at, made),
  );
  if (held) $('sum-title').focus({preventScroll: true});
  say(`${h2} ${named}: ${number(made.value, 6)} in float64, ${number(made.stored, 6)} in the network`);
}

/** Where one is: every number from the first picked to this one. */
function trail() {
  const last = state.trail.length - 1;
  const crumbs = state.trail.map(({n, k, at}, t) => {
    const name = shownName(nets[n], k, at);
    const attributes = {type: 'button', title: name, 'aria-label': name, 'aria-current': t === last && 'step'};
    const shown = t === last ? name : nets[n].layers[k].label;
    return el('li', {}, el('button', {...attributes, onclick: () => backTo(t)}, shown));
  });
  return el(
    'nav.trail',
    {'aria-label': 'Trail'},
    el('button.back', {type: 'button', disabled: last < 1, onclick: () => backTo(last - 1)}, '← back'),
    el('ol', {}, crumbs),
  );
}

/** Go on into number `at` of layer k, past the layers that only hand on. */
function descend(k, at) {
  return pick(state.n, ...nets[state.n].origin(k, at), {down: true});
}

const into = (net, k, at, words = 'into') =>
  el('button.into', {type: 'button', onclick: () => descend(k, at)}, `${words} ${originName(net, k, at)} →`);

/** "pool5 (through flatten, drop5, which only hand on)". */
function source(net, k) {
  const from = origin(net, k);
  const passed = net.layers.slice(from + 1, k).map(layer => layer.label);
  const hands = passed.length > 1 ? 'hand' : 'hands';
  return net.layers[from].label + (passed.length ? ` (through ${passed.join(', ')}, which only ${hands} on)` : '');
}

/** A heading, a sentence, and the numbers on the way to the value by name: [name, number]. */
function described(net, k, at, made) {
  const [sentence, rows] = WORDS[net.layers[k].kind](net, k, at, made);
  return {heading: [shownName(net, k, at), sentence], rows};
}

const WORDS = {
  input: (net, k, [c], {byte}) => [`The picture's ${channel(net, c)} there is ${byte} of 255.`, [['byte', byte]]],
  conv(net, k, [f], {parts: {window, padding}, count, total, bias}) {
    const {count: maps, rows, columns} = window;
    const hidden = padding.reduce((a, b) => a + b, 0);
    const places = rows.length * columns.length;
    const sentence =
      `${maps} ${maps > 1 ? 'maps' : 'map'} × ${rows.length}×${columns.length} = ${whole(count)} products of ` +
      `${net.layers[k - 1].label} and filter ${f}, summed, and the bias.`;
    return [
      sentence + (hidden ? ` ${hidden} of the ${places} places lie in the padding.` : ''),
      [
        [`Σ of ${whole(count)} products`, total],
        ['+ bias', bias],
      ],
    ];
  },
  dense(net, k, [u], {count, parts, terms, total, rest, bias}) {
    const {inputs, active} = net.layers[k];
    const sentence =
      `${whole(count)} products of ${source(net, k)} and row ${u} of the weights, summed, and the bias; ` +
      `${whole(inputs - active)} inputs are 0.`;
    if (parts)
      return [
        sentence,
        [
          [`Σ of ${whole(count)} products`, total],
          ['+ bias', bias],
        ],
      ];
    return [
      `${sentence} The page keeps this unit's largest products, and the sum of the others.`,
      [
        [`Σ of the ${terms.length} largest`, total - rest],
        [`+ ${others(count - terms.length)}`, rest],
        ['+ bias', bias],
      ],
    ];
  },
  max(net, k, [c], {window: {rows, columns}, ties, winner}) {
    const who =
      ties > 1
        ? `${ties} of them are equal: the first in reading order wins.`
        : `The one in row ${winner.at[1]}, column ${winner.at[2]} wins.`;
    return [
      `The largest of ${rows.length}×${columns.length} numbers of ${net.layers[k - 1].label}, map ${c}. ${who}`,
      [],
    ];
  },
  avg: (net, k, [c], {count, divisor, total}) => [
    divisor === count
      ? `The mean of ${count} numbers of ${net.layers[k - 1].label}, map ${c}.`
      : `The sum of ${count} numbers of ${net.layers[k - 1].label}, map ${c}, over ${divisor}.`,
    [
      [`Σ of ${count} numbers`, total],
      ['÷', divisor],
    ],
  ],
  lrn: (net, k, at, {terms, own, squares, base, power}) => [
    `Divided by a norm of ${terms.length} numbers around it.`,
    [
      ['x', own],
      ['Σ x² of the neighbours', squares],
      ['k + a · Σ x²', base],
      ['to the power β', power],
    ],
  ],
  softmax: (net, k, at, {x, largest, own, denominator}) => [
    'Its exponential, as a share of those of all classes.',
    [
      ['logit x', x],
      ['largest logit', largest],
      ['exp(x − largest)', own],
      ['÷ Σ of all exponentials', denominator],
    ],
  ],
  relu: (net, k, at, {x}) => [x > 0 ? 'Positive, so it passes.' : 'Not positive, so it becomes 0.', [['x', x]]],
  tanh: (net, k, at, {x}) => ['A function of one number.', [['x', x]]],
  sigmoid: (net, k, at, {x}) => ['A function of one number.', [['x', x]]],
  dropout: (net, k, at, {x}) => ['Dropout does nothing here: it works in training only.', [['x', x]]],
  flatten: (net, k, at, {x}) => ['The same number: maps laid end to end.', [['x', x]]],
  same: (net, k, at, {x}) => ['The same number.', [['x', x]]],
};

/** The value beside what the network has, and how much of their distance rounding explains. */
function result(rows, {value, stored, size}) {
  const apart = Math.abs(value - stored);
  const allowed = ROUNDING * size;
  const fits = !(apart > allowed);
  const explained =
    apart === 0
      ? 'exactly equal'
      : fits
        ? `${number(apart, 2)}, ${percent(apart / allowed)} of what float32’s rounding may do`
        : `${number(apart, 2)}, more than float32’s rounding may do: a fast algorithm rounds more`;
  const mark = el(`span.${fits ? 'fits' : 'beyond'}`, {'aria-hidden': 'true'}, fits ? '✓ ' : '✗ ');
  const line = (name, shown, kind = 'div') => el(kind, {}, el('dt', {}, name), el('dd', {}, shown));
  return el(
    'dl.result',
    {},
    rows.map(([name, v]) => line(name, data(null, v, 8))),
    line('= in float64', data('value', value, 9), 'div.end'),
    line('the network, in float32', data('stored', stored, 9), 'div.end'),
    line('apart', el('data', {id: 'allowed', value: allowed}, mark, explained), 'div.apart'),
  );
}

/** The same number of the other network, where there is one. */
function beside(n, k, at) {
  const found = twin(n, k);
  if (!found || !alike(nets[n].layers[k], nets[found[0]].layers[found[1]])) return null;
  return el('button.into', {type: 'button', onclick: () => pick(...found, at)}, `the same number of ${'AB'[1 - n]} →`);
}
