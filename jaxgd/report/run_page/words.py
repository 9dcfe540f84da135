"""The words and numbers of the page of a run. `text` escapes a text from the run folder or the data for HTML."""

import html
from pathlib import PurePath

import numpy as np

from jaxgd.data.registry import DATASETS, Entry
from jaxgd.report.run_page.facts import RunFacts

SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def text(value: object) -> str:
    """Return a value as a text that is escaped for HTML.

    >>> text("<a & b>")
    '&lt;a &amp; b&gt;'
    """
    return html.escape(str(value))


def thing(facts: RunFacts) -> str:
    """Return the word for an image of the run's data set, such as "digit"."""
    # jaxgd assumes that the images of a user's own folder are digits.
    return DATASETS.get(facts.config["data"], Entry()).image


def data_name(facts: RunFacts) -> str:
    """Return the name of the run's data set, or the last part of its path."""
    return PurePath(facts.config["data"]).name or str(facts.config["data"])


def class_name(facts: RunFacts, k: int) -> str:
    """Return the label of a class in the files of the data set; "none" for −1, which stands for no answer."""
    return "none" if k < 0 else str(k + facts.first)


def number(quantity: str, value: float) -> str:
    """Return a cost or an accuracy as text; a dash if it is infinite or NaN.

    >>> number("accuracy", 0.9244), number("cost", 0.0637457), number("cost", float("nan"))
    ('92.44%', '0.06375', '–')
    """
    if not np.isfinite(value):
        return "–"
    return f"{value:.2%}" if quantity == "accuracy" else f"{value:.4g}"


def section(name: str, title: str, content: str) -> str:
    """Return a section of the page with its heading."""
    heading = f'<h2 id="{name}-title">{title}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{heading}\n{content}\n</section>'
