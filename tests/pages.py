"""Read README.md, examples/README.md and the pages in docs/, and write the commands' help into docs/commands.md.

`python tests/pages.py --write` replaces the help texts in docs/commands.md by the current ones.
"""

import contextlib
import io
import itertools
import os
import re
import shlex
import sys
import textwrap
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS_PAGE = ROOT / "docs/commands.md"
# The build of the site writes docs/index.md from README.md, so PAGES omits it.
PAGES = (README, ROOT / "examples/README.md", *sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/index.md"}))
COMMANDS = ("train", "sweep", "evaluate", "predict", "report", "minimize", "check", "info")
# The width of the help texts in docs/commands.md, in columns.
WIDTH = 86

FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")


def blocks(text):
    """Return each fenced block of a page as (line, language, content)."""
    return [(text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in FENCE.finditer(text)]


def programs(text):
    """Return each Python block of a page as (line, source, output). The output is the text block after it, or None."""
    found = blocks(text)
    return [
        (line, source, after[2] if after and after[1] == "text" else None)
        for (line, language, source), after in itertools.zip_longest(found, found[1:])
        if language == "python"
    ]


def command_lines(text):
    """Return the words of each jaxgd command in the shell blocks of a page, without the word jaxgd."""
    lines = [line for _, language, content in blocks(text) if language == "sh" for line in content.splitlines()]
    commands = [command for line in lines for command in re.split(r"&&|\|", line.split(" #")[0])]
    # The values of shell variables are unknown. The number 1 replaces each variable.
    words = [shlex.split(re.sub(r"\$\w+", "1", command).removeprefix("uv run --no-sync ")) for command in commands]
    return [argv[1:] for argv in words if argv[:1] == ["jaxgd"]]


def prose(text):
    """Return a page without code blocks and tables."""
    return re.sub(r"(?m)^\|.*$", "", FENCE.sub("", text))


def links(text):
    """Return the relative targets of a page's links and pictures, each with its anchor."""
    targets = LINK.findall(FENCE.sub("", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text):
    """Return the anchors of a page's headings, as GitHub forms them."""
    heads = re.findall(r"(?m)^#+ (.*)$", FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def help_text(command):
    """Return the help of a command, or of `jaxgd` itself for an empty name, at the fixed width."""
    from jaxgd.cli import main

    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)}), contextlib.redirect_stdout(out):
        assert main([*command.split(), "--help"]) == 0
    lines = [wrapped for line in out.getvalue().strip().splitlines() for wrapped in textwrap.wrap(line, WIDTH) or [""]]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def with_help(text):
    """Return the text of docs/commands.md with the current help of each command."""
    before = text.split("\n## ")[0].rstrip()
    return "\n\n".join([before, *(f"## {command}\n\n```text\n{help_text(command)}```" for command in COMMANDS)]) + "\n"


def words_of_help(text):
    """Return a help text without boxes, rules and white space, because they depend on the version of tyro."""
    return re.sub(r"[\s─│╭╮╰╯]+|-{5,}", "", text)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    COMMANDS_PAGE.write_text(with_help(COMMANDS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
