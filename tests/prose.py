"""Find phrases in comments, docstrings, messages and pages that make a reader read twice.

`python tests/prose.py` prints the share of marked clauses per room, which is a folder or a module.
`python tests/prose.py PATH …` prints each marked clause of the given files or folders. `python tests/prose.py --lower`
lowers the ceilings to the current counts.

The patterns only find common habits, and they mark a few plain clauses by mistake (1.6% of the clauses of optax).
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = (".py", ".h", ".cc", ".cu", ".c", ".md")
# The number of marked clauses that each listed file may have. Every other file may have `allowed` clauses.
CEILINGS = Path(__file__).with_name("prose_ceilings.json")
SHARE = 0.03

# A clause with one of these openings often has its verb last, or no noun as its subject.
OPENINGS = re.compile(
    r"(Of|What|Whatever|Whose|Who|Whoever|Whether|Beside|Besides|Else|Lest|Nor|None but|Nothing but|By itself"
    r"|By themselves|For want|Not (?:a|the|so)|Thereby|Therein|Hence|Thus) "
    r"|(?:To|By|As) (?!default|in |of |an? example|for|soon|long|far|well)[^,]*$"
)
# Old-fashioned words, and relative clauses in place of a noun.
PHRASES = re.compile(
    r"\b("
    r"what(?:ever)? (?!to\b|not\b|happen|a (?:user|reader|person))\w+"
    r"|whoever|whatsoever|who (?:asks|wants|leaves|has|is|does)"
    r"|or else|else(?= is| are| was| it|\b[,;.]| where)|beside|besides|anew|lest|nobody"
    r"|hence|thus|thereby|therein|thereof|wherein|upon|amongst|whilst|nought|ere|erst"
    r"|to the bit|to the letter|so many|so much as|all the same|for want of|for lack of|in vain"
    r"|(?:is|are|was|were|be|been|being) (?:looked at|told|let go|held (?:against|together|up)|meant|wanted|wished"
    r"|handed|gone through|come by|had|to be (?:had|found|told))"
    r"|(?:is|are) (?:another|there|here)(?=[,;.]|$| than| to)"
    r"|let go|lets? alone|serves? (?:to|as|for)|by which|of which|to which|from which|against which|out of which"
    r"|com(?:e|es|ing) (?:to lie|about|to pass)|(?:lies?|stands?|stood) (?:above|below|there|here|beside|as|under)"
    r"|(?:none|nothing|no one) (?:but|else)|save (?:for|that|the)|(?:by|of) (?:itself|themselves|its own accord)"
    r"|all that|that of (?:the|a|an)|those of|such that is|(?:is|are) but\b|no more than is|as (?:yet|it were|ever)"
    r"|go(?:es)? (?:on|by|before)\b|of (?:a )?kind|be it|may (?:well )?be had|where (?:none|nothing) is"
    r")\b",
    re.IGNORECASE,
)
BREAK = re.compile(r"(?<=[.!?;:])[\s\n]+|\n\s*\n|\n\s*[-*|#>] ?| \| ")
WORD = re.compile(r"[A-Za-z]{2,}")


def python_texts(source):
    """Yield (line, text) for each string and each block of comments of a Python file. Doctests are left out."""
    comments = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(("#!", "# type:", "# noqa", "# fmt:")):
            continue
        line, text = token.start[0], token.string.lstrip("# ")
        alone = not token.line[: token.start[1]].strip()
        if comments and alone and comments[-1][2] == line - 1:
            comments[-1] = (comments[-1][0], f"{comments[-1][1]} {text}", line)
        else:
            comments.append((line, text, line if alone else -1))
    yield from ((line, text) for line, text, _ in comments)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(parts)
            for part in node.values:
                part.used = True
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not hasattr(node, "used"):
            yield node.lineno, re.sub(r"(?m)^\s*(>>>|\.\.\. ).*(\n.*\S.*)*", "\n", node.value)


def cpp_texts(source):
    """Yield (line, text) for each block of comments of a C++ file."""
    block, start = [], 0
    for number, line in enumerate([*source.splitlines(), ""], 1):
        before, mark, text = line.partition("//")
        if mark and (not before.strip() or not block) and '"' not in before:
            start = start if block else number
            block.append(text.strip())
        elif block:
            yield start, " ".join(block)
            block = []


def page_texts(source):
    """Yield (line, text) for each paragraph of a Markdown page, without blocks of code."""
    plain = re.sub(r"(?ms)^```.*?^```$", lambda m: "\n" * m[0].count("\n"), source)
    for match in re.finditer(r"(?s)\S.*?(?=\n\s*\n|\Z)", plain):
        yield plain.count("\n", 0, match.start()) + 1, match[0]


READERS = {".py": python_texts, ".h": cpp_texts, ".cc": cpp_texts, ".cu": cpp_texts, ".c": cpp_texts, ".md": page_texts}


def clauses(path):
    """Yield each clause of at least three words in a file, with the line where its text begins."""
    for line, text in READERS[path.suffix](path.read_text(encoding="utf-8")):
        for clause in BREAK.split(text):
            clause = " ".join(re.sub(r"`[^`]*`|https?://\S+", "x", clause).split()).strip("\"'*_()[] ")
            if len(WORD.findall(clause)) >= 3:
                yield line, clause


def is_marked(clause):
    """Return True if the clause has an inverted opening or an old phrase."""
    return bool(OPENINGS.match(clause) or PHRASES.search(clause))


def count(path):
    """Return the number of marked clauses of a file, and of all its clauses."""
    marks = [is_marked(clause) for _, clause in clauses(path)]
    return sum(marks), len(marks)


def files():
    """Return the code and pages of six folders, and the pages of the root.

    Copies and the two files that quote old phrases are left out.
    """
    folders = ("jaxgd", "benchmarks", "tests", "docs", "examples", ".github")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    # The build of the site copies pages to docs/index.md, docs/api and docs/project.
    found = [path for path in found if not {"build", "__pycache__", "api", "project"} & set(path.parts)]
    left_out = {ROOT / name for name in ("docs/index.md", "tests/prose.py", "tests/test_prose.py")}
    return sorted({*found, *ROOT.glob("*.md")} - left_out)


def room_of(path):
    """Return the room of a file: its folder under the root, or its module or folder inside jaxgd/.

    The room of the pages in the root is "pages".
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "jaxgd" and len(parts) > 1 else parts[0] if len(parts) > 1 else "pages"


def allowed(total):
    """Return how many of a file's `total` clauses may be marked if the file has no ceiling."""
    return max(1, int(SHARE * total))


def lower():
    """Lower each ceiling to the current count, and drop the ceilings that are no longer needed."""
    ceilings = json.loads(CEILINGS.read_text())
    kept = {}
    for path in files():
        name, (marked, total) = str(path.relative_to(ROOT)), count(path)
        if name in ceilings and marked > allowed(total):
            kept[name] = min(marked, ceilings[name])
    CEILINGS.write_text(json.dumps(kept, indent=1) + "\n")


def main(paths):
    """Print the marked clauses of the given files, or the share of each room. With --lower, lower the ceilings."""
    if paths == ["--lower"]:
        lower()
        return
    if paths:
        for path in map(Path, paths):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.suffix in SUFFIXES:
                    for line, clause in clauses(file):
                        if is_marked(clause):
                            print(f"{file}:{line}: {clause}")
        return
    rooms = defaultdict(lambda: [0, 0])
    for path in files():
        for total, number in enumerate(count(path)):
            rooms[room_of(path)][total] += number
    for room, (marked, total) in {**rooms, "all": [sum(x) for x in zip(*rooms.values(), strict=True)]}.items():
        print(f"{room:24}{marked:6} of {total:5} clauses{marked / max(total, 1):8.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
