// The drawing: a pen for mouse, touch and keyboard, and the network's answer.

const MOST_BARS = 16; // with more outputs, the page shows the ten largest activations
const PAUSE = 700; // milliseconds without a change before the answer is announced

// Keys that move the pen, with their moves as [columns, rows]. Two arrow keys together move the pen diagonally. Each
// of Home, PageUp, End and PageDown also moves it diagonally.
const MOVES = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  Home: [-1, -1], PageUp: [1, -1], End: [-1, 1], PageDown: [1, 1],
};

function startDrawing(model) {
  const {frame, classes, first: firstLabel} = model, layers = decoded(model.layers);
  const find = id => document.getElementById(id);
  const canvas = find('canvas'), pen = canvas.getContext('2d'), size = find('pen-size');
  // The longer side of the drawing is about 280 pixels, or twice the longer side of the frame if that is more.
  const factor = Math.max(2, Math.round(280 / Math.max(frame.height, frame.width)));
  const rows = frame.height * factor, columns = frame.width * factor;
  // The width of the pen is in percent of the longer side of the box into which the ink is scaled.
  const radius = () => Number(size.value) / 200 * factor * Math.max(frame.box_height, frame.box_width);
  const step = Math.max(rows, columns) / 28;
  let strokes = [], earlier = [], image = paper(rows, columns), example = null;
  let pointer = null, waiting = false, announcing = 0, announced = model.invitation;
  const key = {x: columns / 2, y: rows / 2, down: false, held: new Set(), used: false};

  // The edits of the drawing.

  function change(next) {
    earlier.push(strokes);
    strokes = next;
  }

  function begin(point) {
    if (example) clear();
    change([...strokes, {radius: radius(), points: [point]}]);
    drawLine(image, point, point, radius());
    refresh();
  }

  function extend(point) {
    const stroke = strokes[strokes.length - 1];
    drawLine(image, stroke.points[stroke.points.length - 1], point, stroke.radius);
    stroke.points.push(point);
  }

  function replay() {
    image = paper(rows, columns);
    for (const {points, radius} of strokes) {
      points.forEach((point, i) => drawLine(image, points[Math.max(i - 1, 0)], point, radius));
    }
    refresh();
  }

  function undo() {
    if (example) example = null;
    else if (earlier.length) strokes = earlier.pop();
    lift();
    replay();
  }

  function clear() {
    example = null;
    if (strokes.length) change([]);
    lift();
    replay();
  }

  function lift() {
    pointer = null;
    key.down = false;
  }

  // Mouse, pen and touch.

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * columns, (event.clientY - box.top) / box.height * rows];
  }

  canvas.addEventListener('pointerdown', event => {
    if (pointer !== null || event.button !== 0) return;
    lift();
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    key.used = false;
    begin(place(event));
  });
  canvas.addEventListener('pointermove', event => {
    if (event.pointerId !== pointer) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    (events.length ? events : [event]).forEach(one => extend(place(one)));
    refresh();
  });
  for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) {
    canvas.addEventListener(name, event => { if (event.pointerId === pointer) pointer = null; });
  }

  // The keyboard.

  function move() {
    let [x, y] = [0, 0];
    for (const name of key.held) [x, y] = [x + MOVES[name][0], y + MOVES[name][1]];
    key.x = Math.min(Math.max(key.x + step * Math.sign(x), 0), columns);
    key.y = Math.min(Math.max(key.y + step * Math.sign(y), 0), rows);
    if (key.down) extend([key.x, key.y]);
    refresh();
  }

  function toggle() {
    key.down = !key.down;
    if (key.down) begin([key.x, key.y]);
    else refresh();
    announce(key.down ? 'Pen down.' : 'Pen up.');
  }

  canvas.addEventListener('keydown', event => {
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey || (command && event.key !== 'z')) return;
    if (event.key in MOVES) {
      key.held.add(event.key);
      key.used = true;
      move();
    } else if (event.key === ' ' || event.key === 'Enter') {
      key.used = true;
      if (!event.repeat) toggle();
    } else if (event.key === 'Escape' || event.key === 'Delete') {
      clear();
    } else if (event.key === 'Backspace' || (command && event.key === 'z')) {
      undo();
    } else {
      return;
    }
    event.preventDefault();
  });
  canvas.addEventListener('keyup', event => key.held.delete(event.key));
  canvas.addEventListener('blur', () => {
    key.held.clear();
    refresh();
  });
  canvas.addEventListener('focus', refresh);

  find('undo').addEventListener('click', undo);
  find('clear').addEventListener('click', clear);
  for (const button of document.querySelectorAll('[data-example]')) {
    button.addEventListener('click', () => {
      const {pixels, label} = model.examples[button.dataset.example];
      example = {height: frame.height, width: frame.width, gray: bytes(pixels), label};
      lift();
      refresh();
      find('draw').scrollIntoView();
      canvas.focus({preventScroll: true});
    });
  }

  // The display.

  // Many events can arrive between two repaints of the screen, so draw once per repaint.
  function refresh() {
    if (!waiting) requestAnimationFrame(show);
    waiting = true;
  }

  function show() {
    waiting = false;
    const seen = example || fitToFrame(image, frame);
    showImage(seen);
    showStrokes();
    showAnswer(seen && feedforward(layers, seen.gray));
    find('undo').disabled = !earlier.length && !example;
    find('clear').disabled = !strokes.length && !example;
  }

  function showStrokes() {
    const box = canvas.getBoundingClientRect(), style = getComputedStyle(canvas);
    const width = Math.round(box.width * devicePixelRatio), height = Math.round(box.height * devicePixelRatio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
    pen.setTransform(width / columns, 0, 0, height / rows, 0, 0);
    pen.clearRect(0, 0, columns, rows);
    pen.lineCap = pen.lineJoin = 'round';
    pen.strokeStyle = style.color;
    if (example) {
      pen.imageSmoothingEnabled = false;
      pen.drawImage(find('input'), 0, 0, columns, rows);
      // The image is black, so paint it in the color of the ink.
      pen.globalCompositeOperation = 'source-in';
      pen.fillStyle = style.color;
      pen.fillRect(0, 0, columns, rows);
      pen.globalCompositeOperation = 'source-over';
    }
    for (const {points, radius} of example ? [] : strokes) {
      pen.lineWidth = 2 * radius;
      pen.beginPath();
      points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.lineTo(...points[points.length - 1]);
      pen.stroke();
    }
    if (key.used && document.activeElement === canvas) {
      pen.lineWidth = columns / 100;
      pen.strokeStyle = style.outlineColor;
      pen.beginPath();
      pen.arc(key.x, key.y, radius() + pen.lineWidth, 0, 2 * Math.PI);
      if (!key.down) pen.setLineDash([columns / 40, columns / 40]);
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  function showImage(seen) {
    const input = find('input'), context = input.getContext('2d');
    const pixels = context.createImageData(frame.width, frame.height);
    // The pixels are black, with the ink as their opacity. On a dark page, a CSS filter makes them white.
    if (seen) seen.gray.forEach((ink, i) => { pixels.data[4 * i + 3] = ink; });
    context.putImageData(pixels, 0, 0);
  }

  function showAnswer(a) {
    const order = a && Array.from(a.keys()).sort((i, j) => a[j] - a[i] || i - j);
    showBars(a, order);
    find('digit').textContent = a ? order[0] + firstLabel : '–';
    const words = a ? answer(a, order) : model.invitation;
    find('answer').textContent = words;
    clearTimeout(announcing);
    if (words !== announced) announcing = setTimeout(() => announce(announced = words), PAUSE);
  }

  function answer(a, order) {
    const [first, second] = order, about = i => `${i + firstLabel} (${a[i].toFixed(2)})`;
    const next = a[second] >= 0.005 ? `, and ${about(second)} next` : '';
    const read = a[first] >= 0.5
      ? `The network reads ${about(first)}${next}.`
      : `The network is not sure. The largest activation is that of ${about(first)}.`;
    return example ? `${read} The label is ${example.label}.` : read;
  }

  function showBars(a, order) {
    const many = classes > MOST_BARS, table = find('bars').tBodies[0];
    const most = a ? Math.max(1, ...order.slice(0, 1).map(i => a[i])) : 1;
    Array.from(table.rows).forEach((row, i) => {
      const output = many && order ? order[i] : i, value = a ? a[output] : 0;
      row.cells[0].textContent = output + firstLabel;
      row.cells[1].firstElementChild.style.width = `${100 * Math.min(Math.max(value / most, 0), 1)}%`;
      row.cells[2].textContent = a ? value.toFixed(2) : '';
      row.classList.toggle('strongest', Boolean(a) && output === order[0]);
    });
  }

  function announce(words) {
    find('status').textContent = words;
  }

  new ResizeObserver(refresh).observe(canvas);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', refresh);
  size.addEventListener('input', refresh);
  refresh();
}
