"""Links to the reference from public names in inline code."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import jaxgd

# Public names that are also ordinary words of code. They become links only with the prefix `jaxgd.`.
COMMON = {"accuracy", "plot", "update"}


class PublicNames(SphinxTransform):
    """Links to the reference from inline code such as `minimize`, `minimize(…)` and `jaxgd.minimize`."""

    default_priority = 400

    def apply(self, **kwargs):
        """Turn public names in inline code into links, except inside links and titles."""
        for node in list(self.document.findall(nodes.literal)):
            code = re.fullmatch(r"(?s)(jaxgd\.)?(\w+)(\(.*\))?", node.astext())
            if code is None or code[2] not in jaxgd.__all__ or (code[2] in COMMON and not code[1]):
                continue
            if isinstance(node.parent, (nodes.reference, nodes.title, addnodes.pending_xref)):
                continue
            target = {"refdomain": "py", "reftype": "obj", "reftarget": f"jaxgd.{code[2]}", "refexplicit": True}
            link = addnodes.pending_xref("", refdoc=self.env.docname, refwarn=True, **target)
            node.replace_self(link)
            link += node


def mark_messages(app, doctree):
    """Give the messages in docs/faq.md a class whose style wraps long lines."""
    if app.env.docname == "faq":
        for block in doctree.findall(nodes.literal_block):
            block["classes"].append("message")


def setup(app):
    """Register `PublicNames` and `mark_messages`."""
    app.add_transform(PublicNames)
    app.connect("doctree-read", mark_messages)
    return {"parallel_read_safe": True}
