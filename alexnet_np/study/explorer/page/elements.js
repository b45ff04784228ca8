// Elements that several parts of the page are made of.

/** An element: el('p.note', {attribute: value, onclick: function}, children...). What is null or false is left out. */
function el(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split('.');
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(' ');
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === 'function') made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(name, value === true ? '' : value);
  return fill(made, ...children);
}

/** Put these children into an element, in place of what was there. What is null, false or '' is left out. */
function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(child => child || child === 0));
  return element;
}

const minus = text => text.replaceAll('e-', 'e−').replace(/^-/, '−');

/** A number to so many digits; very large and very small ones with an exponent. */
function number(v, digits = 5) {
  if (!Number.isFinite(v)) return minus(String(v));
  if (Number.isInteger(v) && Math.abs(v) < 1e6) return minus(String(v));
  const size = Math.abs(v);
  return minus(size >= 1e6 || size < 1e-4 ? v.toExponential(digits - 1).replace('e+', 'e') : v.toPrecision(digits));
}

/** As short as a cell is wide. */
function short(v) {
  const size = Math.abs(v);
  if (!Number.isFinite(v)) return String(v);
  if (v === 0) return '0';
  return minus(
    size >= 1000 || size < 0.001
      ? v.toExponential(0).replace('e+', 'e')
      : size >= 100
        ? v.toFixed(0)
        : size >= 10
          ? v.toFixed(1)
          : v.toFixed(size >= 1 ? 2 : 3),
  ).replace(/^(−?)0\./, '$1.');
}

const whole = n => n.toLocaleString('en-US');

/** A share from 0 to 1; never rounded to all or to nothing. */
function percent(p) {
  if (p === 0 || p === 1) return `${100 * p}%`;
  if (p < 0.0001) return '<0.01%';
  if (p > 0.999) return '>99.9%';
  return `${(100 * p).toFixed(p < 0.01 ? 2 : 1)}%`;
}

const bytes = n =>
  n < 1000 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toPrecision(3)} kB` : `${(n / 1e6).toPrecision(n < 1e7 ? 2 : 3)} MB`;
const many = n =>
  n < 1e4
    ? whole(n)
    : n < 1e6
      ? `${(n / 1e3).toPrecision(3)} thousand`
      : `${(n / 1e6).toPrecision(n < 1e7 ? 2 : 3)} million`;

const others = n => (n === 1 ? '1 other' : `${whole(n)} others`);
const index = at => `[${at.join(', ')}]`;

/** A number that a machine can read too. */
const data = (id, v, digits) => el('data', {id, value: v}, number(v, digits));

/** The scale's colours from its least to its largest number. */
function legend(scale, what) {
  const canvas = el('canvas', {'aria-hidden': 'true'});
  const n = 96;
  const values = Float32Array.from(
    {length: n},
    (_, i) => scale.limit * (scale.signed ? (2 * i) / (n - 1) - 1 : i / (n - 1)),
  );
  paint(canvas, values, 0, 1, n, scale);
  const ends =
    scale.limit === 0
      ? ['0']
      : scale.signed
        ? [number(-scale.limit, 3), '0', number(scale.limit, 3)]
        : ['0', number(scale.limit, 3)];
  return el(
    'figure.legend',
    {},
    el('figcaption', {}, what),
    canvas,
    el(
      'span.ends',
      {},
      ends.map(end => el('span', {}, end)),
    ),
  );
}

/** Whether a button was pressed by a key: what it leads to then gets the focus. */
const byKey = event => event.detail === 0;

/** One bar a line: {label, value, note, on: what a click does, pressed}. Left of the middle is negative. */
function bars(items, heading, limit = Math.max(...items.map(item => Math.abs(item.value))) || 1) {
  const signed = items.some(item => item.value < 0);
  const line = item => {
    const fill = el(`i.${item.value < 0 ? 'below' : 'above'}`);
    const share = Math.abs(item.value) / limit;
    fill.style.width = `${share * (signed ? 50 : 100)}%`;
    fill.style[item.value < 0 ? 'right' : 'left'] = signed ? '50%' : '0';
    const parts = [
      el('span.name', {}, item.label),
      el(`span.track${signed ? '.signed' : ''}`, {'aria-hidden': 'true'}, fill),
      el('span.amount', {}, item.shown ?? number(item.value)),
    ];
    return el(
      'li',
      {},
      item.on
        ? el('button', {type: 'button', title: item.note, onclick: item.on, 'aria-pressed': item.pressed}, parts)
        : el('div', {title: item.note}, parts),
    );
  };
  return el('ul.bars', {'aria-label': heading}, items.map(line));
}

/** Makes an element a picture of h x w numbers that the arrow keys walk and the pointer points at.
 *  `start()` is where to begin, `at(i, j)` is told where one is, `enter(i, j)` what is chosen, `leave()` that one left. */
function walkable(element, {h, w, label, start, at, enter, leave}) {
  let place = null;
  element.tabIndex = 0;
  element.setAttribute('role', 'application');
  element.setAttribute('aria-label', label);
  const limited = (v, n) => Math.min(n - 1, Math.max(0, Math.floor(v)));
  const under = event => {
    const canvas = event.target.closest('canvas');
    if (!canvas) return null;
    const box = canvas.getBoundingClientRect();
    return [
      limited(((event.clientY - box.top) / box.height) * h, h),
      limited(((event.clientX - box.left) / box.width) * w, w),
    ];
  };
  element.addEventListener('pointermove', event => {
    const found = under(event);
    if (found) at(...found);
  });
  element.addEventListener('click', event => {
    const found = under(event);
    if (found) enter(...(place = found));
  });
  for (const gone of ['pointerleave', 'blur']) element.addEventListener(gone, () => leave());
  element.addEventListener('keydown', event => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    const from = place ?? start?.();
    if (step) {
      place = from ? [limited(from[0] + step[0], h), limited(from[1] + step[1], w)] : [0, 0];
      at(...place, true);
    } else if (event.key === 'Enter' || event.key === ' ') enter(...(from ?? [0, 0]), true);
    else return;
    event.preventDefault();
  });
}

const say = text => {
  $('live').textContent = text;
};
