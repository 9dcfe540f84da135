"""The assessment of a network equals a count of its answers, one example at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd.assessment import assess
from jaxgd.chunks import BUDGETS, Budget
from jaxgd.cost import accuracy
from jaxgd.data import load_dataset
from jaxgd.errors import DataError, DtypeError, ShapeError
from jaxgd.network import Layer, feedforward, first_network

# A network of one layer whose weights are the identity matrix. The outputs are σ(x), so they rank like the inputs.
REPEAT = (Layer(jnp.eye(3), jnp.zeros(3)),)


def counted(outputs, labels):
    """Return the confusion matrix, the answers and the wrong examples, by loops over the examples."""
    confusion, answers, wrong = np.zeros((outputs.shape[1],) * 2, int), [], []
    for i, (row, label) in enumerate(zip(outputs.tolist(), labels.tolist(), strict=True)):
        answer = -1 if any(a != a for a in row) else row.index(max(row))
        answers.append(answer)
        if answer >= 0:
            confusion[label, answer] += 1
        if answer != label:
            wrong.append((answer < 0, -max(row) if answer >= 0 else 0, i))
    return confusion, answers, [i for *_, i in sorted(wrong)]


def test_assess_equals_a_count_on_digits(monkeypatch):
    """The weights are random, so that every class has wrong answers. Each image is a 2-D array of bytes.

    The budget is small, so that the images are evaluated in several chunks. The other tests have one chunk.
    """
    monkeypatch.setitem(BUDGETS, "cpu", Budget(chunk=30_000, kept=0))
    network, data = first_network(0, (64, 30, 10), "gaussian")[0], load_dataset("digits").test
    result = assess(network, *data)
    x = jnp.asarray(data.images.reshape(300, -1) / 255, jnp.float32)
    np.testing.assert_allclose(result.outputs, feedforward(network, x), atol=1e-5)  # the chunks round differently
    confusion, answers, wrong = counted(result.outputs, data.labels)
    np.testing.assert_array_equal(result.confusion, confusion)
    assert result.answers.tolist() == answers
    assert result.labels.tolist() == data.labels.tolist()
    assert result.mistakes.tolist() == wrong
    assert result.accuracy == (300 - len(wrong)) / 300 == confusion.trace() / 300
    assert result.accuracy == pytest.approx(
        float(accuracy(jnp.asarray(result.outputs), jnp.asarray(data.labels))), rel=1e-6
    )
    np.testing.assert_array_equal(result.class_accuracy, [confusion[i, i] / confusion[i].sum() for i in range(10)])


def test_ties_targets_and_classes_without_examples():
    """The first of equal outputs is the answer. Among equally confident mistakes, the lower index comes first."""
    x = jnp.array([[1, 1, 0], [0, 2, 2], [0, 0, 3], [0, 0, 3], [5, 1, 1.0]])
    labels = np.array([0, 2, 0, 0, 0])
    for answers in (labels, labels.astype(np.uint8), np.eye(3, dtype=np.float32)[labels]):
        result = assess(REPEAT, x, answers)
        assert result.confusion.tolist() == [[2, 0, 2], [0, 0, 0], [0, 1, 0]]
        assert result.mistakes.tolist() == [2, 3, 1]
        np.testing.assert_array_equal(result.class_accuracy, [0.5, np.nan, 0.0])
        assert result.accuracy == 0.4


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda d: d.__name__)
def test_a_nan_output_is_a_mistake_without_an_answer(dtype):
    """NumPy's argmax treats NaN as the largest number, so argmax alone would answer 0 for every example."""
    network = (Layer(jnp.eye(3, dtype=dtype), jnp.array([jnp.nan, 0, 0], dtype)),)
    result = assess(network, jnp.ones((4, 3), dtype), np.array([0, 0, 1, 2]))
    assert (result.accuracy, result.confusion.sum()) == (0, 0)
    assert result.answers.tolist() == [-1] * 4
    assert result.mistakes.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(result.class_accuracy, 0)
    assert result.outputs.dtype == dtype


def test_mistakes_without_an_answer_come_last():
    """With an infinite weight, an input of 0 gives NaN, and the other inputs do not."""
    network = (Layer(jnp.array([[jnp.inf, 0, 0], [0, 1, 0], [0, 0, 1]]), jnp.zeros(3)),)
    x = jnp.array([[0, 0, 9], [1, 0, 0], [-1, 1, 0], [-1, 0, 3.0]])
    result = assess(network, x, np.array([2, 1, 2, 2]))
    assert (result.answers.tolist(), result.mistakes.tolist()) == ([-1, 0, 1, 2], [1, 2, 0])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("x", "labels", "error", "match"),
    [
        (np.zeros((2, 4)), np.zeros(2, int), ShapeError, "assess: the given inputs must be rows of 3"),
        (np.zeros((2, 3)), np.zeros(3, int), ShapeError, "assess: expected one label or target for each given input"),
        (np.zeros((0, 3)), np.zeros(0, int), ShapeError, "assess: expected at least one example"),
        (np.zeros((2, 3)), np.array([0, 3]), DataError, "labels run from 0 to 3, but the network has 3 outputs"),
        (np.zeros((2, 3)), np.zeros(2), ShapeError, "assess: the given labels must be whole numbers"),
        (np.full((2, 3), np.nan), np.zeros(2, int), DataError, "assess: the given inputs have NaN"),
        ("x", np.zeros(2, int), DtypeError, "assess: the given inputs must be an array of numbers, got str"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_assess_refuses_unfit_arguments(x, labels, error, match):
    with pytest.raises(error, match=match):
        assess(REPEAT, x, labels)


def test_assess_is_refused_inside_jit():
    with pytest.raises(DtypeError, match=r"assess: x must have known values, got a traced float32\[2,3\]"):
        jax.jit(lambda x: assess(REPEAT, x, np.zeros(2, int)).accuracy)(jnp.zeros((2, 3)))
