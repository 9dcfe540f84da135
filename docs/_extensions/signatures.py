"""Signatures with the annotations of the source, because jaxtyping prints its types with long names."""

import ast
import inspect
import textwrap

from docutils import nodes


def setup(app):
    """Replace autodoc's signatures, and drop overloads."""
    app.connect("autodoc-process-signature", from_source)
    app.connect("object-description-transform", shorten)
    from sphinx.pycode import ModuleAnalyzer  # here, because the tests import this module without Sphinx

    analyze = ModuleAnalyzer.analyze

    def without_overloads(analyzer):
        """Analyze a module, and drop its overloads, so that the reference shows one signature per function."""
        analyze(analyzer)
        analyzer.overloads.clear()

    ModuleAnalyzer.analyze = without_overloads
    return {"parallel_read_safe": True}


def from_source(app, what, name, obj, options, signature, returns):
    """Return the arguments and the result as written in the source."""
    if what == "class" and signature and "__init__" in vars(obj):
        try:
            node = _node(obj.__init__)
        except OSError:  # dataclasses generates this method without source
            return _fields(obj), None
        return _arguments(node, bound=True), None
    if what == "class" and signature and obj.__module__.startswith("jaxgd."):
        return _fields(obj), None
    if what in ("function", "method"):
        node = _node(obj)
        bound = what == "method" and not inspect.ismethod(obj)
        return _arguments(node, bound), node.returns and ast.unparse(node.returns).strip("'")
    return None


def _node(obj):
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]


def _arguments(node, bound):
    if bound:
        first = node.args.posonlyargs or node.args.args
        del first[0]
    return f"({ast.unparse(node.args)})"


def _fields(cls):
    """Return the fields of a dataclass or a named tuple as a list of arguments."""
    fields = [node for node in _node(cls).body if isinstance(node, ast.AnnAssign)]
    return f"({', '.join(map(_field, fields))})"


def _field(node):
    text = f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
    if isinstance(node.value, ast.Call):  # dataclasses.field(…)
        defaults = [keyword.value for keyword in node.value.keywords if keyword.arg == "default"]
    else:
        defaults = [node.value] if node.value else []
    return " = ".join([text, *map(ast.unparse, defaults)])


def shorten(app, domain, objtype, content):
    """Shorten `jaxlib._jax.Array` to `Array` in the types of properties."""
    for text in list(content.parent.findall(nodes.Text)):
        if text == "jaxlib._jax.Array":
            text.parent.replace(text, nodes.Text("Array"))
