"""MNIST if it can be read, otherwise generated images with MNIST's sparsity."""

import functools
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZES = (784, 30, 10)
ETA = 3.0
BATCH = 10
# The fraction of MNIST's pixels that are not zero.
SHARE = 0.19


class Images(NamedTuple):
    """Images as bytes, and their labels.

    Attributes:
        x: Pixels, (n, 784).
        y: Labels, (n,).
        genuine: True if the images are MNIST's.
        why: The reason why MNIST was not read; empty if it was read or not tried.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int32]
    genuine: bool
    why: str = ""

    @property
    def details(self) -> dict[str, str]:
        """The origin of the images, for the details of a row."""
        if self.genuine:
            return {"images": "MNIST"}
        because = f", because {self.why}" if self.why else ""
        return {"images": f"generated, {np.mean(self.x > 0):.0%} of the pixels not zero{because}"}


def training(n: int) -> Images:
    """Return the first n training images."""
    images = _all()[0]
    return images._replace(x=images.x[:n], y=images.y[:n])


def test() -> Images:
    """Return the test images."""
    return _all()[1]


@functools.cache
def _all() -> tuple[Images, Images]:
    """Return 60,000 training images and 10,000 test images."""
    from jaxgd.data import load_dataset
    from jaxgd.data.named import default_data_dir, find_files
    from jaxgd.errors import JaxgdError

    try:
        if find_files("mnist") is None:
            return _stand_ins(f"{default_data_dir()} has no files of MNIST with the right sizes")
        mnist = load_dataset("mnist")
    except JaxgdError as error:
        return _stand_ins(" ".join(str(error).split()))
    x = np.concatenate([mnist.train.images, mnist.validation.images])
    y = np.concatenate([mnist.train.labels, mnist.validation.labels])
    return _flat(x, y), _flat(mnist.test.images, mnist.test.labels)


def _stand_ins(why: str) -> tuple[Images, Images]:
    return generated(60_000, 0)._replace(why=why), generated(10_000, 1)._replace(why=why)


def _flat(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> Images:
    return Images(np.ascontiguousarray(x.reshape(len(x), -1)), y.astype(np.int32), True)


def generated(n: int, seed: int) -> Images:
    """Return n images with the sparsity of MNIST: bright strokes inside a dark border, with one shape per label."""
    shapes = np.random.default_rng(0)
    rng = np.random.default_rng(seed)
    rows = np.arange(28)
    bases = []
    for _ in range(10):
        # Each label has one stroke, which is a chain of blots.
        points = 14 + np.cumsum(shapes.normal(scale=2.2, size=(14, 2)), axis=0)
        points = 14 + (points - points.mean(0)) * 7.4 / np.abs(points - points.mean(0)).max(0)
        for shift in rng.integers(-2, 3, size=(40, 2)):
            near = [np.exp(-((rows - p) ** 2) / 4.5) for p in (points + shift).T.reshape(2, -1, 1)]
            ink = np.max(near[0][:, :, None] * near[1][:, None, :], axis=0)
            level = np.quantile(ink, 1 - SHARE)
            bases.append(np.where(ink > level, 60 + 195 * (ink - level) / (1 - level), 0))
    y = rng.integers(0, 10, n).astype(np.int32)
    x = np.asarray(bases, np.float32).reshape(-1, 784)[40 * y + rng.integers(0, 40, n)]
    x *= rng.uniform(0.7, 1.0, (n, 1)).astype(np.float32)
    return Images(x.astype(np.uint8), y, False)


def weights(networks: int, sizes: tuple[int, ...] = SIZES) -> list[NDArray[np.float32]]:
    """Return w and b of each layer, with a leading axis for the networks. Network i has the seed i.

    w is drawn from N(0, 1/fan-in) and b from N(0, 1), as in `init_network`.
    """
    generators = [np.random.default_rng(i) for i in range(networks)]

    def draw(*shape: int) -> NDArray[np.float32]:
        return np.stack([rng.standard_normal(shape, np.float32) for rng in generators])

    arrays = []
    for inputs, outputs in itertools.pairwise(sizes):
        arrays += [draw(outputs, inputs) / np.float32(inputs**0.5), draw(outputs)]
    return arrays


def orders(networks: int, n: int, seed: int = 0) -> NDArray[np.int32]:
    """Return a random order of n examples for each network."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n).astype(np.int32) for _ in range(networks)])
