"""Pages that the build writes from other files: the home page, the API reference, and the pages of the project.

Git ignores these pages. docs/README.md decides the sidebar: each of its headings "##" is a part, and each page in the
table below the heading is an entry. The part "API" comes from REFERENCE.
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
# The pages of the reference: a title, the modules whose public names the page has, and other names to document there.
REFERENCE = {
    "minimize": ("Minimize", ("descent", "state_file", "outcome"), ()),
    "rules": ("Rules", ("rules",), ()),
    "curvature": ("Curvature and slices", ("curvature", "slices"), ()),
    "network": ("Networks and costs", ("network", "activations", "cost", "backpropagation", "network_file"), ()),
    "train": ("Train", ("training", "history", "records", "assessment"), ("kernels.choice.BackendChoice",)),
    "sweep": ("Sweeps", ("sweeps",), ()),
    "data": ("Data", ("data",), ("mesh.place", "mesh.Placed")),
    "check": ("Gradient checks", ("gradcheck",), ("gradcheck.report.LeafReport", "gradcheck.report.Consistency")),
    "report": ("Pictures", ("report",), ()),
    "errors": ("Errors", ("errors",), ()),
}
# autodoc would show the docstring of `tuple` for this type alias, so its text is written here.
NETWORK = """.. py:type:: jaxgd.Network
   :canonical: tuple[Layer, ...]

   The type of a network: its layers, first to last."""

# A block of code, code in a line, or the target of a link with its anchor. Only the target of a link has groups.
LINK = re.compile(r"(?ms)^```.*?^```$|`[^`\n]+`|(?<=\]\()([^)\s:#]+)(#[^)\s]*)?(?=\))")


def setup(app):
    """Write the pages before the build, and change the links of the other pages."""
    app.connect("builder-inited", write)
    app.connect("source-read", change_links)
    return {"parallel_read_safe": True}


def write(app):
    """Write the pages. A page that has not changed keeps its date, so Sphinx does not read it again."""
    docs = Path(app.srcdir)
    for source, page in COPIES.items():
        text = moved((docs.parent / source).read_text(encoding="utf-8"), docs.parent / source, docs / page, docs)
        if page == "index.md":
            text += "\n" + sidebar((docs / "README.md").read_text(encoding="utf-8"))
        _write(docs / page, text)
    for page, text in reference().items():
        _write(docs / "api" / f"{page}.md", text)


def change_links(app, docname, source):
    """Change the links of a page in docs/ that lead to files with a copy on the site."""
    docs = Path(app.srcdir)
    page = docs / f"{docname}.md"
    if page.parent == docs and docname != "index":
        source[0] = moved(source[0], page, page, docs)


def moved(text, source, page, docs):
    """Return the text of the file `source` with its links relative to `page`. They lead to copies where one exists."""

    def target(link):
        if link[1] is None:
            return link[0]
        path = (source.parent / link[1]).resolve()
        if path == docs / "README.md":
            path = docs / "index.md"
        for original, copy in COPIES.items():
            if path == docs.parent / original:
                path = docs / copy
        return os.path.relpath(path, page.parent) + (link[2] or "")

    return LINK.sub(target, text)


def sidebar(text):
    """Return the tables of contents for the parts of docs/README.md and the API."""
    parts = {}
    for title, part in re.findall(r"(?ms)^## (.*?)$(.*?)(?=^## |\Z)", text):
        targets = re.findall(r"(?m)^\| \[[^]]*\]\(([^)#]+)\)", part)
        parts[title] = [COPIES.get(os.path.normpath(f"docs/{target}"), target) for target in targets]
        if title == "Reference":
            parts["API"] = [f"api/{page}.md" for page in REFERENCE]
    return "".join(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{_lines(parts[title])}```\n\n" for title in parts)


def reference():
    """Return the pages of the reference. Every public name must be on one of them."""
    pages, left = {}, set(jaxgd.__all__) - {"Network"}
    for page, (title, rooms, further) in REFERENCE.items():
        entries = []
        for room in rooms:
            names = [name for name in left if getattr(jaxgd, name).__module__.split(".")[1] == room]
            left -= set(names)
            entries += [_entry(name) for name in sorted(names, key=_order)]
        entries += map(_entry, further)
        if "network" in rooms:
            entries.insert(0, NETWORK)
        pages[page] = "\n\n".join([f"# {title}", *(f"```{{eval-rst}}\n{entry}\n```" for entry in entries)]) + "\n"
    if left:
        raise ValueError(f"REFERENCE in docs/_extensions/pages.py has no page for {', '.join(sorted(left))}.")
    return pages


def _lines(entries):
    return "".join(f"{entry}\n" for entry in entries)


def _order(name):
    """Return the sort key of a name: functions come first, then classes, each in alphabetical order."""
    return isinstance(getattr(jaxgd, name), type), name.lower()


def _entry(name):
    kind = "class" if name.split(".")[-1][0].isupper() else "function"
    if name.endswith("Error"):
        kind = "exception"
    return f".. auto{kind}:: jaxgd.{name}" + ("" if kind == "function" else "\n   :members:")


def _write(path, text):
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
