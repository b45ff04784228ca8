// The picture with what a number sees of it, and the most probable classes.

/** The picture of every network of the page. */
async function showPictures() {
  const figures = await Promise.all(
    nets.map(async (net, n) => {
      const [C, H, W] = net.layers[0].shape;
      const pixels = await tensor(net.pixels);
      const canvas = el('canvas', {role: 'img', 'aria-label': `The picture as the network sees it: ${net.picture}`});
      canvas.width = W;
      canvas.height = H;
      const context = canvas.getContext('2d');
      const image = context.createImageData(W, H);
      for (let p = 0; p < H * W; p++)
        for (let c = 0; c < 4; c++) image.data[p * 4 + c] = c === 3 ? 255 : pixels[p * C + (C === 1 ? 0 : c)];
      context.putImageData(image, 0, 0);
      const over = svg('svg', {viewBox: `0 0 ${W} ${H}`, 'aria-hidden': 'true', class: 'over'});
      const seen = el('canvas', {'aria-hidden': 'true'});
      net.drawn = {canvas, over, seen, words: el('p.note')};
      const frame = el('div.frame', {}, canvas, over);
      const name = nets.length > 1 && el('h3', {}, `${'AB'[n]}: ${net.preset}`);
      return el(
        'div.shown',
        {},
        name,
        el('figure', {}, frame, el('figcaption', {}, net.picture), attributions(net, n, frame)),
        el(
          'div.about',
          {},
          guesses(net, n, await net.values(net.layers.length - 1)),
          el('div.seen', {}, nets.length === 1 && seen, net.drawn.words),
        ),
      );
    }),
  );
  fill($('picture'), el('h2.unseen', {id: 'picture-title'}, 'Picture and prediction'), figures);
}

function guesses(net, n, probabilities) {
  const last = net.layers.length - 1;
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const items = order.slice(0, 5).map(u => ({
    label: net.labels[u],
    value: probabilities[u],
    shown: percent(probabilities[u]),
    note: 'where this probability comes from',
    on: event => pick(n, last, [u], {keyed: byKey(event)}),
  }));
  return el('div.guesses', {}, el('h3', {}, 'Top 5'), bars(items, 'The most probable classes', 1));
}

/** Darken what a number does not see, and show what it sees by itself. */
function showField(net, k, at) {
  const {canvas, over, seen, words} = net.drawn;
  const [, H, W] = net.layers[0].shape;
  const [top, bottom, left, right] = net.sees(k, at);
  const [h, w] = [bottom - top, right - left];
  const all = h === H && w === W;
  fill(
    over,
    svg('path', {
      class: 'shade',
      'fill-rule': 'evenodd',
      d: `M0 0H${W}V${H}H0ZM${left} ${top}V${bottom}H${right}V${top}Z`,
    }),
    ...['halo', 'edge'].map(kind => svg('rect', {class: kind, x: left, y: top, width: w, height: h})),
  );
  words.textContent =
    h * w === 0
      ? 'sees nothing of the picture'
      : all
        ? `sees all of the picture: ${H}×${W} pixels`
        : h * w === 1
          ? `the pixel in row ${top}, column ${left}`
          : `sees rows ${top}–${bottom - 1}, columns ${left}–${right - 1}: ${h}×${w} of ${H}×${W} pixels`;
  seen.hidden = h * w <= 1 || h * w > (H * W) / 2;
  if (seen.hidden) return;
  seen.width = w;
  seen.height = h;
  seen.getContext('2d').drawImage(canvas, left, top, w, h, 0, 0, w, h);
}

/** Nothing is picked: all of the picture is light. */
function clearField({drawn: {over, seen, words}}) {
  over.replaceChildren();
  words.textContent = '';
  seen.hidden = true;
}
