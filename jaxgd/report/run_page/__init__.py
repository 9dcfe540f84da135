"""The page of a training run: one HTML file that needs no other file and works offline."""

import base64
import hashlib
import json
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

import jaxgd
from jaxgd.report.run_page import answers, curves, sections
from jaxgd.report.run_page.facts import Examined, RunFacts, activations, why_no_drawing
from jaxgd.report.run_page.pixels import byte_text, float_text
from jaxgd.report.run_page.words import class_name, data_name, text, thing

__all__ = ["Examined", "RunFacts", "run_page"]


def run_page(facts: RunFacts) -> str:
    """Return the page of a run as HTML. The same facts give the same text."""
    script = "\n".join(_file(name) for name in ("network.js", "draw.js", "page.js"))
    config, name = facts.config, text(facts.name)
    parts = {
        "draw": sections.drawing(facts),
        "curves": curves.curves(facts),
        "confusion": answers.confusion(facts),
        "mistakes": answers.mistakes(facts),
        "weights": sections.weights(facts),
        "settings": sections.settings(facts),
        "reproduce": sections.reproduction(facts),
    }
    titles = {"draw": "Draw", "reproduce": "Repeat"}
    links = "".join(
        f'<li><a href="#{part}">{titles.get(part, part.capitalize())}</a></li>' for part, html in parts.items() if html
    )
    *first, last = map(str, config["sizes"])
    sizes = f"{', '.join(first)} and {last}"
    return Template(_file("page.html")).substitute(
        policy=_policy(script),
        generator=f"jaxgd {text(jaxgd.__version__)}",
        title=f"{name}: a run of jaxgd",
        style=_file("page.css"),
        heading=f"Run {name}",
        summary=f"A network with {sizes} neurons per layer, trained on {text(data_name(facts))}.",
        figures=sections.figures(facts),
        contents=f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        sections="\n".join([sections.notes(facts), *parts.values()]),
        footer=f"Made by <code>jaxgd report</code>, version {text(jaxgd.__version__)}. "
        "This page is complete: it loads nothing and sends nothing.",
        facts=_json({"curves": curves.curve_values(facts), "model": _model(facts)}),
        script=script,
    )


def _file(name: str) -> str:
    return (files("jaxgd.report.run_page") / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return a content security policy that lets a browser run only this script, and load nothing."""
    # The browser compares the hash of the text between the script tags.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    return "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))


def _json(value: Any) -> str:
    # An end tag inside a text would end the script element, so escape "<".
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _model(facts: RunFacts) -> dict[str, Any] | None:
    """Return the network and the example images for draw.js; None if the page cannot compute the network."""
    if why_no_drawing(facts.network):
        return None
    layers = [
        {"activation": name, "w": float_text(np.asarray(layer.w)), "b": float_text(np.asarray(layer.b))}
        for name, layer in zip(activations(facts.network), facts.network, strict=True)
    ]
    examples = []
    if (examined := facts.examined) is not None:
        examples = [
            {"pixels": byte_text(examined.images[k]), "label": class_name(facts, int(examined.assessment.labels[k]))}
            for k in examined.assessment.mistakes[: answers.MOST_EXAMPLES]
        ]
    return {
        "layers": layers,
        "frame": facts.frame._asdict(),
        "first": facts.first,
        "classes": len(facts.network[-1].b),
        "examples": examples,
        "invitation": f"Draw a {thing(facts)}: the network answers as you draw.",
    }
