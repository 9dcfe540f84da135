"""`assess`: the answers of a network, counted by class, and its mistakes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxgd.chunks import UNLIMITED, budget_of, outputs_in_chunks
from jaxgd.errors import DtypeError, describe, is_traced
from jaxgd.examples import Examples, require_fit
from jaxgd.mesh.processes import on_host
from jaxgd.network import Network
from jaxgd.typed import jit, tree_leaves


class Assessment(NamedTuple):
    """The answers of a network to n examples of k classes. All fields are on the host.

    An example with a NaN among its outputs has no answer. It counts as wrong, and it is in no column of the confusion
    matrix.

    Attributes:
        confusion: Confusion matrix, (k, k). Element [i, j] is the number of examples of class i that the network reads
            as class j.
        accuracy: Fraction of right answers among all examples, as in the function `accuracy`.
        class_accuracy: Fraction of right answers among the examples of each class, (k,); NaN for a class without
            examples.
        mistakes: Indices of the examples without the right answer. They are sorted by the activation of the wrong
            answer, from the largest to the smallest, and then by index. Examples without an answer come last.
        answers: Answer to each example, (n,): the index of its largest output, or of the first among equal ones. It
            is −1 for an example without an answer.
        labels: Right class of each example, (n,).
        outputs: Outputs of the network, (n, k), in its dtype.
    """

    confusion: Int[np.ndarray, "k k"]
    accuracy: float
    class_accuracy: Float[np.ndarray, " k"]
    mistakes: Int[np.ndarray, " m"]
    answers: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    outputs: Num[np.ndarray, "n k"]


def assess(
    network: Network, x: Num[Array | np.ndarray, "n ..."], labels: Num[Array | np.ndarray, "n ..."]
) -> Assessment:
    """Compare the answers of a network with the labels of examples, class by class.

    The answer to an example is the index of its largest output. Many examples are evaluated in chunks that fit a budget
    of memory, as in `train`.

    Args:
        network: The layers, first to last.
        x: Images or inputs, (n, …), bytes from 0 to 255 or floating point, as `train` takes them.
        labels: Whole-number labels from 0 to k − 1, (n,); or floating-point targets, (n, k), whose largest element
            marks the right label.

    Returns:
        The confusion matrix, the accuracy over all examples and per class, the mistakes, and the outputs.

    Raises:
        ShapeError: If there is no example, or x or the labels do not fit each other or the network.
        DataError: If a label is not from 0 to k − 1, or an input or a target is not finite.
        DtypeError: If x or the labels are not an array of numbers, or x is neither bytes nor floating point. Also if
            the network is not a tuple of layers with arrays of floats, or `jit` or `vmap` traces an argument.

    Source: Nielsen, chapter 1, `evaluate`.

    Example:
        >>> import jax.numpy as jnp; from jaxgd import Layer
        >>> network = (Layer(w=jnp.array([[4.0, 0.0], [0.0, 4.0]]), b=jnp.zeros(2)),)
        >>> result = assess(network, jnp.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.9]]), jnp.array([0, 1, 0]))
        >>> result.confusion.tolist(), result.class_accuracy.tolist(), result.mistakes.tolist()
        ([[1, 1], [0, 1]], [0.5, 1.0], [2])
    """
    examples = _fitted(network, x, labels)
    # Use one chunk for examples divided among devices, because the rows of a smaller one would lie on few devices.
    budget = budget_of(examples.x) if examples.x.is_fully_replicated else UNLIMITED
    a = _outputs(tuple(network), examples.x, budget=budget)
    outputs, y = on_host(a), on_host(examples.y)
    n, k = outputs.shape
    right = y.astype(np.int64) if y.ndim == 1 else y.argmax(-1)
    answers = np.where(np.isnan(outputs).any(-1), -1, outputs.argmax(-1))
    read = answers >= 0
    confusion = np.bincount(right[read] * k + answers[read], minlength=k * k).reshape(k, k)
    of_class, hits = np.bincount(right, minlength=k), confusion.diagonal()
    class_accuracy = np.divide(hits, of_class, out=np.full(k, np.nan), where=of_class > 0)
    wrong = np.flatnonzero(answers != right)
    confidence = np.where(read[wrong], outputs[wrong, answers[wrong]].astype(float), -np.inf)
    mistakes = wrong[np.lexsort((-confidence, ~read[wrong]))]
    return Assessment(confusion, float(hits.sum() / n), class_accuracy, mistakes, answers, right, outputs)


# Without jit, each call would compile the loop over the chunks again.
_outputs = jit(outputs_in_chunks, static_argnames="budget")


def _fitted(network: Network, x: object, labels: object) -> Examples:
    """Return the examples on the device, checked against the network."""
    for name, value in (("network", network), ("x", x), ("labels", labels)):
        for traced in filter(is_traced, tree_leaves(value)):
            raise DtypeError(
                f"assess: {name} must have known values, got a traced {describe(traced)}.\n"
                "Call it outside jit and vmap, or use jaxgd.accuracy there."
            )
    return require_fit("assess", "given", network, x, labels)
