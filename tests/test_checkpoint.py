"""Saved values are restored bit for bit, or a message names the refused checkpoint."""

import hashlib
import json
import logging
import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import example

from jaxgd import checkpoint
from jaxgd.checkpoint import Checkpoints
from jaxgd.errors import CheckpointError, WriteError
from jaxgd.files import seal

CONFIG = {"eta": 3.0, "sizes": [5, 4, 3]}


@pytest.fixture(scope="module")
def tree():
    network = example((5, 4, 3), seed=0, dtype=jnp.float32)[0]
    return {
        "network": network,
        "optimizer": optax.adam(0.1).init(network),
        "half": jnp.asarray(np.ones(3, jnp.bfloat16)),
        "key": jax.random.key(7),
        "old key": jax.random.PRNGKey(7),
        "count": jnp.array(3),
        "empty": jnp.zeros((0, 2)),
        "nothing": None,
        "nan": jnp.array(jnp.nan),
    }


def zeros(x):
    return jnp.asarray(np.zeros(x.shape, x.dtype))


def like(tree):
    """Return a tree to restore into: typed keys unchanged, and zeros in place of the other leaves."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else zeros(x), tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def folder(tmp_path, tree, request, monkeypatch):
    """A folder with checkpoints of epochs 1, 2 and 3. A leaf above `request.param` bytes has an array of its own."""
    monkeypatch.setattr(checkpoint, "_SMALL", getattr(request, "param", checkpoint._SMALL))
    with Checkpoints(tmp_path / "checkpoints", CONFIG) as checkpoints:
        for epoch in (1, 2, 3):
            checkpoints.save(epoch, tree | {"count": jnp.array(epoch)})
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("folder", [20, 2**20], indirect=True)
def test_restored_values_equal_the_saved_ones(folder, tree):
    with Checkpoints(folder, CONFIG) as checkpoints:
        restored = checkpoints.restore(like(tree))
    assert restored.epoch == 3
    assert restored.refused == ()
    assert_same(restored.tree, tree)


def test_only_the_newest_few_are_kept(tmp_path, tree):
    with Checkpoints(tmp_path, CONFIG, keep=2) as checkpoints:
        for epoch in range(5):
            checkpoints.save(epoch, tree)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


def test_restore_from_a_new_folder_returns_none(tmp_path, tree):
    with Checkpoints(tmp_path / "new", CONFIG) as checkpoints:
        assert checkpoints.restore(tree) is None


def files_of(folder, epoch):
    return sorted(path for path in (folder / str(epoch)).rglob("*") if path.is_file() and path.stat().st_size)


def flip(path, position=0.5):
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("folder", [60, 2**20], indirect=True)
def test_damage_never_changes_the_restored_values(folder, tree):
    """Flip a bit of a file, halve the file or remove it. Require the saved values of epoch 3 or of epoch 2."""
    refused = 0
    for path in files_of(folder, 3):
        whole = path.read_bytes()
        for damage in (flip, lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), lambda p: p.unlink()):
            damage(path)
            with Checkpoints(folder, CONFIG) as checkpoints:
                restored = checkpoints.restore(like(tree))
            if restored.epoch == 2:
                refused += 1
                assert len(restored.refused) == 1
                aside = folder.with_name("checkpoints-refused") / "3"
                if aside.exists():
                    aside.rename(folder / "3")
            else:
                assert_same(restored.tree, tree)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(whole)
    assert refused >= 5


def test_a_description_that_differs_from_its_checksum_is_refused(folder, tree):
    """Orbax can still read the files, so only jaxgd's own checksum can detect the difference."""
    about = next(path for path in files_of(folder, 3) if path.parent.name == "about" and path.name == "metadata")
    content = json.loads(about.read_text())
    about.write_text(json.dumps(content | {"sha256": content["sha256"][::-1]}))
    with Checkpoints(folder, CONFIG) as checkpoints:
        restored = checkpoints.restore(like(tree))
    assert restored.epoch == 2
    assert "its values differ from the saved ones" in restored.refused[0]


def test_a_checkpoint_that_orbax_does_not_list_is_restored(folder, tree, monkeypatch):
    with Checkpoints(folder, CONFIG) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "all_steps", list)
        assert checkpoints.restore(like(tree)).epoch == 3


@pytest.mark.slow
@pytest.mark.parametrize("folder", [60], indirect=True)
def test_no_random_damage_is_restored(folder, tree, monkeypatch):
    """A checkpoint in several pieces, damaged at random, is refused or gives the saved values."""
    monkeypatch.setattr(checkpoint, "PIECE", 64)
    shutil.rmtree(folder / "3")
    with Checkpoints(folder, CONFIG) as checkpoints:
        checkpoints.save(3, tree)
    rng, kinds = random.Random(0), set()
    for _ in range(150):
        path = rng.choice(files_of(folder, 3))
        whole = path.read_bytes()
        place = rng.randrange(len(whole))
        changes = (bytes([whole[place] ^ 1 << rng.randrange(8)]), b"", bytes(min(20, len(whole) - place)))
        change = rng.choice(changes)
        path.write_bytes(whole[:place] + change + whole[place + len(change) :] if change else whole[:place])
        with Checkpoints(folder, CONFIG) as checkpoints:
            restored = checkpoints.restore(like(tree))
        kinds.add(restored.epoch)
        if restored.epoch == 3:
            assert_same(restored.tree, tree)
        else:
            folder.with_name("checkpoints-refused").joinpath("3").rename(folder / "3")
        path.write_bytes(whole)
    assert kinds == {2, 3}


def test_a_tree_with_another_path_is_refused(folder, tree):
    """If the paths of leaves in the tree were ignored, two leaves of one shape could be exchanged."""
    other = {"old keys" if name == "old key" else name: x for name, x in tree.items()}
    with Checkpoints(folder, CONFIG) as checkpoints, pytest.raises(CheckpointError, match="belongs to another run"):
        checkpoints.restore(other)


@pytest.mark.parametrize("folder", [20], indirect=True)
def test_each_large_leaf_has_a_digest_of_its_own(folder, tree):
    """The test exchanges the intact files of two leaves of one shape."""
    numbers = sorted(int(path.name) for path in (folder / "3" / "state").iterdir() if path.name.isdecimal())
    first, second = (folder / "3" / "state" / str(number) for number in (numbers[0], numbers[2]))
    assert (first / ".zarray").read_bytes() == (second / ".zarray").read_bytes()
    first.rename(aside := folder / "aside")
    second.rename(first)
    aside.rename(second)
    with Checkpoints(folder, CONFIG) as checkpoints:
        restored = checkpoints.restore(like(tree))
    assert restored.epoch == 2


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_in_a_checkpoint_is_refused(folder, tree):
    os.mkfifo(folder / "3" / "state" / "pipe")
    with Checkpoints(folder, CONFIG) as checkpoints:
        restored = checkpoints.restore(like(tree))
    assert restored.epoch == 2
    assert "not a regular" in restored.refused[0]


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path, tree, version):
    """Formats 1 and 2 join all leaves into one array. The checksum of format 1 covers only the values."""
    import orbax.checkpoint as ocp

    data = [np.asarray(checkpoint.unkeyed(leaf)) for leaf in jax.tree.leaves(tree)]
    values = b"".join(leaf.tobytes() for leaf in data)
    about = {"format": f"jaxgd.checkpoint/{version}", "config": CONFIG, "bytes": len(values)}
    about["leaves"] = [{"shape": leaf.shape, "dtype": str(leaf.dtype)} for leaf in data]
    with ocp.CheckpointManager(tmp_path) as manager:
        for epoch in (1, 2, 3):
            sha = hashlib.sha256(values if epoch < 3 else values[::-1]).hexdigest()  # a wrong checksum for epoch 3
            entry = about | {"epoch": epoch, "values" if version == 2 else "sha256": sha}
            items = {
                "about": ocp.args.JsonSave(seal(entry) if version == 2 else entry),
                "state": ocp.args.StandardSave({"values": np.frombuffer(values, np.uint8)}),
            }
            manager.save(epoch, args=ocp.args.Composite(**items))
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored = checkpoints.restore(like(tree))
    assert restored.epoch == 2
    assert_same(restored.tree, tree)


def test_a_changed_shape_in_the_description_is_refused(folder, tree):
    """A leaf without elements has no values to check, so only the description's checksum protects its shape."""
    about = next(path for path in files_of(folder, 3) if path.parent.name == "about" and path.name == "metadata")
    text = about.read_text()
    assert "[0, 2]" in text
    about.write_text(text.replace("[0, 2]", "[0, 3]"))
    with Checkpoints(folder, CONFIG) as checkpoints:
        assert checkpoints.restore(like(tree)).epoch == 2


def test_orbax_logs_nothing_while_checkpoints_are_open(folder, tree, caplog):
    (folder / "3" / "_CHECKPOINT_METADATA").write_bytes(b"damaged")
    before = list(logging.getLogger("absl").filters)
    with caplog.at_level(logging.WARNING, "absl"), Checkpoints(folder, CONFIG) as checkpoints:
        checkpoints.restore(like(tree))
        logging.getLogger("absl").warning("another library's message")
    assert [record.getMessage() for record in caplog.records if record.name == "absl"] == ["another library's message"]
    assert logging.getLogger("absl").filters == before


def test_a_full_disk_gives_the_message_of_the_system(tmp_path, tree, monkeypatch):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:

        def fail(*_, **__):
            raise ValueError("RESOURCE_EXHAUSTED: Error writing\n [os_error_code='28'] [source locations='x.cc:1']")

        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(WriteError, match=r"the checkpoint cannot be written: No space left on device\.$"):
            checkpoints.save(1, tree)


def test_restore_skips_a_damaged_checkpoint_and_save_replaces_it(folder, tree):
    largest = max(files_of(folder, 3), key=lambda path: path.stat().st_size)
    flip(largest)
    with Checkpoints(folder, CONFIG) as checkpoints:
        restored = checkpoints.restore(like(tree))
        assert restored.epoch == 2
        assert "3 is refused" in restored.refused[0]
        checkpoints.save(3, tree)
        checkpoints.wait()
        assert checkpoints.restore(like(tree)).epoch == 3


def test_an_error_counts_the_checkpoints_if_all_are_damaged(folder, tree):
    for epoch in (1, 2, 3):
        for path in files_of(folder, epoch):
            flip(path)
    with (
        Checkpoints(folder, CONFIG) as checkpoints,
        pytest.raises(CheckpointError, match=r"3 is refused: .* \(and so are 2 older ones\)\.\nDelete"),
    ):
        checkpoints.restore(like(tree))
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]


def test_a_checkpoint_of_another_run_is_refused(folder, tree):
    with (
        Checkpoints(folder, CONFIG | {"eta": 1.0}) as checkpoints,
        pytest.raises(CheckpointError, match="belongs to another run"),
    ):
        checkpoints.restore(like(tree))
    with Checkpoints(folder, CONFIG) as checkpoints, pytest.raises(CheckpointError, match="belongs to another run"):
        checkpoints.restore({"network": tree["network"]})


def test_another_programs_checkpoint_is_refused(tmp_path, tree):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.Composite(state=ocp.args.StandardSave({"x": np.ones(2)})))
    with Checkpoints(tmp_path, CONFIG) as checkpoints, pytest.raises(CheckpointError, match="1 is refused"):
        checkpoints.restore(tree)


def test_a_failed_write_raises(tmp_path, tree):
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises((WriteError, OSError)), Checkpoints(tmp_path / "file" / "checkpoints", CONFIG) as checkpoints:
        checkpoints.save(1, tree)


def test_the_configuration_is_in_the_checkpoint(folder):
    about = next(path for path in (folder / "3").rglob("metadata") if path.parent.name == "about")
    assert json.loads(about.read_text())["config"] == CONFIG
