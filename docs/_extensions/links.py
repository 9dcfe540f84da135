"""Links from public names in code to the reference."""

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import jaxgd

# Public names that are also ordinary words of code.
COMMON = {"accuracy", "update"}


class PublicNames(SphinxTransform):
    """Link code such as `minimize` and `jaxgd.minimize` to the reference."""

    default_priority = 400

    def apply(self, **kwargs):
        """Replace the nodes of code that are public names."""
        for node in list(self.document.findall(nodes.literal)):
            name = node.astext().removeprefix("jaxgd.")
            if name not in jaxgd.__all__ or (name in COMMON and name == node.astext()):
                continue
            if isinstance(node.parent, (nodes.reference, nodes.title, addnodes.pending_xref)):
                continue
            target = {"refdomain": "py", "reftype": "obj", "reftarget": f"jaxgd.{name}", "refexplicit": True}
            link = addnodes.pending_xref("", refdoc=self.env.docname, refwarn=True, **target)
            node.replace_self(link)
            link += node


def setup(app):
    """Add the transform."""
    app.add_transform(PublicNames)
    return {"parallel_read_safe": True}
