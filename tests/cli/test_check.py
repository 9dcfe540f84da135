"""`jaxgd check`: checks of jaxgd's own backprop, and of the cases in a user's files."""

import inspect
import json
import sys
import textwrap
import types
from pathlib import Path

import jax
import pytest
from support import scaled

import jaxgd as package
from jaxgd.cli import check as command


@pytest.fixture
def quick(monkeypatch):
    """Check a network of one layer in float32, with compiled functions and without training."""
    real = inspect.signature(package.train)

    def train(*args, **options):
        network, data = real.bind(*args, **options).args[:2]
        assert data.name == "digits"
        return types.SimpleNamespace(network=scaled(network, 2))

    monkeypatch.setattr(command, "DTYPES", ("float32",))
    monkeypatch.setattr(command, "SIZES", (64, 10))
    monkeypatch.setattr(package, "train", train)
    monkeypatch.setattr(package, "network_cost", jax.jit(package.network_cost))
    monkeypatch.setattr(package, "backprop", jax.jit(package.backprop))


def write(source, path="model.py"):
    """Write a user's file into the folder where the command runs."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")


RIGHT = """
    import jax.numpy as jnp
    import jaxgd

    def check_sin():
        return jaxgd.check_gradients(jnp.sin, 1.0)
"""
WRONG = """
    def test_twin(check_gradients):
        def twin(x):
            return jnp.sin(x)
        check_gradients(twin, 1.0, gradient=jnp.sin)
        check_gradients(twin, 2.0, strict=True)
"""
UNDECIDED = """
    def check_kink(check_gradients):
        return check_gradients(jnp.abs, 0.0)
"""


@pytest.mark.slow
def test_backprop_is_right_at_two_points_in_four_dtypes(jaxgd, monkeypatch):
    monkeypatch.setattr(command, "EPOCHS", 1)
    answer = jaxgd("check")
    assert answer.status == 0, answer.out
    *lines, last = answer.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{weights} weights, {dtype}"
        for weights in ("random", "trained")
        for dtype in ("float32", "float64", "bfloat16", "float16")
    ]
    assert all(": right, largest error " in line for line in lines)
    assert "gradient in bfloat16 is within" in lines[2]
    assert last == f"backprop as the gradient of network_cost on {jax.devices()[0].device_kind}: right"
    assert answer.err == "training…\n"


@pytest.mark.bad_input
def test_a_wrong_backprop_is_reported(jaxgd, quick, monkeypatch):
    real = package.backprop

    @jax.jit
    def spoiled(network, x, y):
        (layer,) = real(network, x, y)
        return (layer._replace(b=1.001 * layer.b),)

    monkeypatch.setattr(package, "backprop", spoiled)
    answer = jaxgd("check")
    assert answer.status == 1
    assert answer.out.count("network[0].b wrong: ") == 2
    assert answer.out.startswith("random weights, float32: wrong, largest error ")
    assert answer.out.endswith(": wrong\n")


def test_json_prints_one_document(jaxgd, quick):
    answer = jaxgd("check", "--json", "--seed", 3)
    assert answer.status == 0
    entries = json.loads(answer.out)
    assert [entry["case"] for entry in entries] == ["random weights, float32", "trained weights, float32"]
    assert {entry["report"]["verdict"] for entry in entries} == {"right"}
    assert {entry["report"]["seed"] for entry in entries} == {3}


def test_all_cases_of_a_file_run(jaxgd):
    """The worst verdict decides the exit status. A case continues after a wrong gradient."""
    write(RIGHT)
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith("model.py::check_sin: right, largest error ")
    assert answer.out.splitlines()[1:] == ["1 case: 1 right"]
    write(RIGHT + UNDECIDED)
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.err) == (3, "")
    assert "model.py::check_kink: cannot tell" in answer.out
    assert "check_gradients(abs): cannot tell" in answer.out
    write(RIGHT + UNDECIDED + WRONG)
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.err) == (1, "")
    assert [line.partition(",")[0] for line in answer.out.splitlines() if line.startswith("model.py")] == [
        "model.py::check_sin: right",
        "model.py::check_kink: cannot tell",
        "model.py::test_twin: wrong",
        "model.py::test_twin: right",
    ]
    assert "check_gradients(sin)" not in answer.out


def test_only_the_named_cases_run(jaxgd):
    write(RIGHT + UNDECIDED + WRONG + "\n    _private = check_sin")
    answer = jaxgd("check", "model.py::check_kink", "model.py::_private", "--verbose")
    assert answer.status == 3
    assert [line for line in answer.out.splitlines() if line.startswith("check_gradients(")] == [
        "check_gradients(abs): cannot tell",
        "check_gradients(sin): right",
    ]


def test_functions_that_are_not_cases_do_not_run(jaxgd):
    """Imported functions, functions with other names, and tests that do not take `check_gradients` are not cases.

    A function check_… that needs other arguments is skipped.
    """
    write("def check_elsewhere():\n    raise RuntimeError", "helper.py")
    write(
        RIGHT
        + """
    from helper import check_elsewhere
    from jaxgd import check_gradients

    def test_other():
        raise RuntimeError

    def test_fixture(tmp_path):
        raise RuntimeError

    def check_shape(x):
        raise RuntimeError

    def make(check_gradients):
        raise RuntimeError

    check_number = 3
    """
    )
    answer = jaxgd("check", "model.py")
    assert answer.status == 0, answer.err
    first, last = answer.out.splitlines()
    assert first.startswith("model.py::check_sin: right")
    assert last == "2 cases: 1 right, 1 skipped"


PARAMETERS = """
    def check_shape(x, y):
        raise RuntimeError

    def test_points(check_gradients, gradient_point):
        raise RuntimeError
"""
NEEDS_SHAPE = "check_shape: needs x, y, but jaxgd check supplies only check_gradients"
NEEDS_POINT = "test_points: needs gradient_point, but jaxgd check supplies only check_gradients"
SKIPPING = """
    import pytest

    def check_skip():
        pytest.skip("not here,\\nnot now")

    def test_half(check_gradients):
        check_gradients(jnp.sin, 1.0)
        pytest.importorskip("no_such_module")

    def check_mute():
        pytest.skip()
"""
SKIPS = [
    "check_skip: not here, not now",
    "test_half: could not import 'no_such_module': No module named 'no_such_module'",
    "check_mute: pytest.skip gave no reason",
]
NOT_EVERYWHERE = """
    def check_wrong_then_skip(check_gradients):
        import pytest
        check_gradients(jnp.sin, 1.0, gradient=jnp.sin)
        pytest.skip("half")
"""
KINKS = """
    def check_kink_then_skip(check_gradients):
        import pytest
        check_gradients(jnp.abs, 0.0)
        pytest.skip("half")

    def check_kink_then_error(check_gradients):
        check_gradients(jnp.abs, 0.0)
        raise LookupError
"""
BROKEN = """
    class Skipped(Exception): ...

    def check_broken():
        raise Skipped
"""
MARKED = """
    import pytest

    class TestModel:
        def test_method(self, check_gradients):
            check_gradients(jnp.sin, 1.0, gradient=jnp.sin)

    @pytest.mark.skip(reason="too slow")
    def test_marked(check_gradients):
        check_gradients(jnp.sin, 1.0, gradient=jnp.sin)

    @pytest.mark.skipif(False, condition=1, reason="no GPU")
    def test_conditional(check_gradients):
        check_gradients(jnp.sin, 1.0, gradient=jnp.sin)

    @pytest.mark.skip("not yet")
    def check_later(check_gradients):
        check_gradients(jnp.sin, 1.0, gradient=jnp.sin)

    @pytest.mark.skipif(False, reason="no GPU")
    def check_sin(check_gradients):
        check_gradients(jnp.sin, 1.0)
"""
MARKS = [
    "test_marked: has the mark skip: too slow",
    "test_conditional: has the mark skipif: no GPU",
    "check_later: has the mark skip: not yet",
    "TestModel.test_method: is a method, which only pytest can run",
]

# Each row has the file, the options, the exit status, the last line of standard output, and the skipped cases.
COUNTS = {
    "all right": (RIGHT, ["--strict"], 0, "1 case: 1 right", []),
    "two cases that need other parameters are skipped": (
        RIGHT + PARAMETERS,
        [],
        0,
        "3 cases: 1 right, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
    "two cases that need other parameters are skipped, strict": (
        RIGHT + PARAMETERS,
        ["--strict"],
        3,
        "3 cases: 1 right, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
    "pytest skips cases": (RIGHT + SKIPPING, [], 0, "4 cases: 1 right, 3 skipped", SKIPS),
    "pytest skips cases, strict": (RIGHT + SKIPPING, ["--strict"], 3, "4 cases: 1 right, 3 skipped", SKIPS),
    "a method and marked tests are skipped, strict": (
        RIGHT + MARKED,
        ["--strict"],
        3,
        "5 cases: 1 right, 4 skipped",
        MARKS,
    ),
    "pytestmark skips all cases of a file": (
        RIGHT + "\n    import pytest\n    pytestmark = pytest.mark.skipif(True, reason='no GPU')\n",
        [],
        0,
        "1 case: 0 ran, 1 skipped",
        ["check_sin: has the mark skipif: no GPU"],
    ),
    "all cases need other parameters": (
        PARAMETERS,
        [],
        0,
        "2 cases: 0 ran, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
    "all cases need other parameters, strict": (
        PARAMETERS,
        ["--strict"],
        3,
        "2 cases: 0 ran, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
    "one case cannot tell, two are skipped": (
        RIGHT + UNDECIDED + PARAMETERS,
        [],
        3,
        "4 cases: 1 right, 1 cannot tell, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
    "one case is wrong and then skips, strict": (
        RIGHT + NOT_EVERYWHERE,
        ["--strict"],
        1,
        "2 cases: 1 right, 1 wrong",
        ["check_wrong_then_skip: half"],
    ),
    "one case cannot tell and then skips, one cannot tell and then raises, strict": (
        RIGHT + KINKS,
        ["--strict"],
        2,
        "3 cases: 1 right, 1 cannot tell, 1 could not run",
        ["check_kink_then_skip: half"],
    ),
    "one case reports wrong and then right": (RIGHT + WRONG, [], 1, "2 cases: 1 right, 1 wrong", []),
    "an exception named Skipped is an error, strict": (
        RIGHT + BROKEN + PARAMETERS,
        ["--strict"],
        2,
        "4 cases: 1 right, 1 could not run, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
    "all five outcomes, strict": (
        RIGHT + WRONG + UNDECIDED + BROKEN + PARAMETERS,
        ["--strict"],
        1,
        "6 cases: 1 right, 1 wrong, 1 cannot tell, 1 could not run, 2 skipped",
        [NEEDS_SHAPE, NEEDS_POINT],
    ),
}


@pytest.mark.parametrize(("source", "options", "status", "last", "skipped"), COUNTS.values(), ids=COUNTS)
def test_the_last_line_counts_the_cases(jaxgd, source, options, status, last, skipped):
    """A skipped case changes the exit status only with --strict, and never hides a wrong gradient or an error."""
    write(source)
    answer = jaxgd("check", "model.py", *options)
    assert answer.status == status, answer.err
    assert answer.out.splitlines()[-1] == last
    lines = [line for line in answer.err.splitlines() if line.startswith("skipped:")]
    assert lines == [f"skipped: model.py::{line}" for line in skipped]


def test_json_has_the_skipped_cases(jaxgd):
    """The JSON document has no summary. A case that reports first and skips later has two objects."""
    write(RIGHT + PARAMETERS + SKIPPING)
    answer = jaxgd("check", "model.py", "--json", "--strict")
    assert answer.status == 3
    entries = json.loads(answer.out)
    assert [(entry["case"], entry["report"] is None, entry.get("skipped")) for entry in entries] == [
        ("model.py::check_sin", False, None),
        ("model.py::check_shape", True, NEEDS_SHAPE.partition(": ")[2]),
        ("model.py::test_points", True, NEEDS_POINT.partition(": ")[2]),
        ("model.py::check_skip", True, "not here,\nnot now"),
        ("model.py::test_half", False, None),
        ("model.py::test_half", True, SKIPS[1].partition(": ")[2]),
        ("model.py::check_mute", True, "pytest.skip gave no reason"),
    ]
    assert all(set(entry) == {"case", "report", "skipped"} for entry in entries if entry["report"] is None)
    assert all(set(entry) == {"case", "report"} for entry in entries if entry["report"] is not None)


def test_two_files_share_one_summary(jaxgd):
    """The case of the first file is counted once, although two arguments select it."""
    write(RIGHT)
    write(PARAMETERS, "other.py")
    answer = jaxgd("check", "model.py", "model.py::check_sin", "other.py")
    assert (answer.status, answer.out.splitlines()[-1]) == (0, "3 cases: 1 right, 2 skipped")
    assert answer.out.count(": 1 right") == 1


def test_a_file_imports_from_its_own_folder(jaxgd, tmp_path):
    """The folder is first on the import path only while the file runs. The file's module has a unique name."""
    write("scale = 2.0", "sub/settings_of_the_test.py")
    write(
        """
        import jax.numpy as jnp
        import settings_of_the_test

        def check_scaled(check_gradients):
            import sys
            assert sys.path[0].endswith("sub")
            check_gradients(jnp.sin, settings_of_the_test.scale, seed=5)
        """,
        "sub/json.py",
    )
    path, names = list(sys.path), set(sys.modules)
    answer = jaxgd("check", "sub/json.py", "--json", "--seed", 4)
    assert answer.status == 0, answer.err
    assert json.loads(answer.out)[0]["report"]["seed"] == 5
    assert sys.path == path
    new = {name for name in set(sys.modules) - names if "sub" in str(getattr(sys.modules[name], "__file__", ""))}
    assert "settings_of_the_test" in new
    assert all(name.startswith("_jaxgd_check_") for name in new - {"settings_of_the_test"})
    for name in new:
        del sys.modules[name]


def test_json_of_cases_keeps_stdout_clean(jaxgd):
    """Text that the user's code prints goes to stderr. The entry of a case without a report gives the reason."""
    write(RIGHT + UNDECIDED + "\n        print('noise')\n    print('more noise')\n    def check_nothing(): ...")
    answer = jaxgd("check", "model.py", "--json")
    assert answer.status == 2
    first, second, third = json.loads(answer.out)
    assert (first["case"], first["report"]["verdict"]) == ("model.py::check_sin", "right")
    assert (second["case"], second["report"]["cause"]) == ("model.py::check_kink", "kink")
    assert (third["case"], third["report"]) == ("model.py::check_nothing", None)
    assert "made no report" in third["error"]
    assert "noise" in answer.err


def test_cases_receive_the_seed(jaxgd):
    write(RIGHT + "\n    def check_seed(check_gradients):\n        check_gradients(jnp.sin, 0.0)")
    entries = json.loads(jaxgd("check", "model.py", "--json", "--seed", 11).out)
    assert [entry["report"]["seed"] for entry in entries] == [0, 11]


RAISING = """
    import sys, pytest, jax.numpy as jnp, jaxgd

    def broken(x):
        raise LookupError("no such layer")  # the line at fault

    def check_broken(check_gradients):
        check_gradients(broken, 1.0)

    def check_refused():
        return jaxgd.check_gradients(jnp.sin, 1.0, rtol=7.0)

    def check_exit():
        sys.exit(0)

    def check_skip():
        pytest.skip("not here")
"""


@pytest.mark.bad_input
def test_an_exception_in_a_case_hides_the_frames_of_jaxgd(jaxgd):
    write(RAISING)
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.out) == (2, "4 cases: 3 could not run, 1 skipped\n")
    assert answer.err.startswith("jaxgd check: model.py::check_broken: it raised\nTraceback (most recent call last):\n")
    for line in (
        "# the line at fault",
        "LookupError: no such layer",
        "RangeError: check_gradients: rtol",
        "SystemExit",
    ):
        assert line in answer.err
    assert answer.err.endswith("\nskipped: model.py::check_skip: not here\n")
    assert "Skipped" not in answer.err
    frames = [line for line in answer.err.splitlines() if line.startswith("  File ")]
    assert len(frames) > 5
    assert not [line for line in frames if str(Path(package.__file__).parent) in line]


def test_other_cases_run_after_one_raises(jaxgd):
    write(RIGHT + "\n    def check_broken():\n        raise LookupError" + WRONG)
    answer = jaxgd("check", "model.py")
    assert answer.status == 1
    assert "LookupError" in answer.err
    assert "check_sin: right" in answer.out
    assert "test_twin: wrong" in answer.out


def test_raise_if_wrong_in_a_case_reports_a_wrong_gradient(jaxgd):
    """Each report is printed once, even if it reaches the command only in the GradientError."""
    write(
        """
        import jax.numpy as jnp, jaxgd

        def check_given(check_gradients):
            check_gradients(jnp.sin, 1.0, gradient=jnp.sin).raise_if_wrong()

        def check_own():
            jaxgd.check_gradients(jnp.sin, 1.0, gradient=jnp.sin).raise_if_wrong()
        """
    )
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.err) == (1, "")
    assert answer.out.count("check_gradients(sin): wrong") == 2
    assert "model.py::check_own: wrong, largest error" in answer.out


@pytest.mark.parametrize("source", ["import no_such_module", "def f(:\n    pass", "import sys; sys.exit(1)"])
def test_an_import_failure_shows_only_the_users_frames(jaxgd, source):
    write(source)
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("jaxgd check: model.py cannot be imported\n")
    assert "model.py" in answer.err.splitlines()[1] + answer.err.splitlines()[2]
    assert "importlib" not in answer.err
    assert "jaxgd/cli" not in answer.err


def test_an_interrupt_returns_status_130(jaxgd):
    write("def check_slow():\n    raise KeyboardInterrupt")
    assert jaxgd("check", "model.py").status == 130


MISUSE = {
    "a file that does not exist": (["absent.py"], "'absent.py' is not a file"),
    "a case in a file that does not exist": (["absent.py::check_x"], "'absent.py' is not a file"),
    "a folder": (["."], "'.' is not a file"),
    "a case without a file": (["::check_x"], "is not a file"),
    "a file without the ending .py": (["notes.txt"], "Its name must end in .py"),
    "no such case": (["model.py::check_sine"], "has no 'check_sine'. Its cases are check_sin. Did you mean check_sin?"),
    "an empty case name": (["model.py::"], "Its cases are check_sin."),
    "no such case in a file without cases": (["none.py::check_x"], "has no case check_… or test_…"),
    "no such case in a file without runnable cases": (
        ["fixtures.py::test_x"],
        "has no case check_… or test_…. Did you mean test_f?",
    ),
    "a file without cases": (["none.py"], "none.py has no case. A case is a function check_…"),
    "a number instead of a function": (["none.py::number"], "none.py::number must be a function, got int"),
    "a class instead of a function": (["none.py::Thing"], "must be a function"),
    "a function that needs another parameter": (
        ["none.py::step"],
        "none.py::step needs x, but jaxgd check supplies only check_gradients",
    ),
    "a test that needs a fixture": (["fixtures.py::test_f"], "fixtures.py::test_f needs tmp_path"),
    "negative seed": (["model.py", "--seed", -1], "between 0 and"),
    "no such flag": (["model.py", "--fast"], "--fast"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("argv", "match"), MISUSE.values(), ids=MISUSE)
def test_misuse_prints_one_line_and_runs_nothing(jaxgd, argv, match):
    write(RIGHT + "\n        raise RuntimeError('not reached')")
    write("def check_first():\n    raise RuntimeError('not reached')", "first.py")
    write("number = 3\nclass Thing: ...\ndef step(x, y=2, *rest, **more): ...", "none.py")
    write("def test_f(check_gradients, tmp_path): ...", "fixtures.py")
    write("text", "notes.txt")
    answer = jaxgd("check", "first.py", *argv)
    assert (answer.status, answer.out) == (2, "")
    assert match in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(("value", "match"), [("None", "made no report."), ("3", "made no report; it returned int.")])
def test_a_case_without_a_report_is_an_error(jaxgd, value, match):
    write(f"def check_x():\n    return {value}")
    answer = jaxgd("check", "model.py")
    assert (answer.status, answer.out) == (2, "1 case: 1 could not run\n")
    assert answer.err.startswith(f"jaxgd check: model.py::check_x: it {match}")
    assert len(answer.err.splitlines()) == 1
