"""Sections of the page of a run, as HTML: notes, main numbers, drawing, weights, settings and reproduction."""

import numpy as np

from jaxgd.report.run_page.facts import RunFacts, activations, why_no_drawing
from jaxgd.report.run_page.pixels import weights_url
from jaxgd.report.run_page.words import SPLITS, class_name, number, section, text, thing

_MOST_BARS = 16  # same value as in draw.js
_MOST_NEURONS = 100
_COARSE = 16  # a frame is coarse if both sides have fewer pixels
_NAMES = {
    "sizes": "neurons per layer, inputs first",
    "activation": "activations",
    "eta": "learning rate η",
    "l2": "L2 regularization λ",
    "batch_size": "examples per mini-batch",
    "scheme": "first weights",
    "keep": "kept network",
    "by": "quantity that decides the best network",
    "data_sha256": "SHA-256 of the data",
    "data_dir": "folder of data sets",
    "gradient_norm": "‖∇C‖ after each epoch",
    "budget": "memory budget",
    "frame": "frame of the images",
}


def notes(facts: RunFacts) -> str:
    """Return the warnings about the run as paragraphs."""
    return "\n".join(f'<p class="note">{text(note)}</p>' for note in facts.notes)


def figures(facts: RunFacts) -> str:
    """Return the main numbers of the run, such as its accuracy and its number of epochs."""
    shown: list[tuple[str, str]] = []
    examined, metrics = facts.examined, facts.metrics
    if examined is not None:
        wrong, n = len(examined.assessment.mistakes), len(examined.assessment.labels)
        shown.append((number("accuracy", examined.assessment.accuracy), f"{SPLITS[examined.split]} accuracy"))
        shown.append((f"{wrong:,} of {n:,}", f"{SPLITS[examined.split]} images misread"))
    if metrics is not None:
        if examined is None and "test_accuracy" in metrics:
            shown.append((number("accuracy", metrics["test_accuracy"][-1]), "test accuracy after the last epoch"))
        shown.append((f"{facts.epochs_done:,}", "epochs"))
    if facts.kept_epoch is not None:
        shown.append((f"{facts.kept_epoch:,}", "epochs up to the best network"))
    shown.append((f"{sum(layer.w.size + layer.b.size for layer in facts.network):,}", "weights and biases"))
    entries = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in shown)
    return f'<dl class="figures">{entries}</dl>'


def drawing(facts: RunFacts) -> str:
    """Return the section with the drawing area, or with the reason why the page cannot compute the network."""
    word = thing(facts)
    if reason := why_no_drawing(facts.network):
        command = "<code>jaxgd predict</code> or <code>jaxgd.feedforward</code>"
        advice = f"To read pictures with this network, use {command}."
        return section("draw", f"Draw a {word}", f"<p>{text(reason)} {advice}</p>")
    outputs, frame = len(facts.network[-1].b), facts.frame
    # At 8×8 pixels, a drawn 4 can look like a 9.
    coarse = f" {frame.height}×{frame.width} pixels keep little of a drawing."
    coarse += " A network trained on MNIST reads drawings better."
    coarse = coarse if max(frame.height, frame.width) < _COARSE else ""
    rows = "".join(
        f'<tr><th scope="row">{class_name(facts, k)}</th><td class="bar"><span></span></td><td></td></tr>'
        for k in range(outputs if outputs <= _MOST_BARS else 10)
    )
    return section(
        "draw",
        f"Draw a {word}",
        f"""<noscript><p class="note">Drawing needs JavaScript, which is switched off.</p></noscript>
<div class="drawing" style="--aspect: {frame.width} / {frame.height}">
<div>
<canvas id="canvas" tabindex="0" role="application" aria-label="Drawing area" aria-describedby="help"></canvas>
<div class="tools">
<button type="button" id="undo" disabled>Undo</button>
<button type="button" id="clear" disabled>Clear</button>
<label>Pen <input type="range" id="pen-size" aria-label="Pen width" min="6" max="30" value="14"></label>
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
<p id="help" class="soft">Draw with a mouse, a finger or a pen. With the keyboard: arrow keys move the pen, and two
arrow keys together move it diagonally. <kbd>Space</kbd> puts the pen down or lifts it, <kbd>Backspace</kbd> undoes the
last change, and <kbd>Esc</kbd> clears the drawing.{coarse}</p>
</div>""",
    )


def weights(facts: RunFacts) -> str:
    """Return the first layer's weights as images, one for each of the first 100 neurons."""
    w, frame = np.asarray(facts.network[0].w, np.float64), facts.frame
    # If the maximum had full color, a few large weights would make all others pale.
    largest = max(float(np.percentile(np.abs(w), 99.5)), np.finfo(float).tiny)
    shown = w[:_MOST_NEURONS].reshape(-1, frame.height, frame.width)
    items = "".join(
        f'<li><img src="{weights_url(image, largest)}" width="{frame.width}" height="{frame.height}" '
        f'alt="Weights of neuron {k}"><span class="caption soft">{k}</span></li>'
        for k, image in enumerate(shown)
    )
    which = f"{len(w)} neurons" if len(w) <= _MOST_NEURONS else f"first {_MOST_NEURONS} of {len(w):,} neurons"
    edge = "If no training image has ink at a pixel, the weights of this pixel never change: their gradient is 0."
    if facts.config.get("l2"):
        edge = "If no training image has ink at a pixel, the weights of this pixel only decay."
    return section(
        "weights",
        "Weights of the first layer",
        f'<p>The weights of the {which}, each as an image: <span class="swatch positive"></span> above 0, '
        f'<span class="swatch negative"></span> below 0. Weights with |w| ≥ {largest:.3g} have full color. {edge}</p>'
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
    return section(
        "settings", "Settings and versions", f"{_pairs('Settings', rows)}{_pairs('Versions and device', made)}"
    )


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_setting(x)}" for name, x in value.items())
    return ", ".join(map(_setting, value)) if isinstance(value, list) else str(value)


def _pairs(caption: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in rows)
    return f'<h3>{caption}</h3><table class="plain settings" aria-label="{caption}"><tbody>{body}</tbody></table>'


def reproduction(facts: RunFacts) -> str:
    """Return the steps that repeat the run."""
    config = facts.config
    made = config["made_with"]
    pins = " ".join(f"{name}=={made[name]}" for name in ("jax", "jaxlib") if name in made)
    if facts.epochs_done is None or facts.ended:
        network = (
            "<li>Compare the network. The file network.safetensors of this run has the SHA-256 "
            f"<code>{facts.network_sha256}</code>. The same versions on the same kind and number of devices "
            "give the same bits.</li>"
        )
    else:
        made_so_far = f"This run has made {facts.epochs_done} of {config['epochs']} epochs."
        # The folder does not say which of three reasons holds.
        reason = "It was stopped, or an epoch made its cost or weights infinite or NaN, or it is still training."
        network = f"<li>{made_so_far} {reason} If it is not training, continue it:{_code('resume', facts.resume)}</li>"
    return section(
        "reproduce",
        "How to repeat this run",
        f"""<ol>
<li>Install jaxgd {text(made.get("jaxgd", ""))} with these versions:{_code("install", f"pip install {pins}")}</li>
<li>Get the data set {text(config["data"])}. Its images and labels have the SHA-256
<code>{text(config["data_sha256"])}</code>, which <code>config.json</code> also states.</li>
<li>Train:{_code("command", facts.command)}</li>
{network}
</ol>""",
    )


def _code(name: str, command: str) -> str:
    return (
        f'<pre id="{name}"><code>{text(command)}</code></pre>'
        f'<button type="button" data-copy="{name}" hidden>Copy</button>'
    )
