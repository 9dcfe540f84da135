"""The sections of the page of a run, as HTML. Every text from outside passes through `text`."""

import html
from pathlib import PurePath
from typing import Any

import numpy as np

from jaxgd.report.run_page.chart import Curve, chart, thinned
from jaxgd.report.run_page.facts import RunFacts, activations, why_no_drawing
from jaxgd.report.run_page.pixels import ink_url, weights_url

MOST_EXAMPLES = 60
_MOST_CLASSES = 20  # of a confusion matrix
_MOST_BARS = 16  # as in draw.js
_MOST_NEURONS = 100
_MOST_ROWS = 200  # of the table of epochs

SPLITS = {"train": "training", "validation": "validation", "test": "test"}
# The things to draw. Names of data sets that are not here hold digits, as far as jaxgd knows.
_THINGS = {"fashion_mnist": "garment", "kmnist": "character"}
_NAMES = {
    "sizes": "neurons per layer, inputs first",
    "eta": "learning rate η",
    "batch_size": "examples per mini-batch",
    "scheme": "first weights",
    "data_sha256": "SHA-256 of the data",
    "data_dir": "folder of data sets",
    "gradient_norm": "‖∇C‖ after each epoch",
    "budget": "memory budget",
    "frame": "frame of the images",
}


def text(value: object) -> str:
    """Return a value as text of HTML.

    >>> text("<a & b>")
    '&lt;a &amp; b&gt;'
    """
    return html.escape(str(value))


def thing(facts: RunFacts) -> str:
    """Return the word for an image of the run's data set, such as "digit"."""
    return _THINGS.get(facts.config["data"], "digit")


def column(split: str, quantity: str) -> str:
    """Return the name of a column of metrics.jsonl.

    >>> column("train", "cost"), column("test", "cost")
    ('cost', 'test_cost')
    """
    return quantity if split == "train" else f"{split}_{quantity}"


def data_name(facts: RunFacts) -> str:
    """Return the name of the run's data set: that of a folder without the folders above it."""
    return PurePath(facts.config["data"]).name or str(facts.config["data"])


def number(quantity: str, value: float) -> str:
    """Return a cost or an accuracy as text; a dash for NaN.

    >>> number("accuracy", 0.9244), number("cost", 0.0637457), number("cost", float("nan"))
    ('92.44%', '0.06375', '–')
    """
    if not np.isfinite(value):
        return "–"
    return f"{value:.2%}" if quantity == "accuracy" else f"{value:.4g}"


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n{content}\n</section>'


def notes(facts: RunFacts) -> str:
    """Return what is missing, and how to get it."""
    return "\n".join(f'<p class="note">{text(note)}</p>' for note in facts.notes)


def figures(facts: RunFacts) -> str:
    """Return the main figures of the run."""
    shown: list[tuple[str, str]] = []
    found, metrics = facts.examined, facts.metrics
    if found is not None:
        wrong, n = len(found.assessment.mistakes), len(found.assessment.labels)
        shown.append((number("accuracy", found.assessment.accuracy), f"{SPLITS[found.part]} accuracy"))
        shown.append((f"{wrong:,} of {n:,}", f"{SPLITS[found.part]} images misread"))
    if metrics is not None:
        if found is None and "test_accuracy" in metrics:
            shown.append((number("accuracy", metrics["test_accuracy"][-1]), "test accuracy after the last epoch"))
        shown.append((f"{int(metrics['epoch'][-1]):,}", "epochs"))
    shown.append((f"{sum(layer.w.size + layer.b.size for layer in facts.network):,}", "weights and biases"))
    entries = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in shown)
    return f'<dl class="figures">{entries}</dl>'


def drawing(facts: RunFacts) -> str:
    """Return the section in which the reader draws."""
    word = thing(facts)
    if reason := why_no_drawing(facts.network):
        command = '<code>jaxgd predict</code> or <code>jaxgd.feedforward</code>'
        return _section("draw", f"Draw a {word}", f"<p>{text(reason)} To read pictures with it, use {command}.</p>")
    outputs, frame = len(facts.network[-1].b), facts.frame
    rows = "".join(
        f'<tr><th scope="row">{k}</th><td class="bar"><span></span></td><td></td></tr>'
        for k in range(outputs if outputs <= _MOST_BARS else 10)
    )
    return _section(
        "draw",
        f"Draw a {word}",
        f"""<noscript><p class="note">Drawing needs JavaScript, which is switched off.</p></noscript>
<div class="drawing" style="--aspect: {frame.width} / {frame.height}">
<div>
<canvas id="canvas" tabindex="0" role="application" aria-label="Drawing area" aria-describedby="help"></canvas>
<div class="tools">
<button type="button" id="undo" disabled>Undo</button>
<button type="button" id="clear" disabled>Clear</button>
<label>Pen <input type="range" id="pen-size" min="6" max="30" value="14"></label>
</div>
</div>
<div>
<div class="reading">
<figure>
<canvas id="input" class="ink" width="{frame.width}" height="{frame.height}" role="img"
aria-label="The image that the network sees"></canvas>
<figcaption>The network sees {frame.height}×{frame.width} pixels.</figcaption>
</figure>
<div id="digit" aria-hidden="true">–</div>
<p id="answer"></p>
</div>
<p id="status" class="hidden" role="status" aria-live="polite"></p>
<table id="bars"><caption>Activations of the outputs</caption><tbody>{rows}</tbody></table>
</div>
<p id="help" class="soft">Draw with a mouse, a finger or a pen. With the keyboard: arrow keys move the pen, two together
diagonally, <kbd>Space</kbd> puts it down and lifts it, <kbd>Backspace</kbd> undoes, <kbd>Esc</kbd> clears.</p>
</div>""",
    )


def curves(facts: RunFacts) -> str:
    """Return the curves of cost and accuracy, and their values at each epoch."""
    if facts.metrics is None:
        return ""
    metrics, epochs = facts.metrics, facts.metrics["epoch"]
    charts, splits = [], [split for split in SPLITS if _has(facts, split)]
    for quantity, label in (("cost", "cost C"), ("accuracy", "accuracy")):
        lines = [
            Curve(split, metrics[column(split, quantity)]) for split in splits if column(split, quantity) in metrics
        ]
        drawn = chart(label, epochs, lines, accuracy=quantity == "accuracy") if lines else ""
        if drawn:
            charts.append(f"<div><h3>{label}</h3>{drawn}</div>")
    for name, label in (("gradient_norm", "length of the gradient ‖∇C‖"), ("step_norm", "length of the step ‖Δv‖")):
        drawn = chart(label, epochs, [Curve("other", metrics[name])]) if name in metrics else ""
        if drawn:
            charts.append(f"<div><h3>{label}</h3>{drawn}</div>")
    last = len(epochs) - 1
    rows = "".join(
        f'<tr><th scope="row"><svg class="key" viewBox="0 0 36 8" aria-hidden="true"><path class="curve {split}" '
        f'd="M0 4H36"/></svg>{SPLITS[split]}</th>'
        + "".join(
            f'<td class="number" data-column="{column(split, quantity)}">{_value(metrics, split, quantity, last)}</td>'
            for quantity in ("cost", "accuracy")
        )
        + "</tr>"
        for split in splits
    )
    return _section(
        "curves",
        "Curves",
        f"""<div class="charts">{"".join(charts)}</div>
<div class="epoch"><label for="epoch">Epoch <b id="epoch-number">{int(epochs[-1])}</b></label>
<input type="range" id="epoch" min="0" max="{len(thinned(len(epochs), MOST_STEPS)) - 1}" step="1"
value="{len(thinned(len(epochs), MOST_STEPS)) - 1}"></div>
<table class="plain"><thead><tr><th scope="col">examples</th><th scope="col">cost</th><th scope="col">accuracy</th></tr>
</thead><tbody>{rows}</tbody></table>
<p class="soft">Epoch 0 is the start. The axis of the accuracy is logarithmic in the error.</p>
{_epochs(facts, splits)}""",
    )


MOST_STEPS = 500  # of the slider of epochs


def curve_values(facts: RunFacts) -> dict[str, Any] | None:
    """Return the values of the curves as texts, for the slider of epochs."""
    if facts.metrics is None:
        return None
    rows = thinned(len(facts.metrics["epoch"]), MOST_STEPS)
    columns = {
        column(split, quantity): [_value(facts.metrics, split, quantity, k) for k in rows]
        for split in SPLITS
        if _has(facts, split)
        for quantity in ("cost", "accuracy")
    }
    return {"epochs": [int(facts.metrics["epoch"][k]) for k in rows], "columns": columns}


def _has(facts: RunFacts, split: str) -> bool:
    assert facts.metrics is not None
    values = facts.metrics.get(column(split, "cost"))
    return values is not None and bool(np.isfinite(values).any())


def _value(metrics: dict[str, Any], split: str, quantity: str, k: int) -> str:
    values = metrics.get(column(split, quantity))
    return "–" if values is None else number(quantity, float(values[k]))


def _epochs(facts: RunFacts, splits: list[str]) -> str:
    """Return the table of all epochs, or of some of many."""
    assert facts.metrics is not None
    kept = thinned(len(facts.metrics["epoch"]), _MOST_ROWS)
    pairs = [(split, quantity) for quantity in ("cost", "accuracy") for split in splits]
    heads = "".join(f'<th scope="col">{SPLITS[split]} {quantity}</th>' for split, quantity in pairs)
    rows = "".join(
        f'<tr><th scope="row">{int(facts.metrics["epoch"][k])}</th>'
        + "".join(f'<td class="number">{_value(facts.metrics, *pair, k)}</td>' for pair in pairs)
        + "</tr>"
        for k in kept
    )
    count = len(facts.metrics["epoch"])
    which = "All epochs" if len(kept) == count else f"{len(kept)} of {count:,} epochs"
    return (
        f"<details><summary>{which} as a table</summary>"
        f'<div class="tall" tabindex="0" role="region" aria-label="Table of epochs"><table class="plain"><thead><tr>'
        f'<th scope="col">epoch</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def confusion(facts: RunFacts) -> str:
    """Return the confusion matrix, or the most frequent confusions of many classes."""
    if facts.examined is None:
        return ""
    found = facts.examined.assessment
    matrix = found.confusion
    k = len(matrix)
    off = matrix * (1 - np.eye(k, dtype=int))
    frequent = [divmod(int(cell), k) for cell in np.argsort(-off, axis=None, kind="stable")[:20] if off.flat[cell]]
    several = "; ".join(f"{i} read as {j}, {off[i, j]:,} times" for i, j in frequent[: 5 if k <= _MOST_CLASSES else 20])
    words = f"<p>The most frequent mistakes: {several}.</p>" if several else "<p>Every image is read correctly.</p>"
    if unread := len(found.labels) - int(matrix.sum()):
        words += f"<p>{unread:,} images have no answer, because an output is NaN.</p>"
    return _section(
        "confusion",
        "Confusion matrix",
        f"<p>{_examined(facts)}</p>{_matrix(matrix, found.class_accuracy) if k <= _MOST_CLASSES else ''}{words}",
    )


def _examined(facts: RunFacts) -> str:
    assert facts.examined is not None
    n = len(facts.examined.assessment.labels)
    return f"The {n:,} {SPLITS[facts.examined.part]} images of {text(facts.examined.data)}."


def _matrix(matrix: Any, class_accuracy: Any) -> str:
    k = len(matrix)
    off = max(int((matrix * (1 - np.eye(k, dtype=int))).max()), 1)
    rows = []
    for i, line in enumerate(matrix):
        cells = "".join(_cell(i == j, int(count), int(line.sum()), off) for j, count in enumerate(line))
        accuracy = "–" if np.isnan(class_accuracy[i]) else f"{100 * class_accuracy[i]:.1f}"
        rows.append(f'<tr><th scope="row">{i}</th>{cells}<td class="accuracy">{accuracy}</td></tr>')
    heads = "".join(f'<th scope="col">{j}</th>' for j in range(k))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="matrix">'
        "<caption>rows: label; columns: answer; last column: accuracy of the class in percent</caption>"
        f'<thead><tr><td></td>{heads}<th scope="col">%</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _cell(right: bool, count: int, of_class: int, most: int) -> str:
    """Return a cell whose color grows with its count: a right one within its class, a wrong one among the wrong."""
    if count == 0:
        return '<td class="zero">0</td>'
    share = 0.5 * count / of_class if right else 0.12 + 0.48 * count / most
    return f'<td class="{"right" if right else "wrong"}" style="--share: {share:.2f}">{count}</td>'


def mistakes(facts: RunFacts) -> str:
    """Return the misread images, the most confident mistakes first."""
    if facts.examined is None or not len(facts.examined.assessment.mistakes):
        return ""
    found, images = facts.examined.assessment, facts.examined.images
    shown, clickable = found.mistakes[:MOST_EXAMPLES], not why_no_drawing(facts.network)
    items = []
    for place, k in enumerate(shown):
        label, answer = int(found.labels[k]), int(found.answers[k])
        words = f"{label} read as {answer}" if answer >= 0 else f"{label}, no answer"
        read = f"{label} → {answer if answer >= 0 else 'none'}"
        activation = f"{float(found.outputs[k, answer]):.2f}" if answer >= 0 else "NaN"
        height, width = images.shape[1:]
        content = (
            f'<img class="ink" src="{ink_url(images[k])}" width="{width}" height="{height}" alt="{words}">'
            f'<span class="caption"><span aria-hidden="true">{read}</span><br><span class="soft">{activation}</span></span>'
        )
        button = f'<button type="button" data-example="{place}">{content}</button>' if clickable else content
        items.append(f"<li>{button}</li>")
    total = len(found.mistakes)
    which = f"All {total:,}" if total == len(shown) else f"The {len(shown)} most confident of {total:,}"
    more = " Press one to see its activations." if clickable else ""
    return _section(
        "mistakes",
        f"Misread {thing(facts)}s",
        f"<p>{which}: label → answer, and the activation of the answer.{more}</p>"
        f'<ul class="gallery">{"".join(items)}</ul>',
    )


def weights(facts: RunFacts) -> str:
    """Return the first layer's weights as images, one per neuron."""
    w, frame = np.asarray(facts.network[0].w, np.float64), facts.frame
    # A few large weights would make all others pale.
    largest = max(float(np.percentile(np.abs(w), 99.5)), np.finfo(float).tiny)
    shown = w[:_MOST_NEURONS].reshape(-1, frame.height, frame.width)
    items = "".join(
        f'<li><img src="{weights_url(image, largest)}" width="{frame.width}" height="{frame.height}" '
        f'alt="Weights of neuron {k}"><span class="caption soft">{k}</span></li>'
        for k, image in enumerate(shown)
    )
    which = f"{len(w)} neurons" if len(w) <= _MOST_NEURONS else f"first {_MOST_NEURONS} of {len(w):,} neurons"
    return _section(
        "weights",
        "Weights of the first layer",
        f'<p>The weights of the {which}, each as an image: <span class="swatch positive"></span> above 0, '
        f'<span class="swatch negative"></span> below 0. The full color is a size of {largest:.3g} or more. A pixel '
        "without ink in every training image keeps the first random value of its weight, because its gradient is 0.</p>"
        f'<ul class="gallery weights">{items}</ul>',
    )


def settings(facts: RunFacts) -> str:
    """Return the settings and the versions of the run."""
    config = facts.config
    shown = {name: value for name, value in config.items() if name != "made_with" and value is not None}
    rows = [(_NAMES.get(name, name.replace("_", " ")), _setting(value)) for name, value in shown.items()]
    if "activation" not in config:
        rows.insert(0, ("activations", ", ".join(activations(facts.network))))
    made = [(name, str(value)) for name, value in config["made_with"].items()]
    return _section(
        "settings", "Settings and versions", f"{_pairs('Settings', rows)}{_pairs('Versions and device', made)}"
    )


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(x)}" for name, x in value.items())
    return ", ".join(map(_setting, value)) if isinstance(value, list) else str(value)


def _pairs(caption: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in rows)
    return f'<h3>{caption}</h3><table class="plain settings"><tbody>{body}</tbody></table>'


def reproduction(facts: RunFacts) -> str:
    """Return the steps that repeat the run."""
    config = facts.config
    made = config["made_with"]
    pins = " ".join(f"{name}=={made[name]}" for name in ("jax", "jaxlib") if name in made)
    done = None if facts.metrics is None else int(facts.metrics["epoch"][-1])
    if done is None or done >= config["epochs"]:
        network = (
            "<li>Compare the network. The file network.safetensors of this run has the SHA-256 "
            f"<code>{facts.network_sha256}</code>. The same versions on the same kind of device give the same bits.</li>"
        )
    else:
        network = f"<li>This run has made {done} of {config['epochs']} epochs. Continue it with:{_code('resume', facts.resume)}</li>"
    return _section(
        "reproduce",
        "How to repeat this run",
        f"""<ol>
<li>Install jaxgd {text(made.get("jaxgd", ""))} with these versions:{_code("install", f"pip install {pins}")}</li>
<li>Get the data set {text(config["data"])}. Its images and labels have the SHA-256
<code>{text(config["data_sha256"])}</code>, which <code>config.json</code> of each run states.</li>
<li>Train:{_code("command", facts.command)}</li>
{network}
</ol>""",
    )


def _code(name: str, command: str) -> str:
    return (
        f'<pre id="{name}"><code>{text(command)}</code></pre>'
        f'<button type="button" data-copy="{name}" hidden>Copy</button>'
    )
