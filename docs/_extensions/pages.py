"""Pages that the build writes from other files: the home page, the API reference, and the pages of the project.

The files are ignored by git. docs/README.md decides the sidebar: each of its headings is a part, and each page that a
table below it names is an entry.
"""

import os
import re
from pathlib import Path

import jaxgd

# Pages from files outside docs/.
COPIES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "examples/README.md": "project/examples.md",
    "jaxgd/data/digits/ATTRIBUTION.md": "project/attribution.md",
}
# The pages of the reference: the title, and the rooms of jaxgd whose public names it has.
REFERENCE = {
    "minimize": ("Minimize", ("descent", "state_file", "outcome")),
    "rules": ("Rules", ("rules",)),
    "curvature": ("Curvature and slices", ("curvature", "slices")),
    "network": (
        "Networks and costs",
        ("network", "activations", "cost", "backprop", "backpropagation", "network_file"),
    ),
    "train": ("Train", ("training", "history", "records", "assessment")),
    "sweep": ("Sweeps", ("sweep", "sweeps")),
    "data": ("Data", ("data",)),
    "check": ("Gradient checks", ("gradcheck",)),
    "report": ("Pictures", ("report",)),
    "errors": ("Errors", ("errors",)),
}
# An alias has the docstring of its type, so it needs one here: its page, its value and its docstring.
ALIASES = {"Network": ("network", "tuple[Layer, ...]", "The type of a network: its layers, first to last.")}

LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(#[^)\s]*)?(?=\))")


def setup(app):
    """Write the pages before the build, and rewrite the links of the others."""
    app.connect("builder-inited", write)
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True}


def write(app):
    """Write the pages. A page that has not changed keeps its date, so Sphinx does not read it again."""
    docs = Path(app.srcdir)
    for source, page in COPIES.items():
        text = moved((docs.parent / source).read_text(encoding="utf-8"), docs.parent / source, docs / page, docs)
        if page == "index.md":
            text += "\n" + sidebar((docs / "README.md").read_text(encoding="utf-8"))
        _write(docs / page, text)
    for name, text in reference().items():
        _write(docs / "api" / f"{name}.md", text)


def rewrite(app, docname, source):
    """Lead the links of a page in docs/ to the copies on the site."""
    docs = Path(app.srcdir)
    page = docs / f"{docname}.md"
    if page.parent == docs and docname != "index":
        source[0] = moved(source[0], page, page, docs)


def moved(text, source, page, docs):
    """Return the text of a page with its links relative to another place."""

    def target(link):
        path = (source.parent / link[1]).resolve()
        if path == docs / "README.md":
            path = docs / "index.md"
        copy = COPIES.get(str(path.relative_to(docs.parent))) if path.is_relative_to(docs.parent) else None
        path = docs / copy if copy else path
        return os.path.relpath(path, page.parent) + (link[2] or "")

    return LINK.sub(target, text)


def sidebar(text):
    """Return the tables of contents for the parts of docs/README.md."""
    parts = re.findall(r"(?ms)^## (.*?)$(.*?)(?=^## |\Z)", text)
    tables = []
    for title, part in parts:
        targets = re.findall(r"(?m)^\| \[[^]]*\]\(([^)#]+)\)", part)
        entries = [COPIES.get(os.path.normpath(f"docs/{target}"), target) for target in targets]
        if title == "Reference":
            entries += [f"api/{name}.md" for name in REFERENCE]
        if entries:
            tables.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *entries, "```"]))
    return "\n\n".join(tables) + "\n"


def reference():
    """Return the pages of the reference. Every public name must be on one of them."""
    pages, left = {}, set(jaxgd.__all__) - set(ALIASES)
    for page, (title, rooms) in REFERENCE.items():
        lines = [f"# {title}"]
        for room in rooms:
            names = [name for name in jaxgd.__all__ if name in left and _room(name) == room]
            left -= set(names)
            for name in sorted(names, key=_order):
                lines += ["", "```{eval-rst}", f".. {_directive(name)}:: jaxgd.{name}", *_members(name), "```"]
        for name, (home, value, docstring) in ALIASES.items():
            if home == page:
                lines += [
                    "",
                    "```{eval-rst}",
                    f".. py:type:: jaxgd.{name}",
                    f"   :canonical: {value}",
                    "",
                    f"   {docstring}",
                    "```",
                ]
        pages[page] = "\n".join(lines) + "\n"
    if left:
        raise ValueError(f"REFERENCE in docs/_extensions/pages.py has no page for {', '.join(sorted(left))}.")
    return pages


def _room(name):
    return getattr(jaxgd, name).__module__.removeprefix("jaxgd.").split(".")[0]


def _order(name):
    """Functions come first, then classes, each in the order of the alphabet."""
    return isinstance(getattr(jaxgd, name), type), name.lower()


def _directive(name):
    value = getattr(jaxgd, name)
    if isinstance(value, type):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction"


def _members(name):
    return ["   :members:"] if isinstance(getattr(jaxgd, name), type) else []


def _write(path, text):
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
