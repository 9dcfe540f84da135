"""The code on the pages runs, commands parse, relative links have targets, and the help texts are current.

The pages are README.md, examples/README.md and the Markdown files of docs/.
"""

import contextlib
import doctest
import importlib.util
import io
import os
import re
import tomllib

import pages
import pytest
import tyro

import jaxgd
from jaxgd.cli import command
from jaxgd.rules.registry import RULES

pytest_plugins = ["pytester"]

TEXTS = {str(path.relative_to(pages.ROOT)): path.read_text(encoding="utf-8") for path in pages.PAGES}
WITH_PROGRAMS = [name for name, text in TEXTS.items() if pages.programs(text)]
LINES = [(name, line) for name, text in TEXTS.items() for line in pages.command_lines(text)]


def is_test_file(source):
    return "def test_" in source


def run_page(name, text):
    """Run the Python blocks of a page, except test files, in one environment. Compare each shown output."""
    environment = {"__name__": name}
    for line, source, expected in pages.programs(text):
        if is_test_file(source):
            continue
        out = io.StringIO()
        # Blank lines before the source give tracebacks the line numbers of the page.
        with contextlib.redirect_stdout(out):
            exec(compile("\n" * line + source, name, "exec"), environment)
        if expected is not None:
            same = doctest.OutputChecker().check_output(expected, out.getvalue(), doctest.ELLIPSIS)
            assert same, f"{name}:{line} prints\n{out.getvalue()}and not\n{expected}"


@pytest.mark.parametrize("name", WITH_PROGRAMS)
def test_python_blocks_run_and_print_the_shown_output(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # A page may write files.
    run_page(name, TEXTS[name])


def test_the_test_files_on_the_pages_pass(pytester):
    sources = [source for text in TEXTS.values() for _, source, _ in pages.programs(text) if is_test_file(source)]
    assert sources
    for i, source in enumerate(sources):
        pytester.makepyfile(**{f"test_{i}": source})
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider")
    # A hand-written gradient gives one test. Autodiff at two points with two seeds gives four.
    result.assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("name", "argv"), LINES, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_commands_on_the_pages_parse(name, argv):
    tyro.cli(command.Command, prog="jaxgd", args=argv)


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_lead_to_files_and_headings(name):
    assert broken_links(name, TEXTS[name]) == []


def broken_links(name, text):
    broken = []
    for target in pages.links(text):
        file, _, anchor = target.partition("#")
        path = (pages.ROOT / name).parent / file if file else pages.ROOT / name
        if not path.exists() or (anchor and anchor not in pages.anchors(path.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def test_every_page_is_in_the_index():
    index = set(pages.links(TEXTS["docs/README.md"]))
    others = {name for name in TEXTS if name not in ("README.md", "docs/README.md")}
    assert {os.path.relpath(name, "docs") for name in others} <= index


def extension(name):
    """Import a module that builds the site. The import does not need Sphinx."""
    spec = importlib.util.spec_from_file_location(name, pages.ROOT / f"docs/_extensions/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sidebar_of_the_site_has_every_page():
    table = extension("pages").sidebar(TEXTS["docs/README.md"])
    for name in TEXTS:
        if name.startswith("docs/") and name != "docs/README.md":
            assert f"\n{name.removeprefix('docs/')}\n" in table


def test_the_reference_has_every_public_name_once():
    text = "".join(extension("pages").reference().values())
    assert sorted(re.findall(r":: jaxgd\.(\w+)\n", text)) == jaxgd.__all__


def test_links_on_the_site_lead_to_its_own_pages():
    docs = pages.ROOT / "docs"
    text = "[a](docs/train.md#functions) ![b](docs/valley.png) [c](CHANGELOG.md) [d](docs/README.md) `x[0](y)`"
    expected = "[a](train.md#functions) ![b](valley.png) [c](project/changelog.md) [d](index.md) `x[0](y)`"
    assert extension("pages").moved(text, pages.README, docs / "index.md", docs) == expected
    code = "```python\nx[0](y)\n```\n"
    assert extension("pages").moved(code, docs / "train.md", docs / "project/x.md", docs) == code


def test_docstrings_become_restructured_text():
    lines = ["Take `a*b` and |C| to v_ * w.", "", "Returns:", "    Outputs: from 0", "    to 1.", ""]
    lines += ["Source: a,", "    b.", "", ">>> x = `a`", "'|C|'"]
    extension("docstrings").rewrite(None, "function", "f", None, None, lines)
    assert lines == [
        *("Take ``a*b`` and \\|C\\| to v\\_ \\* w.", "", ":returns: Outputs: from 0", "    to 1.", ""),
        *("Source:", "    a,", "    b.", "", ">>> x = `a`", "'|C|'", ""),
    ]


def test_readme_has_at_most_700_words():
    assert len(pages.prose(TEXTS["README.md"]).split()) <= 700


def test_readme_has_the_command_of_continuous_integration():
    assert "\npip install -e '.[test]' && pytest\n" in TEXTS["README.md"]


def test_readme_states_the_supported_versions():
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (jax,) = [word for word in project["dependencies"] if word.startswith("jax>")]
    text = TEXTS["README.md"]
    for version in re.findall(r"[\d.]+", jax):
        assert version in text
    for version in re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"])):
        assert version in text


@pytest.mark.parametrize("command", pages.COMMANDS)
def test_the_page_of_commands_shows_the_help_of_each_command(command):
    shown = TEXTS["docs/commands.md"].split(f"\n## {command}\n")[1].split("\n## ")[0]
    ((_, _, shown),) = pages.blocks(shown)
    same = pages.words_of_help(shown) == pages.words_of_help(pages.help_text(command))
    assert same, f"docs/commands.md shows an old help of jaxgd {command}. Run python tests/pages.py --write."


def test_the_page_of_commands_has_every_command():
    heads = re.findall(r"(?m)^## (.*)$", TEXTS["docs/commands.md"])
    (commands,) = re.findall(r"usage: jaxgd .*\{([\w,]+)\}", pages.help_text(""))
    assert heads == list(pages.COMMANDS) == commands.split(",")


def test_the_table_of_rules_has_every_rule():
    text = (pages.ROOT / "docs/minimize.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^\| `(\w+)\(", text)) == set(RULES)


def test_public_names_on_the_pages_exist():
    names = {name for text in TEXTS.values() for name in re.findall(r"`jaxgd\.(\w+)", text)}
    assert names <= {*jaxgd.__all__, "__version__"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("```python\nx = 1 / 0\n```\n", "division"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "page:1 prints"),
        ("```python\nx = 1\n```\n\n```python\nprint(y)\n```\n", "'y' is not defined"),
    ],
)
def test_a_wrong_block_fails(text, match):
    with pytest.raises(Exception, match=match):
        run_page("page", text)


def test_a_wrong_command_line_fails():
    ((line),) = pages.command_lines("```sh\npip install x && jaxgd train --speed 3  # fast\n```\n")
    assert line == ["train", "--speed", "3"]
    with pytest.raises(SystemExit):
        tyro.cli(command.Command, prog="jaxgd", args=line)


def test_a_broken_link_is_found():
    text = "[a](LICENSE) ![b](no.png) [c](docs/train.md#functions) [d](docs/train.md#no) [e](http://x.y/no.md)\n"
    assert broken_links("README.md", text) == ["no.png", "docs/train.md#no"]
