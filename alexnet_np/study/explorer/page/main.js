// What is open, and how one moves.

const nets = JSON.parse($('page').textContent).map(described => new Net(described));
const state = {n: 0, k: 1, map: 0, at: null, trail: [], view: 'maps', norm: 'map', order: 'number', grid: 0};

/** Open a layer. */
async function openLayer(k) {
  performance.mark('asked');
  Object.assign(state, {k, at: null, trail: [], map: 0});
  await showLayer();
  nets.forEach(clearField);
  invite();
  performance.measure('layer', 'asked');
}

/** Explain number `at` of layer k of network n. `down`: one came to it from the number before on the trail. */
async function pick(n, k, at, {down = false, keyed = down, kept = false, first = false} = {}) {
  performance.mark('asked');
  const same = panel && panel.n === n && panel.k === k && state.view === 'maps';
  if (n !== state.n) showNetwork(nets[n]);
  if (!kept) state.trail = [...(down ? state.trail : []), {n, k, at}];
  const map = at.length === 3 ? at[0] : 0;
  const turned = map !== state.map;
  if (n !== state.n && state.grid < 2) state.grid = n;
  Object.assign(state, {n, k, at, map, view: 'maps'});
  if (!same) await showLayer();
  else if (turned) panel.showMap();
  else panel.mark();
  showField(nets[n], k, at);
  const other = twin(n, k);
  if (other && alike(nets[n].layers[k], nets[other[0]].layers[other[1]])) showField(nets[other[0]], other[1], at);
  await showSum();
  if (keyed) $('sum-title')?.focus({preventScroll: true});
  if (!first) bringIntoView();
  performance.measure('pick', 'asked');
}

/** On a narrow screen the arithmetic lies below: go there. */
function bringIntoView() {
  const {top} = $('sum').getBoundingClientRect();
  const below = $('sum').offsetTop > $('layer').offsetTop + 80;
  if (below && (top > innerHeight * 0.6 || top < 0))
    $('sum').scrollIntoView({
      behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth',
      block: 'start',
    });
}

/** Back to step t of the trail. */
function backTo(t) {
  if (t < 0) return;
  state.trail = state.trail.slice(0, t + 1);
  const {n, k, at} = state.trail[t];
  return pick(n, k, at, {kept: true, keyed: true});
}

function invite() {
  fill(
    $('sum'),
    el('h2', {id: 'sum-title', tabindex: -1}, 'Where a number comes from'),
    el(
      'p.note',
      {},
      'Choose a number of a map, a unit or a class: here are its terms, and their sum beside what the network has. ' +
        'Then go on into a term, down to the pixels.',
    ),
  );
}

function showAbout() {
  const words = ({preset, weights, random, parameters, macs}, n) => [
    nets.length > 1 && `${n ? ' — ' : ''}${'AB'[n]}: `,
    el('b', {}, preset),
    ` · ${weights}`,
    random && el('em', {}, ', so the classes mean nothing'),
    ` · ${whole(parameters)} parameters · ${many(macs)} multiply-adds`,
  ];
  fill($('about'), nets.flatMap(words));
}

// Light and dark

function offerTheme() {
  $('theme').textContent = theme() === 'dark' ? 'light' : 'dark';
  $('theme').setAttribute('aria-label', `Switch to ${$('theme').textContent} colours`);
}

function redraw() {
  offerTheme();
  showLayer().then(() => {
    if (state.at) showSum();
  });
}

$('theme').addEventListener('click', () => {
  document.documentElement.dataset.theme = theme() === 'dark' ? 'light' : 'dark';
  redraw();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);

addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, textarea')) return;
  const step = {'[': -1, ']': 1}[event.key];
  const {C} = sheetOf(nets[state.n].layers[state.k]);
  if (step && C > 1) chooseMap((state.map + step + C) % C);
  else if (event.key === 'Backspace' && state.trail.length > 1) backTo(state.trail.length - 2);
  else return;
  event.preventDefault();
});

let width = innerWidth;
addEventListener('resize', () => {
  if (width === innerWidth) return; // a phone's address bar that comes and goes
  width = innerWidth;
  redraw();
});

offerTheme();
showAbout();
showNetwork(nets[0]);

/** It begins with the largest number of the first layer. */
async function begin() {
  const [, x] = await Promise.all([showPictures(), nets[0].values(1)]);
  await pick(0, 1, unravel(x.indexOf(x.reduce((a, b) => Math.max(a, b))), nets[0].layers[1].shape), {first: true});
  performance.measure('open');
  document.body.dataset.ready = '';
}

begin();
