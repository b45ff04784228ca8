// Many small pictures, each a button. They are painted on one canvas under the buttons: hundreds of canvases would keep the
// browser busy for longer than all the arithmetic.

const THUMB = 50; // about how wide one is, in CSS pixels
const DETAIL = 26; // a picture of fewer pixels is enlarged to about so many, so that the line around it stays thin

/** `order`: the numbers of the pictures as they are laid out; `name(c)`, `pixel(c, p)`: what number c is called, and its
 *  pixel p as canvases keep it. Gives the element, and `press(c)`, to be called once the element is in the page. */
function thumbnails(title, {order, H, W, name, pixel}) {
  const buttons = order.map(c => el('button', {type: 'button', title: name(c), 'aria-label': name(c)}));
  const canvas = el('canvas', {'aria-hidden': 'true'});
  const sheet = el('div.sheet', {}, canvas, buttons);
  const element = el('div.grid', {role: 'group', 'aria-label': title}, sheet);
  let across = 0;

  function lay() {
    across = Math.min(order.length, Math.max(3, Math.floor(element.clientWidth / THUMB)));
    sheet.style.gridTemplateColumns = `repeat(${across}, 1fr)`;
    sheet.style.width = `${Math.min(100, (100 * across * THUMB * 1.3) / element.clientWidth)}%`;
    sheet.style.setProperty('--shape', `${W} / ${H}`);
    paintSheet(canvas, {order, H, W, pixel, across});
  }

  function press(c) {
    if (!across) lay();
    buttons.forEach((button, b) => {
      button.setAttribute('aria-pressed', String(order[b] === c));
      button.tabIndex = order[b] === c ? 0 : -1;
    });
    reveal(buttons[order.indexOf(c)], element);
  }

  element.addEventListener('click', event => {
    const c = order[buttons.indexOf(event.target.closest('button'))];
    if (c !== undefined) chooseMap(c);
  });
  element.addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across}[event.key];
    const to = step && buttons[buttons.indexOf(document.activeElement) + step];
    if (!to) return;
    to.focus();
    event.preventDefault();
  });
  return {element, press};
}

/** All pictures on one canvas, a transparent pixel around each. */
function paintSheet(canvas, {order, H, W, pixel, across}) {
  const times = Math.max(1, Math.round(DETAIL / W));
  const [h, w] = [H * times + 2, W * times + 2];
  canvas.width = across * w;
  canvas.height = Math.ceil(order.length / across) * h;
  const context = canvas.getContext('2d');
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  order.forEach((c, n) => {
    const corner = (Math.floor(n / across) * h + 1) * canvas.width + (n % across) * w + 1;
    for (let i = 0; i < H * times; i++)
      for (let j = 0; j < W * times; j++)
        pixels[corner + i * canvas.width + j] = pixel(c, Math.floor(i / times) * W + Math.floor(j / times));
  });
  context.putImageData(image, 0, 0);
}
