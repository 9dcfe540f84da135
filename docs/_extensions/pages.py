"""Pages that the build writes from other files: the home page, the API reference, and the pages of the project.

Git ignores these pages. The sidebar follows docs/README.md. Each heading "##" there becomes a part of the sidebar, and
each page in the table below the heading becomes an entry. The part "API" comes from REFERENCE.
"""

import os
import re
from pathlib import Path

import jaxgd

# Pages that are copies of files outside docs/.
COPIES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "examples/README.md": "project/examples.md",
    "jaxgd/data/digits/ATTRIBUTION.md": "project/attribution.md",
}
# The pages of the reference: the title, the modules whose public names the page documents, and further names.
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
# For this type alias, autodoc would show the docstring of `tuple`.
NETWORK = """.. py:type:: jaxgd.Network
   :canonical: tuple[Layer, ...]

   The type of a network: its layers, first to last."""

# Matches a block of code, inline code, or the target and anchor of a link. Only a link has groups.
LINK = re.compile(r"(?ms)^```.*?^```$|`[^`\n]+`|(?<=\]\()([^)\s:#]+)(#[^)\s]*)?(?=\))")


def setup(app):
    """Register `write` and `change_links`."""
    app.connect("builder-inited", write)
    app.connect("source-read", change_links)
    return {"parallel_read_safe": True}


def write(app):
    """Write the pages that changed. Sphinx does not read the others again."""
    docs = Path(app.srcdir)
    for source, page in COPIES.items():
        text = moved((docs.parent / source).read_text(encoding="utf-8"), docs.parent / source, docs / page, docs)
        if page == "index.md":
            text += "\n" + sidebar((docs / "README.md").read_text(encoding="utf-8"))
        _write(docs / page, text)
    for page, text in reference().items():
        _write(docs / "api" / f"{page}.md", text)


def change_links(app, docname, source):
    """Redirect links in a page of docs/ to the copies in COPIES."""
    docs = Path(app.srcdir)
    page = docs / f"{docname}.md"
    if page.parent == docs and docname != "index":
        source[0] = moved(source[0], page, page, docs)


def moved(text, source, page, docs):
    """Return the text of `source` with its links adapted to `page`. Links to copied files lead to the copies."""

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
    """Return one table of contents for each part of the sidebar."""
    parts = {}
    for title, part in re.findall(r"(?ms)^## (.*?)$(.*?)(?=^## |\Z)", text):
        targets = re.findall(r"(?m)^\| \[[^]]*\]\(([^)#]+)\)", part)
        parts[title] = [COPIES.get(os.path.normpath(f"docs/{target}"), target) for target in targets]
        if title == "Reference":
            parts["API"] = [f"api/{page}.md" for page in REFERENCE]
    return "".join(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{_lines(parts[title])}```\n\n" for title in parts)


def reference():
    """Return the pages of the reference. Raise ValueError if a public name is on none of them."""
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
    """Return a sort key: functions before classes, and both in alphabetical order."""
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
