// Show the values at the chosen epoch, copy commands to the clipboard, and start the drawing.

function startCurves({epochs, columns}) {
  const slider = document.getElementById('epoch');
  const show = () => {
    const at = Number(slider.value);
    document.getElementById('epoch-number').textContent = epochs[at];
    slider.setAttribute('aria-valuetext', `after ${epochs[at]} epochs`);
    for (const cell of document.querySelectorAll('[data-column]')) {
      cell.textContent = columns[cell.dataset.column][at];
    }
    for (const chart of document.querySelectorAll('svg[data-left]')) {
      const {left, right} = chart.dataset, last = epochs.length - 1;
      const share = last ? (epochs[at] - epochs[0]) / (epochs[last] - epochs[0]) : 0.5;
      const x = Number(left) + share * (right - left), line = chart.querySelector('.cursor');
      line.setAttribute('x1', x);
      line.setAttribute('x2', x);
    }
  };
  for (const chart of document.querySelectorAll('svg[data-left]')) {
    chart.addEventListener('pointermove', event => {
      const box = chart.getBoundingClientRect(), {left, right} = chart.dataset;
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      const share = Math.min(Math.max((x - left) / (right - left), 0), 1);
      const epoch = epochs[0] + share * (epochs[epochs.length - 1] - epochs[0]);
      const distance = epochs.map(one => Math.abs(one - epoch));
      slider.value = distance.indexOf(Math.min(...distance));
      show();
    });
  }
  slider.addEventListener('input', show);
  show();
}

function startCopying(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  button.hidden = !navigator.clipboard;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  });
}

const facts = JSON.parse(document.getElementById('facts').textContent);
if (facts.curves) startCurves(facts.curves);
if (facts.model) startDrawing(facts.model);
document.querySelectorAll('[data-copy]').forEach(startCopying);
