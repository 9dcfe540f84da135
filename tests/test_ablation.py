"""The ablation replays recorded checks, and finds the cases whose outcome depends on a part or a constant."""

import itertools
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import pytest

from benchmarks import __main__ as commands
from benchmarks.ablation import ablate, parts, record
from benchmarks.corpus.case import CANNOT_TELL, IS_WRONG, RIGHT, Case
from benchmarks.corpus.draws import fixed

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "ablation.json"
# A recorded examination replaces f and its evaluation by stand-ins. The checker's type annotations forbid stand-ins.
pytestmark = pytest.mark.bad_input

UNSTEADY = itertools.count(1.0)
CASES = (
    Case("smooth", lambda x: jnp.sum(x**3), fixed([1.0, 2.0])),
    Case("kink", lambda x: jnp.sum(jnp.abs(x)), fixed([0.0, 2.0]), (CANNOT_TELL,), "kink"),
    Case("wrong", lambda x: jnp.sum(x**3), fixed([1.0, 2.0]), (IS_WRONG,), gradient=lambda x: 2 * x**2),
    Case("impure", lambda x: jnp.sum(x) * next(UNSTEADY), fixed([1.0, 2.0]), (CANNOT_TELL,), "not deterministic"),
    Case("raises", lambda x: 1 / 0, fixed([1.0])),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a folder with the records of CASES, as the table `kinks`."""
    # This fixture runs before the mark `bad_input` can disable jaxtyping.
    jaxtyping.config.update("jaxtyping_disable", True)
    folder = tmp_path_factory.mktemp("ablation")
    with record.patched(((record, "TABLES", {"kinks": CASES}),)):
        record.records(("kinks",), ("float32",), 1, folder, None)
    jaxtyping.config.update("jaxtyping_disable", False)
    return folder


@pytest.fixture
def records(cache, monkeypatch):
    """Return the records from the folder. No case is checked again."""
    monkeypatch.delattr(record, "checked")
    return record.records(("kinks",), ("float32",), 1, cache, None)


@pytest.fixture
def base(records):
    with record.patched(ablate.REPLAY):
        return [ablate.replayed(x) for x in records]


def named(name):
    return next(row for row in (*parts.PARTS, *parts.CONSTANTS) if row.name == name)


@pytest.mark.slow
def test_a_replay_gives_the_recorded_verdicts(records, base):
    verdicts = ["right", "cannot tell", "wrong", "cannot tell", "ZeroDivisionError"]
    assert [verdict for verdict, _ in base] == verdicts
    assert base == [x.outcome for x in records]
    assert [x.grade(x.outcome) for x in records] == [0, 0, 0, 0, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("gap test and small kinks", {"kinks: kink"}),
        ("jumps and infinite slopes", set()),
        ("second run", {"kinks: impure"}),
        ("jit = vmap", set()),
        ("the direction of small elements", set()),
    ],
)
def test_exactly_these_cases_fail_without_a_part(records, base, name, failed):
    found = ablate.ablate_part(records, base, named(name))
    assert set(found["failed"]) == set(found["changed"]) == failed
    # The part is in place again: the ablation of another part, which decides no case, changes no outcome.
    assert ablate.ablate_part(records, base, named("structure"))["changed"] == {}


@pytest.mark.slow
def test_without_any_comparison_a_wrong_gradient_passes_as_right(records, base):
    part = parts.Part("everything", without=" = ")
    assert set(ablate.ablate_part(records, base, part)["failed"]) == {"kinks: wrong", "kinks: kink"}


@pytest.mark.slow
def test_the_nearest_value_with_which_a_case_fails_is_found(records, base):
    row = ablate.ablate_constant(records, base, named("STEEPEST"))
    assert row["up"]["value"] == 1.0
    assert "kinks: smooth" in row["up"]["failed"]
    assert "value" not in row["down"]


def test_the_comments_on_the_constants_agree_with_the_stored_results():
    lines = Path(parts.constants.__file__).read_text(encoding="utf-8").splitlines()
    rows = [row for row in json.loads(RESULTS.read_text(encoding="utf-8")) if "constant" in row]
    assert {row["constant"] for row in rows} == {constant.name for constant in parts.CONSTANTS}
    for row in rows:
        down, up = (f"{x['value'] / row['value']:.3g}" if "value" in x else "–" for x in (row["down"], row["up"]))
        (line,) = [line for line in lines if line.startswith(f"{row['constant']} = ")]
        assert f"# [{down}, {up}] " in line


@pytest.mark.slow
def test_a_replay_without_a_recorded_search_gives_the_same_verdict(records, base):
    stage = records[1].stages[0]
    stage.exam.sampler.searches.clear()
    with record.patched(ablate.REPLAY):
        assert ablate.replayed(records[1]) == base[1]


@pytest.mark.parametrize("part", parts.PARTS, ids=lambda part: part.name)
def test_each_part_names_attributes_that_exist(part):
    with record.patched(part.patches):
        assert part.patches or part.without or part.change


@pytest.mark.parametrize(
    ("expected", "cause", "outcome", "grade"),
    [
        ((RIGHT,), "", (RIGHT, "agrees"), 0),
        ((RIGHT,), "", (CANNOT_TELL, "noise"), 1),
        ((RIGHT,), "", (IS_WRONG, "differs"), 2),
        ((CANNOT_TELL,), "kink", (CANNOT_TELL, "kink"), 0),
        ((CANNOT_TELL,), "kink", (CANNOT_TELL, "jump"), 1),
        ((RIGHT, CANNOT_TELL), "", (CANNOT_TELL, "jump"), 0),
    ],
)
def test_a_grade_counts_the_distance_from_the_expected_verdict(expected, cause, outcome, grade):
    assert record.Record("part", "name", expected, cause, outcome, None, []).grade(outcome) == grade


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gradcheck", *map(str, words)])
    return commands.main()


def test_the_command_prints_and_writes_the_tables(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "CONSTANTS", (named("JUMP"),))
    monkeypatch.setattr(ablate, "PARTS", (named("gap test and small kinks"),))
    out = tmp_path / "rows.json"
    assert run(monkeypatch, "--ablate", "--parts", "kinks", "--cache", cache, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "kinks: raises: ZeroDivisionError, expected right" in printed
    assert "4 of 5 checks are as expected" in printed
    assert "5 of 5 replays give the recorded verdict and cause" in printed
    counts, constant, part = json.loads(out.read_text(encoding="utf-8"))
    assert counts == {"checks": {"kinks": 5}, "replays that differ": []}
    assert (constant["constant"], constant["value"]) == ("JUMP", 0.02)
    assert part["failed"] == {"kinks: kink": part["changed"]["kinks: kink"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--parts", "rights"), "expected --parts from correct"),
        (("--seeds", "0"), "expected --seeds to be at least 1"),
        (("--dtypes", "float16"), "expected --dtypes float32 or float64"),
        (("--out", "rows.json"), "Add --ablate"),
        (("--ablate", "--out", "no/rows.json"), "expected --out in an existing folder"),
    ],
)
def test_misuse_of_the_command_is_refused_with_a_reason(monkeypatch, capsys, words, message):
    assert run(monkeypatch, *words) == 2
    assert message in capsys.readouterr().err
