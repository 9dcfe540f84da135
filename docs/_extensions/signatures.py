"""Signatures with the annotations as the source has them; jaxtyping's own names for them are long."""

import ast
import inspect
import textwrap


def setup(app):
    """Replace the signatures that autodoc makes from the annotations' values."""
    app.connect("autodoc-process-signature", from_source)
    return {"parallel_read_safe": True}


def from_source(app, what, name, obj, options, signature, returns):
    """Return the arguments and the result as written in the source."""
    if what not in ("function", "method"):
        return None
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]
    arguments = node.args
    if what == "method" and not isinstance(inspect.getattr_static(obj, "__self__", None), type):
        first = (arguments.posonlyargs or arguments.args)[:1]
        for given in (arguments.posonlyargs, arguments.args):
            given[:] = [argument for argument in given if argument not in first]
    return f"({ast.unparse(arguments)})", node.returns and ast.unparse(node.returns)
