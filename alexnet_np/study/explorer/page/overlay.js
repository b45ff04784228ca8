// Attribution over the picture: which pixels the most probable class comes from.

const HEAT = {
  // over a grey picture, whatever the page's own colours are
  above: ramp(['#0d0850', '#7e03a8', '#cc4778', '#f89540', '#f0f921']),
  below: ramp(['#08306b', '#2171b5', '#6baed6', '#c6dbef', '#f7fbff']),
};

/** Colours that are the clearer the farther from 0, and not there at 0. */
class Heat extends Scale {
  pixel(v) {
    const share = this.limit ? Math.min(1, Math.abs(v) / this.limit) : 0;
    const colour = HEAT[v < 0 ? 'below' : 'above'][Math.round(share * (STEPS - 1))];
    return ((Math.round(255 * Math.sqrt(share)) << 24) | (colour & 0xffffff)) >>> 0;
  }
}

/** The choice of a method, what it says and its scale; the map itself goes over the picture in `frame`. */
function attributions(net, n, frame) {
  if (!net.attributions.length) return null;
  const [, H, W] = net.layers[0].shape;
  const canvas = el('canvas.why', {'aria-hidden': 'true', hidden: true});
  frame.querySelector('canvas').after(canvas);
  const label = net.labels[net.attributions[0].class];
  const about = el('div', {'aria-live': 'polite'});
  const id = `why${n}`;
  const select = el(
    'select',
    {id, onchange: () => show()},
    el('option', {value: ''}, 'nothing'),
    net.attributions.map(({title, limit}, i) => el('option', {value: i}, limit ? title : `${title} (0)`)),
  );

  async function show() {
    const chosen = net.attributions[select.value];
    frame.classList.toggle('explained', Boolean(chosen));
    canvas.hidden = !chosen;
    if (!chosen) return about.replaceChildren();
    const scale = new Heat(chosen.limit, chosen.signed);
    const bytes = await tensor(chosen.values); // 128 is 0, 128 ± 124 the ends of the scale
    if (chosen !== net.attributions[select.value]) return undefined;
    const map = Float32Array.from(bytes, byte => ((byte - 128) / 124) * scale.limit);
    paint(canvas, map, 0, H, W, scale);
    return fill(
      about,
      chosen.limit ? legend(scale, '') : el('p.note', {}, '0 everywhere: no pixel counts, as this method has it.'),
      el('p.note', {}, `${chosen.title}: ${chosen.words}.`),
    );
  }

  return el('div.because', {}, el('label', {for: id}, 'Over the picture, for ', el('b', {}, label), ': '), select, about);
}
