"""`jaxgd minimize`: its output, its figures and its error messages."""

import importlib
import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from support import often

from jaxgd import rules
from jaxgd.rules.entry import Entry, Hyperparam
from jaxgd.rules.registry import RULES


def test_rosenbrock_prints_the_known_numbers(jaxgd):
    answer = jaxgd("minimize", "rosenbrock", "--start", -1.2, 1, "--eta", 1e-3, "--max-steps", 10_000)
    assert answer.status == 0
    assert answer.err == ""
    assert "out of steps" in answer.out
    assert "Try more steps, a larger eta or a looser tolerance\n" in answer.out
    assert "after 10000 updates and 10001 evaluations: C = 5.85276" in answer.out
    rows = answer.out.split("\n\n")[0].splitlines()
    assert rows[0].split()[:2] == ["updates", "cost"]
    assert rows[1].split() == ["0", "24.2", "232.868", "-1.2", "1"]
    assert rows[2].split()[-2:] == ["-0.9844", "1.088"]
    assert rows[-1].split()[0] == "10000"
    assert all(len(row) < 100 for row in rows)


@pytest.mark.parametrize("rule", often([rule.word for rule in RULES.values()], ["heavy-ball"]))
def test_every_rule_descends(jaxgd, rule):
    answer = jaxgd("minimize", "himmelblau", "--rule", rule, "--max-steps", 50, "--json")
    assert answer.status == 0
    path = json.loads(answer.out)["trajectory"]
    assert path["cost"][-1] < path["cost"][0] == 170.0


TOY = """
import jax
import optax

from jaxgd.rules.rule import RuleSpec, checked_rule

def sign_step(eta, power):
    return checked_rule(SPEC, eta=eta, power=power)

def build(eta, power):
    return optax.stateless(lambda g, _: jax.tree.map(lambda g: -eta * jax.numpy.sign(g) * abs(g) ** power, g))

SPEC = RuleSpec("sign_step", build)
"""


def test_one_file_and_one_entry_add_a_rule_to_the_library_and_to_the_command(jaxgd, tmp_path, monkeypatch):
    """An entry in RULES adds the rule to --rule and to `jaxgd.rules`, and its new hyperparameter to the options."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    power = Hyperparam("power", 0.5, "Power of the gradient", fraction=True)
    eta = RULES["gradient_descent"].hyperparams[0]
    monkeypatch.setitem(RULES, "sign_step", Entry("sign_step", "toy", (eta, power)))
    importlib.import_module("jaxgd.cli.command")
    # Remove these modules, so that the command imports them again and reads the changed RULES.
    for module in ("jaxgd.cli.minimize", "jaxgd.cli.command"):
        monkeypatch.delitem(sys.modules, module)
    text = " ".join(jaxgd("minimize", "--help").out.split())
    assert "gradient-flow,sign-step}" in text
    assert "η of gradient-descent, heavy-ball, nesterov and sign-step. (default: 0.001)" in text
    assert "--power FLOAT Power of the gradient of sign-step. (default: 0.5)" in text
    valley = ("minimize", "valley", "--rule", "sign-step", "--eta", 0.1, "--max-steps", 1)
    out = json.loads(jaxgd(*valley, "--json").out)
    assert out["rule"] == "sign_step(eta=0.1, power=0.5)"
    np.testing.assert_allclose(out["v"], 1 - 0.1 * np.sqrt(2), rtol=1e-12)
    assert "power must be at least 0 and below 1, got 1.0" in jaxgd(*valley, "--power", 1).err
    assert rules.sign_step(0.1, 0.5).spec.name == "sign_step"


def test_json_holds_the_whole_path(jaxgd):
    out = json.loads(jaxgd("minimize", "valley", "--eta", 0.1, "--max-steps", 40, "--json", "--sharpness").out)
    assert (out["outcome"], out["steps"]) == ("MAX_STEPS", 40)
    np.testing.assert_allclose(out["trajectory"]["v"], 0.8 ** np.arange(41)[:, None] * np.ones(2), rtol=1e-12)
    np.testing.assert_allclose(out["trajectory"]["sharpness"], 2, rtol=1e-9)
    assert out["trajectory"]["step_norm"][0] == "nan"


def test_divergence_returns_status_1(jaxgd):
    answer = jaxgd("minimize", "valley", "--eta", 1.1)
    assert answer.status == 1
    assert "diverging" in answer.out
    assert "the lowest cost was C = 2 at (1, 1)" in answer.out


def test_option_target_stops_early_but_option_no_stop_makes_all_steps(jaxgd):
    answer = jaxgd("minimize", "valley", "--eta", 0.1, "--target", 1e-8)
    assert "the cost reached its target" in answer.out
    assert "after 43 updates" in answer.out  # C = 2 · 0.64ⁿ is below 1e-8 from n = 43 on
    answer = jaxgd("minimize", "valley", "--eta", 0.1, "--no-stop", "--max-steps", 500)
    assert "after 500 updates" in answer.out


@pytest.mark.parametrize(("eta", "crossing"), [(1.1, True), (0.9, False)])
def test_sharpness_reports_a_lambda_max_above_the_threshold(jaxgd, eta, crossing):
    """λ_max is 2 everywhere in the valley. 2/η is 1.8 for η = 1.1, and 2.2 for η = 0.9."""
    answer = jaxgd("minimize", "valley", "--eta", eta, "--max-steps", 40, "--sharpness")
    assert "2/η" in answer.out
    assert ("λ_max is above 2/η at the start" in answer.out) == crossing


OWN = """
    from neighbor import scale

    def cost(v):
        return scale * ((v - 1) ** 2).sum()

    def broken(v):
        raise RuntimeError("mine")

    def sides(v):
        return v

    number = 3
"""


@pytest.fixture
def own(jaxgd, tmp_path):
    (tmp_path / "neighbor.py").write_text("scale = 0.5\n")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    return jaxgd


def test_a_users_cost_converges(own):
    answer = own("minimize", "own.py::cost", "--start", 0, 0, 0, "--eta", 0.5)
    assert answer.status == 0, answer.err
    assert "converged" in answer.out


MISUSED = {
    "no such cost": (("ackley",), "got 'ackley'"),
    "no such file": (("nowhere.py::cost", "--start", 1), "is not a file"),
    "no such function": (("own.py::coast", "--start", 1), "Did you mean cost?"),
    "a file without a function name": (("own.py", "--start", 1), "name the function too"),
    "a number instead of a function": (("own.py::number", "--start", 1), "must be a function, got int"),
    "no start": (("own.py::cost",), "--start"),
    "one variable for a start of two": (("rosenbrock", "--start", 1), "expects 2 variables"),
    "eta 0": (("valley", "--eta", 0), "eta"),
    "mu 1": (("valley", "--rule", "heavy-ball", "--mu", 1), "mu"),
    "eta for a rule that takes no hyperparameter": (
        ("valley", "--rule", "newton", "--eta", 1),
        "takes no hyperparameter",
    ),
    "a hyperparameter of another rule": (("valley", "--rule", "nesterov", "--dt", 1), "takes only --eta and --mu"),
    "no such rule": (("valley", "--rule", "magic"), "rule"),
    "max_steps below 0": (("valley", "--max-steps", -1), "max_steps"),
    "--plot with a .txt file": (("valley", "--plot", "valley.txt"), ".png"),
    "--plot in a missing folder": (("valley", "--plot", "nowhere/valley.png"), "nowhere does not exist"),
    "--plot with a folder": (("valley", "--plot", "folder.html"), "got the folder folder.html"),
    "--target with --no-stop": (("valley", "--no-stop", "--target", 1), "--target is a stopping test"),
    "a cost that is not a scalar": (("own.py::sides", "--start", 1, 2), "one real scalar"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_misuse_prints_one_line(own, name):
    words, expected = MISUSED[name]
    answer = own("minimize", *words)
    assert answer.status == 2
    assert answer.out == ""
    assert expected in answer.err
    assert "Traceback" not in answer.err
    assert len(answer.err.splitlines()) == 1


def test_an_unreachable_tolerance_gives_one_line_of_warning(jaxgd):
    answer = jaxgd("minimize", "valley", "--eta", 0.1, "--rtol", 1e-30)
    assert answer.status == 0
    assert answer.err.startswith("jaxgd minimize: warning: ")
    assert "below the rounding" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_an_exception_in_a_users_cost_shows_only_the_users_frames(own):
    answer = own("minimize", "own.py::broken", "--start", 1)
    assert answer.status == 2
    assert "RuntimeError: mine" in answer.err
    files = {Path(file).name for file in re.findall(r'File "(.*?)"', answer.err)}
    assert files == {"own.py"}


TWO, FOUR = ("valley", "--eta", 0.1), ("powell-singular", "--rule", "newton")
FIGURES = {
    f"{n} {ending}": (words, ending) for n, words in (("two", TWO), ("four", FOUR)) for ending in ("png", "svg", "html")
}


@pytest.mark.parametrize("name", often(FIGURES, ["two svg", "four html"]))
def test_figures_are_written(jaxgd, tmp_path, name):
    words, ending = FIGURES[name]
    answer = jaxgd("minimize", *words, "--plot", f"valley.{ending}")
    assert answer.status == 0, answer.err
    content = (tmp_path / f"valley.{ending}").read_bytes()
    assert len(content) > 10_000
    assert {"png": b"\x89PNG", "svg": b"<svg", "html": b"Plotly.newPlot"}[ending] in content
    if ending != "png":  # matplotlib draws the words of an SVG figure, and repeats them in comments
        assert b"known minimum" in content
        assert b"): converged after " in content
    assert not list(tmp_path.glob(".*"))


def test_the_figure_of_a_users_cost_marks_no_known_minimum(own, tmp_path):
    answer = own("minimize", "own.py::cost", "--start", 0, "--eta", 0.5, "--plot", "own.html")
    assert answer.status == 0, answer.err
    assert "converged" in answer.out
    page = (tmp_path / "own.html").read_text()
    assert "): converged after " in page
    assert "known minimum" not in page


ODD = """
    import jax.numpy as jnp

    def bowl(v):
        return (v**2).sum()

    def constant(v):
        return 0 * v[0] + 3

    def number(v):
        return 3.0

    def holes(v):
        return (jnp.sqrt(v[0]) - 1) ** 2 + v[1] ** 2

    def bottomless(v):
        return -(v**2).sum()

    def kinks(v):
        return jnp.abs(v).sum()
"""


@pytest.mark.parametrize("ending", ["png", "html"])
@pytest.mark.parametrize(
    "words",
    [
        ("bowl", 1, 1, 1, 1, 1),
        ("bowl", 0, 0, 0),
        ("bowl", 2),
        ("constant", 1, 1),
        ("number", 1, 1),
        ("holes", 0.1, 1),
        ("bottomless", 1, 1),
        ("kinks", 1, 0.5),
    ],
    ids=str,
)
@pytest.mark.slow
def test_figures_of_unusual_costs_are_written(jaxgd, tmp_path, words, ending):
    (tmp_path / "odd.py").write_text(textwrap.dedent(ODD))
    name, *start = words
    answer = jaxgd("minimize", f"odd.py::{name}", "--start", *start, "--eta", 0.1, "--plot", f"odd.{ending}")
    assert answer.status == (1 if name == "bottomless" else 0), answer.err
    assert "Traceback" not in answer.err
    assert (tmp_path / f"odd.{ending}").stat().st_size > 10_000


def test_figures_of_a_diverging_path_and_of_a_single_point_are_written(jaxgd, tmp_path):
    assert jaxgd("minimize", "rosenbrock", "--eta", 1, "--plot", "diverged.html").status == 1
    assert jaxgd("minimize", "valley", "--start", 0, 0, "--eta", 0.1, "--plot", "still.png").status == 0
    assert b"): not converged: diverging after " in (tmp_path / "diverged.html").read_bytes()
    assert (tmp_path / "still.png").read_bytes().startswith(b"\x89PNG")
