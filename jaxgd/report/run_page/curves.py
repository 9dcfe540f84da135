"""The curves of a run, and its table of epochs, as HTML."""

from typing import Any

import numpy as np

from jaxgd.history import NUMBERS
from jaxgd.report.run_page.chart import Curve, chart, thinned
from jaxgd.report.run_page.facts import RunFacts
from jaxgd.report.run_page.words import SPLITS, number, section, text

# CSS classes for the elements of a recorded value, such as one per layer. The page draws the first four elements.
_SEVERAL = ("train", "validation", "test", "other")
_MOST_STEPS = 500  # of the epoch slider
_MOST_ROWS = 200  # of the table of epochs


def column(split: str, quantity: str) -> str:
    """Return the name of a column of metrics.jsonl.

    >>> column("train", "cost"), column("test", "cost")
    ('cost', 'test_cost')
    """
    return quantity if split == "train" else f"{split}_{quantity}"


def curves(facts: RunFacts) -> str:
    """Return the section with the curves, the cost and accuracy at one epoch, and the table of epochs."""
    if facts.metrics is None:
        return ""
    metrics, epochs = facts.metrics, facts.metrics["epoch"]
    charts, splits = [], [split for split in SPLITS if _has(facts, split)]
    kept = facts.kept_epoch
    for quantity, label in (("cost", "cost C"), ("accuracy", "accuracy")):
        lines = [
            Curve(split, metrics[column(split, quantity)]) for split in splits if column(split, quantity) in metrics
        ]
        drawn = chart(label, epochs, lines, accuracy=quantity == "accuracy", mark=kept) if lines else ""
        if drawn:
            charts.append(f"<div><h3>{label}</h3>{drawn}</div>")
    charts += _others(facts)
    rows = thinned(len(epochs), _MOST_STEPS)
    at = min(rows, key=lambda k: abs(epochs[k] - (epochs[-1] if kept is None else kept)))
    values = "".join(
        f'<tr><th scope="row">{_key(split)}{SPLITS[split]}</th>'
        + "".join(
            f'<td class="number" data-column="{column(split, quantity)}">{_value(metrics, split, quantity, at)}</td>'
            for quantity in ("cost", "accuracy")
        )
        + "</tr>"
        for split in splits
    )
    marked = "" if kept is None else " The solid vertical line marks the best network, which this page shows."
    return section(
        "curves",
        "Curves",
        f"""<div class="charts">{"".join(charts)}</div>
<div class="epoch"><label for="epoch">After <b id="epoch-number">{int(epochs[at])}</b> epochs</label>
<input type="range" id="epoch" min="0" max="{len(rows) - 1}" step="1" value="{rows.index(at)}"></div>
<table class="plain" aria-label="Cost and accuracy">
<thead><tr><th scope="col">examples</th><th scope="col">cost</th><th scope="col">accuracy</th></tr></thead>
<tbody>{values}</tbody></table>
<p class="soft">The values after 0 epochs are those of the first weights. <code>jaxgd train</code> counts epochs
from 0: it prints the values after 1 epoch as Epoch 0. The axis of the accuracy is logarithmic in the error.{marked}</p>
{_epochs(facts, splits)}""",
    )


def _key(name: str) -> str:
    return f'<svg class="key" viewBox="0 0 36 8" aria-hidden="true"><path class="curve {name}" d="M0 4H36"/></svg>'


def _others(facts: RunFacts) -> list[str]:
    """Return the charts of the lengths of the gradient and the step, and of the recorded values."""
    assert facts.metrics is not None
    names = {"gradient_norm": "length of the gradient ‖∇C‖", "step_norm": "length of the step ‖Δv‖"}
    recorded = [name for name in facts.metrics if name not in (*NUMBERS, "best_epoch")]
    charts = []
    for name in (*names, *recorded):
        values = facts.metrics.get(name)
        if values is None:
            continue
        every = values.reshape(len(values), -1).T
        rows = every[: len(_SEVERAL)]
        classes = _SEVERAL[: len(rows)] if len(rows) > 1 else ["other"]
        label = names.get(name, text(name.replace("_", " ")))
        if len(every) > len(rows):
            label += f", the first {len(rows)} of {len(every):,} values"
        lines = [Curve(*pair) for pair in zip(classes, rows, strict=True)]
        drawn = chart(label, facts.metrics["epoch"], lines)
        keys = "".join(f"<span>{_key(one)}{k}</span>" for k, one in enumerate(classes, 1)) if len(rows) > 1 else ""
        if drawn:
            charts.append(f'<div><h3>{label}</h3>{drawn}<p class="keys">{keys}</p></div>')
    return charts


def curve_values(facts: RunFacts) -> dict[str, Any] | None:
    """Return the costs and the accuracies as texts, for the epoch slider."""
    if facts.metrics is None:
        return None
    rows = thinned(len(facts.metrics["epoch"]), _MOST_STEPS)
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
    """Return the table of epochs. If metrics.jsonl has more than 200 rows, the table shows 200 of them."""
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
        f'<div class="tall" tabindex="0" role="group" aria-label="Table of epochs"><table class="plain"><thead><tr>'
        f'<th scope="col">epochs</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
