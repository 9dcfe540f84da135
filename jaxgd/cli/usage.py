"""Rewrite tyro's usage errors, which fill a box, as one line: who, expected, got, what to do."""

import re
from collections.abc import Iterable

COMMANDS = ("train", "sweep", "evaluate", "predict", "report", "minimize", "check", "info")


def explain_usage(argv: list[str], box: str) -> tuple[str, str]:
    """Return the name of the command, and its usage error without the box that tyro draws."""
    command = f"jaxgd {argv[0]}" if argv and argv[0] in COMMANDS else "jaxgd"
    # tyro draws the box with +, | and - if the encoding lacks the characters for lines.
    lines = [re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]|-{5,}", " ", line).strip(" |+") for line in box.splitlines()]
    # Drop the title of the box in the first line, and the excerpt of the help at the end.
    body = " ".join(" ".join(lines[1:]).split())
    body = re.split(r" ?(?:Argument helptext:|For full helptext,|Arguments are applied to)", body)[0]
    return command, f"{_message(command, body)}\nSee {command} --help."


def _message(command: str, body: str) -> str:
    """Return the error in the form of jaxgd's messages. An error that no pattern matches keeps tyro's words."""
    if match := re.match(r"Error parsing (.*?): (must be .*)", body):  # a message of jaxgd.cli.common
        return f"{match[1]} {match[2]}"
    if match := re.match(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)", body):
        choices = re.findall(r"[\w-]+", match[3])
        return f"{match[2]} must be {_or(choices)}, got {match[1]}."
    if match := re.match(r"Missing value for argument '(.*?)'", body):
        return f"{match[1]} must have a value, got none."
    if match := re.match(r"Missing from [\w ]+: (\S+(?: \[\S+ \.\.\.\])?) ", body):
        return f"expected {match[1]}, got none."
    if body.startswith("Expected one of {"):
        return f"expected a command ({_or(COMMANDS)}), got none."
    if match := re.match(
        r"Unrecognized (?:or misplaced )?options: (.*?)(?: Available .*| Perhaps you meant: (.*))?$", body
    ):
        words = re.sub(r" \(applied to [\w ]*\)", "", match[1]).replace(", ", " ")
        if command == "jaxgd":
            return f"expected a command ({_or(COMMANDS)}), got {words}."
        similar = dict.fromkeys(re.findall(r"(?:^| )(--(?!help)[\w-]+)", match[2] or ""))
        return f"{words} is not an argument of this command." + (f" Did you mean {_or(similar)}?" if similar else "")
    return body


def _or(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
