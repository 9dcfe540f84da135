"""Rooms (modules and folders) import only from rooms above them, public names are documented, and imports are lazy."""

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import jaxtyping
import pytest
from planted_faults import FAULTS

import jaxgd
from jaxgd.rules.registry import RULES

HOME = Path(jaxgd.__file__).parent
# The rooms of jaxgd are its top-level modules and folders. A room imports only from the rooms above it.
ORDER = (
    *("typed", "tracebacks", "errors", "files", "pytree", "pieces", "seen", "outcome", "progress", "mesh"),
    *(
        "activations",
        "network",
        "network_file",
        "cost",
        "backpropagation",
        "named_costs",
        "curvature",
        "slices",
        "rules",
    ),
    *("descent", "gradcheck", "data", "examples", "chunks", "assessment", "kernels"),
    *("history", "best", "epoch", "rates", "records", "training_loop", "training"),
    *("checkpoint", "state_file", "run_folder", "sweeps", "report", "cli", "pytest_plugin"),
)
# Libraries that training does not need. They serve progress lines, data, checkpoints, reports, commands and tests.
HEAVY = {
    *("matplotlib", "plotly", "orbax", "tensorflow_datasets", "tensorflow", "PIL", "tyro", "tqdm", "tensorboardX"),
    *("beartype", "hypothesis", "pytest"),
}


def home_of():
    """Return the module of each public name, without "jaxgd."."""
    return {name: module.removeprefix("jaxgd.") for name, module in jaxgd._MODULE_OF.items()}


def is_written(module):
    return importlib.util.find_spec(f"jaxgd.{module}") is not None


WRITTEN = [name for name, module in sorted(home_of().items()) if is_written(module)]


def room_of(path):
    """Return the room of a file, such as errors, data or cli."""
    return path.relative_to(HOME).with_suffix("").parts[0]


def imports(source, package="jaxgd"):
    """Yield each room that a module's source imports from, with the line of the import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = f"jaxgd.{node.module or ''}".rstrip(".") if node.level else node.module
            modules = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            top, _, rest = module.partition(".")
            if top == package and rest:
                room = rest.split(".")[0]
                yield home_of().get(room, room) if room not in ORDER else room, node.lineno


def downward_imports(room, source):
    """Return the imports from rooms that are neither this room nor above it."""
    return [
        f"{room} imports {other}, line {line}"
        for other, line in imports(source)
        if other != room
        and not (other in ORDER and ORDER.index(other) < ORDER.index(room))
        and not other.startswith("__")
    ]


FILES = sorted(path for path in HOME.rglob("*.py") if path != HOME / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_point_upward(path):
    room = room_of(path)
    if room == "__main__":
        pytest.skip("__main__ may import every room")
    assert room in ORDER, f"add {room} to ORDER in tests/test_house.py"
    assert downward_imports(room, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from jaxgd.training import train",
        "from jaxgd import training",
        "from jaxgd import train",
        "import jaxgd.training",
        "import jaxgd.training as t",
        "from .training import train",
        "def f():\n    from jaxgd.cli.common import x",
        "if TYPE_CHECKING:\n    from jaxgd.data import Dataset",
        "from jaxgd.attic import box",
    ],
)
def test_a_downward_import_is_found(source):
    assert len(downward_imports("cost", source)) == 1


@pytest.mark.parametrize(
    "source", ["from jaxgd.errors import ShapeError", "from jaxgd.cost import x", "import jax", "import jaxgd"]
)
def test_an_upward_import_is_allowed(source):
    assert downward_imports("cost", source) == []


def names_for_checkers(statements):
    """Return the module of each name that the statements import."""
    aliases = [(alias, node.module) for node in statements if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.asname == (None if alias.name == "*" else alias.name) for alias, _ in aliases)
    return {alias.name: module for alias, module in aliases}


def test_type_checkers_see_the_public_names():
    """Together, the stub and the registry of rules import exactly the public names."""
    stub = names_for_checkers(ast.parse((HOME / "__init__.pyi").read_text(encoding="utf-8")).body)
    assert (stub.pop("*"), stub.pop("mesh")) == ("jaxgd.rules", "jaxgd")
    tree = ast.parse((HOME / "rules/registry.py").read_text(encoding="utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    assert names_for_checkers(checking.body) == {name: entry.module for name, entry in RULES.items()}
    assert {**stub, **dict.fromkeys(RULES, "jaxgd.rules")} == jaxgd._MODULE_OF
    assert set(jaxgd.__all__) == set(jaxgd._MODULE_OF) <= set(dir(jaxgd))


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (("__init__.pyi", "rules/registry.py"), r'(?:^from \S+ import \w+ as |Entry\(")(\w+)'),
        (("kernels/registry.py",), r'Entry\("(\w+)'),
    ],
)
def test_each_public_name_and_each_backend_has_one_entry(files, entry):
    """If two entries had the same name, one of them would be ignored without an error."""
    text = "".join((HOME / file).read_text(encoding="utf-8") for file in files)
    count = Counter(re.findall(entry, text, re.MULTILINE))
    assert len(count) > 2
    assert set(count.values()) == {1}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_public_name_exists_and_has_a_docstring(name):
    value = getattr(jaxgd, name)
    assert value is getattr(importlib.import_module(f"jaxgd.{home_of()[name]}"), name)
    assert not inspect.ismodule(value)
    if inspect.isclass(value) or callable(value):
        assert inspect.getdoc(value)


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="'jaxgd' has no attribute 'gradient_ascent'"):
        _ = jaxgd.gradient_ascent


ROOMS = ("network", "cost", "backpropagation", "curvature", "slices", "rules", "descent")
MATHEMATICS = [
    name for name in WRITTEN if home_of()[name] in ROOMS and inspect.isfunction(inspect.unwrap(getattr(jaxgd, name)))
]


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematical_functions_name_their_source_and_show_an_example(name):
    text = inspect.getdoc(getattr(jaxgd, name))
    assert "Source: " in text
    assert ">>> " in text


IN_ORDER = [name for name in WRITTEN if name != "Network"]  # an alias of a type has no docstring
SECTIONS = ("Attributes", "Args", "Returns", "Raises", "Source", "Example")


def sections(text):
    """Return the sections of a docstring in the order of the text, each with the names that it lists."""
    listed = {}
    for line in text.splitlines():
        if heading := re.match(r"([A-Z][a-z]+):( |$)", line):
            section = listed.setdefault(heading[1], []) if heading[1] in SECTIONS else []
        elif listed and (entry := re.match(r" {4}\**(\w+): \S", line)):
            section.append(entry[1])
    return listed


def fields(cls):
    """Return the names of the members of an enumeration, or of the fields of a NamedTuple or dataclass."""
    if issubclass(cls, enum.Enum):
        return list(cls.__members__)
    return list(inspect.get_annotations(cls)) if issubclass(cls, tuple) or dataclasses.is_dataclass(cls) else []


def misdocumented(value):
    """Return the faults of the docstring of a public function or class."""
    text = inspect.getdoc(value)
    listed = sections(text)
    faults = [] if text.partition("\n\n")[0].count("\n") == 0 else ["the summary has several lines"]
    if list(listed) != sorted(listed, key=SECTIONS.index):
        faults.append(f"the sections are in the order {', '.join(listed)}")
    if inspect.isclass(value):
        parts, needed = {"Attributes": fields(value)} if fields(value) else {}, ()
    else:
        parts = {"Args": list(inspect.signature(inspect.unwrap(value)).parameters)}
        returns = inspect.signature(value).return_annotation not in (None, "None")
        needed = (("Returns", "Example") if returns else ("Example",)) if parts["Args"] else ()
    faults += [
        f"{part} lists {', '.join(listed.get(part, ())) or 'nothing'}, but the names are {', '.join(names)}"
        for part, names in parts.items()
        if listed.get(part, []) != names
    ]
    return faults + [f"{part} is missing" for part in needed if part not in listed]


@pytest.mark.parametrize("name", IN_ORDER)
def test_public_docstrings_are_complete_and_in_order(name):
    assert misdocumented(getattr(jaxgd, name)) == []


GOOD = """Return x plus y.

Args:
    x: A number.
    y: Another number,
        in the same unit.

Returns:
    Their sum.

Raises:
    TypeError: If they are not numbers.

Example:
    >>> add(1, 2)
    3
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("plus y.", "plus\ny.", "several lines"),
        ("    x: A number.\n", "", "lists y, but"),
        ("    x: A number.\n", "    z: A number.\n", "lists z, y, but"),
        ("Args:", "Shapes:", "lists nothing"),
        ("Returns:", "Result:", "Returns is missing"),
        ("Example:\n", "", "Example is missing"),
        ("Returns:\n    Their sum.\n\nRaises:", "Raises:\n    ValueError: Never.\n\nReturns:", "in the order"),
    ],
)
def test_a_fault_in_a_docstring_is_found(old, new, fault):
    def add(x, y):
        return x + y

    add.__doc__ = GOOD
    assert misdocumented(add) == []
    add.__doc__ = GOOD.replace(old, new)
    assert add.__doc__ != GOOD
    assert any(fault in found for found in misdocumented(add))


def test_an_undocumented_attribute_is_found():
    class Pair(NamedTuple):
        """Two numbers.

        Attributes:
            x: The first.
        """

        x: int
        y: int

    assert misdocumented(Pair) == ["Attributes lists x, but the names are x, y"]


def python(code):
    """Return the words that a fresh interpreter prints. Warnings are errors."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_jaxgd_does_not_import_jax():
    loaded = set(python("import sys, jaxgd; jaxgd.__version__, dir(jaxgd); print(*sys.modules)"))
    assert "jaxgd" in loaded
    assert not {"jax", "jaxlib", "numpy", "optax", "jaxtyping"} & loaded


def test_using_jaxgd_imports_nothing_heavy():
    """Import every public name and make a step of descent. Imports by JAX, optax and jaxtyping do not count."""
    code = f"""
        import sys, jax, optax, jaxtyping
        before = set(sys.modules)
        import jaxgd
        for name in {WRITTEN}:
            getattr(jaxgd, name)
        network = jaxgd.init_network(jax.random.key(0), (2, 1))
        gradient = jaxgd.backprop(network, jax.numpy.ones((3, 2)), jax.numpy.ones((3, 1)))
        jaxgd.update(network, gradient, 0.5)
        print(*(set(sys.modules) - before))
    """
    loaded = {module.split(".")[0] for module in python(inspect.cleandoc(code))}
    assert "jaxgd" in loaded
    assert not HEAVY & loaded


def test_no_module_has_the_name_of_a_public_function():
    """Importing a module binds its name in the package, which would hide a function of that name."""
    assert not set(ORDER) & set(WRITTEN)


def test_shape_annotations_are_checked_in_tests():
    with pytest.raises(jaxtyping.TypeCheckError, match="quadratic_cost"):
        jaxgd.quadratic_cost(jnp.ones((2, 3)), jnp.ones((2, 4)))
    with pytest.raises(jaxtyping.TypeCheckError, match="sigmoid"):
        jaxgd.sigmoid(jnp.array(1))


@pytest.mark.bad_input
def test_shape_annotations_are_not_checked_in_tests_of_bad_input():
    with pytest.raises(jaxgd.ShapeError):
        jaxgd.quadratic_cost(jnp.ones((2, 3)), jnp.ones((2, 4)))


def test_broadcasting_is_forbidden_in_tests():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((3, 1)) + jnp.ones(3)


ROOT = Path(__file__).parents[1]


def rooms_in_table(text):
    """Return the rooms in the first column of a Markdown table, in their order."""
    return [room for cell in re.findall(r"(?m)^\| (`.*?`) \|", text) for room in re.findall(r"`(\w+)/?`", cell)]


def test_contributing_lists_the_rooms_in_their_order():
    listed = rooms_in_table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert listed == [room for room in ORDER if is_written(room)]
    assert set(listed) == {room_of(path) for path in FILES} - {"__main__"}


def test_rooms_are_read_from_a_table():
    assert rooms_in_table("| room | content |\n|---|---|\n| `b/` | `x` |\n| `a`, `c` | y |\n") == ["b", "a", "c"]


def test_the_version_is_defined_once():
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in packaging["project"]
    assert packaging["project"]["dynamic"] == ["version"]
    source = packaging["tool"]["hatch"]["version"]["path"]
    assert ROOT / source == HOME / "__init__.py"
    # hatchling finds the version by a similar pattern.
    (version,) = re.findall(r"(?m)^__version__ = \"(.*)\"$", (ROOT / source).read_text(encoding="utf-8"))
    assert version == jaxgd.__version__


def test_changelog_and_citation_have_the_version_and_its_date():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, (version, date), *_ = re.findall(r"(?m)^## ([\w.]+)(?: – (\d{4}-\d\d-\d\d))?$", changelog)
    assert first == ("Unreleased", "")
    assert version == jaxgd.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    assert f'\ndate-released: "{date}"\n' in citation


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}: {fault.wrong.strip()[:30]}")
def test_the_text_of_a_planted_fault_occurs_exactly_once(fault):
    """A fault replaces exact text, which must occur exactly once in its file."""
    assert (HOME / fault.file).read_text(encoding="utf-8").count(fault.right) == 1
