"""Single-bit flips in the files of a run and in IDX files: a reader must refuse the file or return the saved values.

The pixels of a plain IDX file are exempt, because the format has no checksum.
"""

import contextlib
import io
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import Job, command, finish
from benchmarks.campaign.play import Try, isolated

_EPOCHS = 6
_TRAIN = ("train", f"--epochs={_EPOCHS}", "--checkpoint-every=1", "--no-progress", "--sizes", "64", "10", "10")
# A run keeps its last three checkpoints. A continued run that repeats more than three epochs used
# no checkpoint.
_REPEATED = 3

# A function of a file and its damaged copy. It returns the kind of the result, and True if the attack succeeded.
Judge = Callable[[Path, Path], tuple[str, bool]]


def attacks(options: Options) -> Iterator[Attack]:
    """Flip `count` bits in each of seven places, each in its own attack, and yield the attacks."""
    folder = options.work / "flips"
    ending = finish(Job(command(*_TRAIN, "--run-dir", "run"), folder))
    if ending.trouble or ending.status != 0:
        yield Attack("reference", "no reference", True, ending.err[-300:])
        return
    finish(Job(lambda: _write_idx(folder), folder))
    rng = random.Random(options.seed)
    run = folder / "run"
    newest = run / "checkpoints" / str(_EPOCHS)
    saved = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]
    # Half of the flips in a checkpoint choose large files more often, in proportion to the size. The other half choose
    # each file equally often, so that small files are hit too.
    sizes = [path.stat().st_size for path in saved]
    tries = []
    for number in range(options.count):
        for target, path, judge in (
            ("checkpoint", rng.choice(saved) if number % 2 else rng.choices(saved, sizes)[0], _resumed),
            ("metrics.jsonl", run / "metrics.jsonl", _resumed),
            ("network.safetensors", run / "network.safetensors", _loaded),
            ("config.json", run / "config.json", _opened),
            ("gzipped IDX", folder / "images.gz", _read),
            ("plain IDX, header", folder / "images", _read),
            ("plain IDX, values", folder / "images", _read_without_checksum),
        ):
            bits = 8 * path.stat().st_size
            low, high = {"plain IDX, header": (0, 128), "plain IDX, values": (128, bits)}.get(target, (0, bits))
            bit = rng.randrange(low, high)
            about = f"bit {bit % 8} of byte {bit // 8} of {path.relative_to(folder)}"
            tries.append(Try(target, about, _attack(target, about, path, bit, folder, judge)))
    yield from isolated(tries, folder / "tries", options)


def _attack(target: str, about: str, path: Path, bit: int, folder: Path, judge: Judge) -> Callable[[], Attack]:
    """Return the attack that flips one bit in a copy of the run or the file, and calls the judge."""

    def attack() -> Attack:
        from jaxgd.errors import JaxgdError

        shutil.rmtree(copy := Path("copy").absolute(), ignore_errors=True)
        if judge in (_resumed, _opened):
            shutil.copytree(folder / "run", copy / "run")
        else:
            (copy / path.relative_to(folder)).parent.mkdir(parents=True)
            shutil.copy(path, copy / path.relative_to(folder))
        damaged = copy / path.relative_to(folder)
        content = bytearray(damaged.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(content)
        try:
            kind, succeeded = judge(path, damaged)
            return Attack(target, kind, succeeded, about)
        except JaxgdError:
            return Attack(target, "refused", False, about)
        except Exception as error:
            return Attack(target, "raw exception", True, f"{about}: {type(error).__name__}: {error}")

    return attack


def _resumed(path: Path, damaged: Path) -> tuple[str, bool]:
    """Continue the damaged run. Its network and metrics must equal those of the undamaged run."""
    from jaxgd.cli import main

    (whole,) = (parent for parent in path.parents if parent.name == "run")
    (run,) = (parent for parent in damaged.parents if parent.name == "run")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["train", "--resume", str(run), "--checkpoint-every=1", "--no-progress"])
    if status != 0:
        return "refused", False
    if any(
        (run / name).read_bytes() != (whole / name).read_bytes() for name in ("network.safetensors", "metrics.jsonl")
    ):
        return "accepted, other values", True
    # The command prints one line for each epoch that it trains again.
    repeated = len(out.getvalue().splitlines())
    if repeated > _REPEATED:
        return f"accepted, {repeated} epochs lost", True
    return ("refused, an earlier checkpoint used" if repeated else "accepted, same values"), False


def _loaded(path: Path, damaged: Path) -> tuple[str, bool]:
    from jaxgd import load_network

    return _compared([list(layer) for layer in load_network(path)], [list(layer) for layer in load_network(damaged)])


def _opened(path: Path, damaged: Path) -> tuple[str, bool]:
    from jaxgd.run_folder import RunFolder

    return _compared(RunFolder.open(path.parent).config, RunFolder.open(damaged.parent).config)


def _read(path: Path, damaged: Path) -> tuple[str, bool]:
    from jaxgd.data.idx import read_idx

    return _compared(read_idx(path), read_idx(damaged))


def _read_without_checksum(path: Path, damaged: Path) -> tuple[str, bool]:
    kind, other = _read(path, damaged)
    return f"{kind} (the format has no checksum)" if other else kind, False


def _compared(whole: object, other: object) -> tuple[str, bool]:
    """Return the kind of an accepted file, and True if any bit of its values differs from the saved values."""
    import jax

    def bits(tree: object) -> object:
        return jax.tree.map(lambda x: (str(x.dtype), x.shape, x.tobytes()) if hasattr(x, "dtype") else repr(x), tree)

    return ("accepted, same values", False) if bits(whole) == bits(other) else ("accepted, other values", True)


def _write_idx(folder: Path) -> int:
    """Write fifty images, with about a third of the pixels above 0, as a plain and as a gzipped IDX file."""
    import numpy as np

    from jaxgd.data.idx import write_idx

    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (50, 8, 8)) * (rng.random((50, 8, 8)) < 1 / 3)
    for name in ("images", "images.gz"):
        write_idx(folder / name, images.astype(np.uint8))
    return 0
