"""The pytest plugin, tested by runs of pytest on small test files."""

import inspect
import os
import re
import subprocess
import sys

import pytest

# Import the checker once, so that the inner runs of pytest share it.
import jaxgd.gradcheck  # noqa: F401

pytest_plugins = ["pytester"]

UNDECIDED = "undecided gradient checks"


@pytest.fixture
def run(pytester):
    """Return a function that writes a test file and runs it in this process."""

    def run(source, *flags):
        pytester.makepyfile(test_it="import jax.numpy as jnp\nimport pytest\n\n" + inspect.cleandoc(source))
        return pytester.runpytest_inprocess("-v", "--strict-markers", "-p", "no:cacheprovider", *flags)

    return run


def test_the_plugin_loads_in_any_project_without_warnings_and_without_jax(tmp_path):
    heavy = "{'jax', 'jaxlib', 'numpy', 'optax'}"
    (tmp_path / "test_it.py").write_text(f"import sys\n\ndef test_it(): assert not {heavy} & set(sys.modules)\n")
    # jaxtyping's plugin would import NumPy. Hypothesis' plugin would take a second.
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    words += ["-p", "no:jaxtyping", "-p", "no:hypothesispytest"]
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTEST_ADDOPTS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_right_gradient_passes_without_output(run):
    result = run("""
        def test_square(check_gradients):
            report = check_gradients(lambda x: x**2, 1.0, gradient=lambda x: 2 * x)
            assert report.verdict == "right"
            assert report.seed == 0
            assert check_gradients(lambda x: x**2, 1.0, seed=7, strict=True).seed == 7
    """)
    result.assert_outcomes(passed=1)
    assert UNDECIDED not in result.stdout.str()


def test_a_wrong_gradient_fails_with_only_the_report(run):
    result = run("""
        def helper(check, v):
            return check(
                lambda v: jnp.sum(v["w"] ** 2),
                v,
                gradient=lambda v: {"w": 3 * v["w"]},
            )

        def test_wrong(check_gradients):
            helper(check_gradients, {"w": jnp.ones(3)})
            raise RuntimeError("not reached")
    """)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    failure = text[text.index("_ test_wrong _") : text.index("= short test summary info")].splitlines()
    failure = [line for line in failure if line.strip("_= ")]
    assert failure[0].strip("_ ") == "test_wrong"
    assert failure[1].startswith("check_gradients(")
    assert failure[1].endswith(": wrong")
    assert any("v['w']" in line and "float32[3]" in line and "WRONG" in line for line in failure)
    assert failure[-1].split() == ["at:", "test_it.py:5"]
    for internal in ("gradcheck", "pytest_plugin", "Traceback", "def helper", "not reached"):
        assert internal not in text


def test_an_undecided_check_passes_and_is_listed(run):
    result = run("""
        def test_kink(check_gradients):
            def hinge(x):
                return jnp.abs(x)
            assert check_gradients(hinge, 0.0).verdict == "cannot tell"
            check_gradients(hinge, 0.0, seed=1)

        @pytest.mark.gradients(strict=True)
        def test_overruled(check_gradients):
            check_gradients(jnp.abs, 0.0, strict=False)
    """)
    result.assert_outcomes(passed=2)
    lines = [line for line in result.stdout.lines if line]
    start = next(i for i, line in enumerate(lines) if f" {UNDECIDED} " in line)
    first, second, end = lines[start + 1 : start + 4]
    assert first.startswith("test_it.py::test_kink  ")
    assert first.endswith("hinge: kink")
    assert second == "test_it.py::test_overruled  abs: kink"
    assert end.startswith("=")


def test_an_undecided_check_fails_if_strict(run):
    result = run("""
        def test_by_call(check_gradients):
            check_gradients(jnp.abs, 0.0, strict=True)

        @pytest.mark.gradients(strict=True)
        def test_by_marker(check_gradients):
            check_gradients(jnp.abs, 0.0)
    """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["check_gradients(*): cannot tell", "FAILED *::test_by_marker - *: cannot tell"])
    assert UNDECIDED not in result.stdout.str()


def names(result):
    """Return the ids of the tests that passed, without the file, in the order of the run."""
    return [line.split()[0].partition("::")[2] for line in result.stdout.lines if " PASSED" in line]


def test_a_test_runs_for_every_pair_of_point_and_seed(run):
    result = run("""
        @pytest.mark.gradients(points={"zero": 0.0, "one": 1.0}, seeds=2)
        def test_both(gradient_point, gradient_seed):
            assert gradient_point in (0.0, 1.0)
            assert gradient_seed in (0, 1)

        @pytest.mark.gradients(points=[0.5, "name", (1, 2), abs, pytest.param(3.0, id="mine"), None])
        def test_names(gradient_point):
            assert gradient_point in (0.5, "name", (1, 2), abs, 3.0, None)

        @pytest.mark.gradients(points=(x for x in jnp.arange(2.0)), seeds=range(5, 7))
        def test_iterables(gradient_point, gradient_seed):
            assert gradient_point.shape == ()

        @pytest.mark.gradients([1.0], 1)
        def test_in_order(gradient_point, gradient_seed):
            assert (gradient_point, gradient_seed) == (1.0, 0)

        def test_without(gradient_seed):
            assert gradient_seed == 0
    """)
    assert names(result) == [
        *("test_both[zero-seed0]", "test_both[zero-seed1]", "test_both[one-seed0]", "test_both[one-seed1]"),
        *("test_names[0.5]", "test_names[name]", "test_names[point2]", "test_names[abs]", "test_names[mine]"),
        "test_names[point5]",
        *("test_iterables[point0-seed5]", "test_iterables[point0-seed6]"),
        *("test_iterables[point1-seed5]", "test_iterables[point1-seed6]"),
        *("test_in_order[1.0-seed0]", "test_without"),
    ]


def test_check_gradients_uses_the_markers_seed(run):
    result = run("""
        @pytest.mark.gradients(seeds=[3, 4])
        def test_seed(check_gradients, request):
            report = check_gradients(lambda x: x**2, 1.0)
            assert request.node.name == f"test_seed[seed{report.seed}]"
    """)
    assert names(result) == ["test_seed[seed3]", "test_seed[seed4]"]


def test_a_class_marker_affects_only_tests_that_need_its_arguments(run):
    """The closest marker decides each argument. A user's parametrization replaces the plugin's fixture."""
    result = run("""
        @pytest.mark.gradients(points=[1.0, 2.0], seeds=2, strict=True)
        class TestModel:
            def test_nothing(self): ...

            @pytest.mark.gradients(seeds=[5])
            def test_both(self, gradient_point, gradient_seed):
                assert gradient_seed == 5

        @pytest.mark.parametrize("gradient_point", ["theirs"])
        def test_theirs(gradient_point):
            assert gradient_point == "theirs"

        @pytest.fixture
        def doubled(gradient_point):
            return 2 * gradient_point

        @pytest.mark.gradients(points=[1.0])
        def test_through_a_fixture(doubled):
            assert doubled == 2.0
    """)
    assert names(result) == [
        *("TestModel::test_nothing", "TestModel::test_both[1.0-seed5]", "TestModel::test_both[2.0-seed5]"),
        *("test_theirs[theirs]", "test_through_a_fixture[1.0]"),
    ]


MISUSE = {
    "points unused": (
        "points=[1.0]",
        "",
        "has points, but the test does not use them",
        "Add the parameter gradient_point",
    ),
    "seeds unused": ("seeds=2", "", "has seeds, but the test does not use them", "check_gradients or gradient_seed"),
    "strict unused": (
        "strict=True",
        "gradient_seed",
        "has strict, but the test does not use check_gradients",
        "Add the parameter check_gradients",
    ),
    "gradient_point without points": (
        "seeds=1",
        "gradient_point, gradient_seed",
        "requests gradient_point",
        "(points=[...])",
    ),
    "unknown argument": ("point=[1.0]", "gradient_point", "takes points, seeds and strict", "'point'"),
    "too many arguments": ("[1.0], 1, True, 2", "gradient_point", "takes points, seeds and strict", "too many"),
    "empty list of points": ("points=[]", "gradient_point", "at least one point, got none", "make a list"),
    "empty dict of points": ("points={}", "gradient_point", "at least one point, got none", "make a list"),
    "number as points": ("points=1.0", "gradient_point", "list of points", "got float"),
    "text as points": ("points='ab'", "gradient_point", "list of points", "got str"),
    "zero seeds": ("seeds=0", "gradient_seed", "at least one seed, got 0", "0, 1 and 2"),
    "empty list of seeds": ("seeds=[]", "gradient_seed", "at least one seed, got []", "0, 1 and 2"),
    "float as seeds": ("seeds=2.0", "gradient_seed", "whole numbers, got 2.0", ""),
    "bool as seeds": ("seeds=True", "gradient_seed", "whole numbers, got True", ""),
    "text as seeds": ("seeds='12'", "gradient_seed", "whole numbers, got '12'", ""),
    "negative seed": ("seeds=[0, -1]", "gradient_seed", "at least 0, got -1", ""),
    "number as strict": ("strict=1", "check_gradients", "True or False, got 1", ""),
}


def test_a_misused_marker_prints_one_message(run, pytester):
    """One run collects all misuses. Each has its own file, because a misuse ends the collection of its file."""
    for k, (arguments, parameters, *_) in enumerate(MISUSE.values()):
        source = (
            f"@pytest.mark.gradients({arguments})\ndef test_f({parameters}):\n    raise RuntimeError('not reached')\n"
        )
        pytester.makepyfile(**{f"test_{k}": f"import pytest\n\n{source}"})
    result = run("", "--continue-on-collection-errors", pytester.path)
    assert result.parseoutcomes() in ({"errors": len(MISUSE)}, {"error": len(MISUSE)})
    text = result.stdout.str()
    for internal in ("pytest_plugin.py", "Traceback", "not reached"):
        assert internal not in text
    sections = re.split(r"^_+ ERROR .* _+$", text.partition("= short test summary info =")[0], flags=re.MULTILINE)[1:]
    assert len(sections) == len(MISUSE)
    for k, (name, (*_, message, advice)) in enumerate(MISUSE.items()):
        (section,) = (section for section in sections if f"test_{k}.py::test_f" in section)
        assert "@pytest.mark.gradients" in section, name
        assert message in section, name
        assert advice in section, name


def test_an_exception_of_the_users_function_shows_only_the_users_frames(run):
    result = run("""
        def broken(x):
            if x > 0:
                raise LookupError("no such layer")  # the line at fault

        def refused(x):
            return jnp.ones((2, 3)) @ x

        def test_broken(check_gradients):
            check_gradients(broken, 1.0)

        def test_refused(check_gradients):
            check_gradients(refused, jnp.ones(5))

        def test_ours(check_gradients):
            check_gradients(jnp.sin, 1.0, rtol=7.0)
    """)
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            ">       check_gradients(broken, 1.0)",
            ">*raise LookupError(*# the line at fault",
            "test_it.py:*: LookupError",
            "    return jnp.ones((2, 3)) @ x",
            ">       check_gradients(jnp.sin, 1.0, rtol=7.0)",
            "E       jaxgd.errors.RangeError: check_gradients: rtol must be*",
        ]
    )
    for internal in ("jaxgd/gradcheck", "pytest_plugin.py", "jaxgd/errors.py"):
        assert internal not in text


def test_pytest_documents_the_marker_and_the_fixtures(pytester):
    pytester.runpytest_inprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.gradients(points=None, seeds=None*"])
    result = pytester.runpytest_inprocess("--fixtures")
    for name in ("check_gradients", "gradient_point", "gradient_seed"):
        result.stdout.fnmatch_lines([f"{name} -- *pytest_plugin.py:*"])


@pytest.mark.slow
def test_undecided_checks_are_listed_under_xdist(run):
    """The main process lists the undecided checks of all workers."""
    result = run(
        """
        @pytest.mark.gradients(points={"at": 0.0})
        def test_hinge(check_gradients, gradient_point):
            check_gradients(jnp.abs, gradient_point)

        def test_other(): ...
        """,
        "-n2",
    )
    assert result.parseoutcomes() == {"passed": 2}
    result.stdout.fnmatch_lines([f"=* {UNDECIDED} *=", "test_it.py::test_hinge?at?  abs: kink"])
