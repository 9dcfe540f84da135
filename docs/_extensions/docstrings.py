"""Conversion of jaxgd's docstrings to reStructuredText. They have `code` in single backticks, as Markdown does."""

import re

# Code in single backticks, or a character with a meaning in reStructuredText.
MARK = re.compile(r"`([^`]+)`|([*|\\])|(?<=\w)(_)(?!\w)")
# Returns and Source contain sentences, but napoleon would read them as a list of names.
RETURNS = re.compile(r"(?m)^Returns:\n +((?:.*\n)(?:(?: .*)?\n)*)")
SOURCE = re.compile(r"(?m)^Source: (.*(?:\n.+)*)")


def setup(app):
    """Connect `rewrite` and `skip` to autodoc, and change the label of attributes."""
    app.connect("autodoc-process-docstring", rewrite, priority=100)
    app.connect("autodoc-skip-member", skip)
    from sphinx.domains.python import PyObject  # here, because the tests import this module without Sphinx

    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True}


def rewrite(app, what, name, obj, options, lines):
    """Rewrite a docstring as reStructuredText for napoleon, except its examples."""
    text = "\n".join([*lines, ""])
    if what == "property":
        # napoleon would read words before a colon in the first line as a type. An empty comment as first line prevents
        # this.
        text = "..\n\n" + text
    text = RETURNS.sub(r":returns: \1", text)
    text = SOURCE.sub(lambda match: "Source:\n    " + re.sub(r"\n *", "\n    ", match[1]), text)
    example = False
    lines.clear()
    for line in text.split("\n"):
        example = line.lstrip().startswith(">>> ") or (example and line.strip() != "")
        lines.append(line if example else MARK.sub(_marked, line))


def _marked(match):
    return f"``{match[1]}``" if match[1] else "\\" + (match[2] or match[3])


def skip(app, what, name, obj, skipped, options):
    """Skip the fields of a NamedTuple, because its docstring describes them. Also skip the methods that JAX calls."""
    return True if type(obj).__name__ == "_tuplegetter" or name.startswith("tree_") else None
