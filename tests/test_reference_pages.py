"""docs/faq.md quotes messages of the source, and docs/equations.md names public functions."""

import ast
import re

import jax.numpy as jnp
import pages

import jaxgd

DOCS = pages.ROOT / "docs"
# At least this share of a quote's characters must come from the source. The other characters are examples of values.
LEAST_SHARE = 1 / 3


def text_blocks(page):
    return re.findall(r"(?ms)^```text\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"))


def templates():
    """Yield each string of jaxgd's source and each outcome's message as a list of parts. None stands for a value."""
    for path in (pages.ROOT / "jaxgd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield [node.value]
    for reason in jaxgd.Reason:
        yield [jaxgd.Outcome(jnp.array(int(reason))).message]


def on_one_line(text):
    """Return a message on one line, without the command's name and the word `warning`."""
    return re.sub(r"^jaxgd \w+: (warning: )?", "", re.sub(r"\s+", " ", text).strip())


def patterns():
    """Return a pattern and its number of literal characters, for each template with 20 or more of them."""
    compiled = []
    for parts in templates():
        literal = sum(len(part) for part in parts if part)
        if literal >= 20:
            words = [".*" if part is None else re.sub(r"(\\ |\\\n|\n)+", " ", re.escape(part)) for part in parts]
            compiled.append((re.compile("".join(words).strip()), literal))
    return compiled


def is_from(source, message):
    """Return True if a message is a text of the source with values in place of expressions."""
    message = on_one_line(message)
    return any(literal >= LEAST_SHARE * len(message) and pattern.fullmatch(message) for pattern, literal in source)


def test_every_message_of_the_faq_is_in_the_source():
    source, quotes = patterns(), text_blocks("faq.md")
    assert len(quotes) >= 25
    assert [quote for quote in quotes if not is_from(source, quote)] == []
    changed = quotes[0].replace("must return", "should return")
    assert changed != quotes[0]
    assert not is_from(source, changed)


# Words at the start of code in docs/equations.md that are not public names, mostly arguments and results.
OTHER_WORDS = {"", "jax", "solution", "result", "actual"}
OTHER_WORDS |= {"activation", "batch_size", "cost", "l2", "patience", "scheme"}


def test_the_equations_name_public_functions():
    text = (DOCS / "equations.md").read_text(encoding="utf-8")
    words = {re.match(r"\w*", code)[0] for code in re.findall(r"`([^`]+)`", text)}
    assert words - set(jaxgd.__all__) == OTHER_WORDS
