"""An outcome passes through jit and vmap, and its message says how the run ended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd.outcome import Outcome, Reason


@jax.jit
def ran(cost):
    return Outcome(jnp.where(jnp.isfinite(cost), Reason.COMPLETED, Reason.NOT_FINITE))


def test_the_codes_are_fixed():
    """Checkpoints and results on disk contain the codes."""
    assert {r.name: r.value for r in Reason} == {
        "COMPLETED": 0,
        "NOT_FINITE": 1,
        "STOPPED": 2,
        "GRADIENT": 3,
        "STEP": 4,
        "COST": 5,
        "DECREASE": 6,
        "STALLED": 7,
        "DIVERGING": 8,
        "MAX_STEPS": 9,
        "SECONDS": 10,
        "BAD_RULE": 11,
        "RUNNING": 12,
        "UNCHANGED": 13,
        "SATURATED": 14,
        "START_NOT_FINITE": 15,
        "ZERO_GRADIENT": 16,
        "PATIENCE": 17,
    }


def test_an_outcome_passes_through_jit():
    good, bad = ran(1.0), ran(jnp.inf)
    assert (good.reason, good.ok) == (Reason.COMPLETED, True)
    assert (bad.reason, bad.ok) == (Reason.NOT_FINITE, False)


def test_vmap_gives_one_outcome_per_batch_element():
    batch = jax.vmap(ran)(jnp.array([1.0, jnp.nan, jnp.inf]))
    assert [jax.tree.map(lambda x, i=i: x[i], batch).reason.name for i in range(3)] == [
        "COMPLETED",
        "NOT_FINITE",
        "NOT_FINITE",
    ]
    assert batch.message.startswith("1 × completed")
    assert "; 2 × not finite" in batch.message


GOOD = {"COMPLETED", "GRADIENT", "STEP", "COST", "DECREASE", "PATIENCE"}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_a_message_and_a_success_flag(reason):
    for code in (jnp.array(reason), np.int32(reason), int(reason)):
        outcome = Outcome(code)
        assert outcome.message.split(":")[1].strip()
        assert outcome.ok is (reason.name in GOOD)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("MAX_STEPS", "more steps"),
        ("MAX_STEPS", "larger eta"),
        ("DIVERGING", "smaller eta"),
        ("NOT_FINITE", "smaller eta"),
        ("SATURATED", "smaller eta"),
    ],
)
def test_the_message_of_a_failure_says_what_to_try(reason, advice):
    assert advice in Outcome(int(Reason[reason])).message.split(". Try ")[1]


@pytest.mark.parametrize("reason", Reason)
def test_a_message_names_only_a_step_size_that_the_rule_has(reason):
    if reason.name in ("UNCHANGED", "SATURATED"):
        return  # only `train` reports these two reasons, and their texts always name eta
    assert "eta" not in Outcome(int(reason), step_size=None).message
    assert "eta" not in Outcome(int(reason), step_size="dt").message


def test_a_message_states_the_gradient_and_its_tolerance():
    outcome = Outcome(int(Reason.MAX_STEPS), 25.1, 55.8)
    assert "(‖∇C‖ = 25.1, tolerance 55.8)" in outcome.message
    assert "‖∇C‖" not in Outcome(int(Reason.MAX_STEPS)).message


def test_the_messages_of_all_reasons_differ():
    assert len({Outcome(int(reason)).message for reason in Reason}) == len(Reason)


def test_a_batch_has_no_single_reason():
    with pytest.raises(TypeError):
        _ = Outcome(jnp.array([0, 1])).reason


def test_an_unknown_code_raises():
    with pytest.raises(ValueError, match="77"):
        _ = Outcome(jnp.array(77)).ok


def test_the_repr_names_the_reasons():
    assert repr(Outcome(jnp.array(3))) == "Outcome(GRADIENT)"
    assert repr(Outcome(jnp.array([3, 1, 3]))) == "Outcome(1 × NOT_FINITE, 2 × GRADIENT)"
    shown = []
    jax.jit(lambda code: (shown.append(repr(Outcome(code))), code)[1])(jnp.array(3))
    assert "code" in shown[0]
