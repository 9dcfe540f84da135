"""No file has more old phrases than its ceiling. A file without a ceiling has few old phrases."""

import functools
import json

import prose
import pytest

CEILINGS = json.loads(prose.CEILINGS.read_text())
FILES = {str(path.relative_to(prose.ROOT)): path for path in prose.files()}
count = functools.cache(prose.count)


def test_no_file_has_more_marked_clauses_than_its_ceiling():
    failed = []
    for name, path in FILES.items():
        marked, total = count(path)
        ceiling = max(CEILINGS.get(name, 0), prose.allowed(total))
        if marked > ceiling:
            failed.append(f"{name}: {marked} marked clauses, {ceiling} allowed. See python tests/prose.py {name}")
    assert not failed, "\n".join(failed)


def test_no_ceiling_is_far_above_the_count():
    loose = []
    for name, ceiling in CEILINGS.items():
        marked, total = count(FILES[name]) if name in FILES else (0, 0)
        if marked < ceiling - 3 or marked <= prose.allowed(total):
            loose.append(f"{name}: {marked} marked clauses, the ceiling is {ceiling}")
    assert not loose, "\n".join([*loose, "Run python tests/prose.py --lower."])


@pytest.mark.parametrize(
    "clause",
    [
        "Of what the library does not do at once, one after the other.",
        "Whether no test is met by a state",
        "What decides the compiled program, as one hashable value.",
        "By itself JAX keeps what took a second to compile",
        "the cost compiles anew when it is another function",
        "where a run ended, to the bit",
        "one row, so many entries",
        "a C that is looked at",
        "beside the book's numbers",
        "every kind of machine is told",
    ],
)
def test_an_old_phrase_is_marked(clause):
    assert prose.is_marked(clause)


@pytest.mark.parametrize(
    "clause",
    [
        "Return the number of steps, or None.",
        "Pass a batch with one row or more.",
        "To try several, use jax.vmap.",
        "By default the book's 30 epochs.",
        "The message says who complains, what to do and why.",
        "As in optax, a rule is a pair of pure functions.",
        "Evaluate the cost if x > 0, otherwise return NaN.",
    ],
)
def test_plain_words_are_not_marked(clause):
    assert not prose.is_marked(clause)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a.py", '"""What is first."""\n# Of what is second,\n# which goes on.\nx = f"it is told {1}, lest"\n', 3),
        ("a.py", '"""Add one.\n\n>>> what_is(1)\n\nReturn what is left.\n"""\n', 1),
        ("a.h", "int x;  // What is first.\n// Of what is second,\n// which goes on.\n", 2),
        ("a.md", "What is first.\n\n```python\nWhat is not counted.\n```\n\nPlain words follow.\n", 1),
    ],
)
def test_marked_clauses_are_counted_in_all_kinds_of_text(name, source, expected, tmp_path):
    (tmp_path / name).write_text(source)
    assert prose.count(tmp_path / name)[0] == expected
