"""A run folder refuses a damaged configuration, detects its own deletion, and removes files of killed processes."""

import json
import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import init_network, save_network
from jaxgd.checkpoint import Checkpoints
from jaxgd.errors import CheckpointError, WriteError
from jaxgd.history import NUMBERS, History
from jaxgd.run_folder import RunFolder

CONFIG = {
    "data": "digits",
    "data_dir": None,
    "data_sha256": "88ca0577496dffb9ef707535c639825e2da093fca8f1ad73984f3a0d76d7a528",
    "frame": {
        **{"height": 2, "width": 3, "box_height": 2, "box_width": 2, "centering": "box"},
        **{"center_row": 0.5, "center_column": 1.0, "peak": 255, "slack": 1.0},
    },
    "sizes": [6, 2],
    "eta": 3.0,
    "batch_size": 10,
    "seed": 0,
    "kernel": "auto",
    "gradient_norm": True,
    "budget": {"chunk": 2**23, "kept": 0},
    "scheme": "scaled",
    "epochs": 3,
    "made_with": {"jaxgd": "0.2.0", "float": "float32"},
}
ENTRY = History(**dict.fromkeys(NUMBERS, np.float32(0.25)))
NETWORK = tuple(init_network(jax.random.key(0), (6, 2)))


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", CONFIG)


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_written_configuration_is_read_unchanged(folder):
    assert RunFolder.open(folder.path).config == CONFIG
    folder.lengthen(7)
    folder.relocate("/moved/data", None)
    assert folder.config == CONFIG | {"epochs": 7, "data": "/moved/data"}
    assert RunFolder.open(folder.path).config == folder.config
    assert names(folder.path) == ["config.json"]
    assert names(folder.path.parent) == ["run"]


def old(path, config):
    """Write a configuration as jaxgd 0.2.0 did, without a checksum."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"format": "jaxgd.run/1", **config}))


@pytest.mark.parametrize("missing", [(), ("gradient_norm", "budget")], ids=["all entries", "two entries missing"])
def test_a_folder_of_an_earlier_version_opens(tmp_path, missing):
    config = {name: value for name, value in CONFIG.items() if name not in missing}
    old(tmp_path / "run", config)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.config == config
    folder.lengthen(4)
    assert RunFolder.open(tmp_path / "run").config["epochs"] == 4


def test_no_flipped_bit_changes_a_configuration(folder):
    """After a bit is flipped, the configuration is unchanged, or an error names config.json."""
    file = folder.path / "config.json"
    whole, rng, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(200):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            assert RunFolder.open(folder.path).config == CONFIG
        except CheckpointError as error:
            assert "config.json is" in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 190


DELETED = object()
WRONG = {
    "data": ("", 7, None, "\0", "\ud800"),
    "data_dir": ("", 7, "\0"),
    "data_sha256": ("", "8" * 63, "G" * 64, None),
    "frame": ({}, [], None, "x"),
    "frame.height": ("2", 0, -1, 2.0, True, 3, 10**9, 2**70, DELETED),
    "frame.box_width": (0, 4, None),
    "frame.center_row": (None, -7.0, 1e99, "0"),
    "frame.centering": ("x", [], None),
    "frame.peak": (0, 256, 255.0),
    "frame.slack": (0.0, -1.0, None),
    "frame.zzz": (1,),
    "sizes": ([], [6], ["a", 2], [6, 0], [6, 2.0], [6, True], [6, 2**40, 2], [6, 2**31, 2], "62", {}),
    "eta": (0.0, -1.0, 10**400, "3", None, True, []),
    "batch_size": (0, -1, "x", None, 1.5, True),
    "epochs": (0, -1, True, 1.0, 2**70),
    "seed": (-1, 2**32, 2**70, 0.0),
    "kernel": (7, "x", [], None, DELETED),
    "gradient_norm": (0, "true", None, []),
    "labels_from": (-1, 256, 1.0, True, None),
    "transpose": (0, "true", None, []),
    "budget": (1, None, []),
    "budget.chunk": (0, 1.5, True, "1", 2**63, DELETED),
    "budget.kept": (-1, 1.5, None, DELETED),
    "budget.zzz": (1,),
    "scheme": ("x", [], None),
    "made_with": ({}, {"float": 32}, {"float": "float16"}, {"float": "float32", "jax": 1}, [], None),
    "zzz": (1,),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_names_the_entry_with_a_wrong_value(tmp_path, name):
    *outer, inner = name.split(".")
    for value in WRONG[name]:
        config = json.loads(json.dumps(CONFIG))
        place = config[outer[0]] if outer else config
        place[inner] = value
        if value is DELETED:
            del place[inner]
        old(tmp_path / "run", config)
        with pytest.raises(CheckpointError, match=r"config\.json is damaged: ") as caught:
            RunFolder.open(tmp_path / "run")
        assert (outer[0] if outer else name) in str(caught.value), value
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in CONFIG if name not in ("gradient_norm", "budget")])
def test_a_missing_entry_is_named(tmp_path, name):
    old(tmp_path / "run", {key: value for key, value in CONFIG.items() if key != name})
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        RunFolder.open(tmp_path / "run")


CONTENT = {
    "nested 100,000 deep": (b"[" * 100_000, "is damaged: it is nested"),
    "utf-16": ('{"format": "jaxgd.run/1"}'.encode("utf-16"), "is damaged: "),
    "huge number": (b'{"format": "jaxgd.run/1", "seed": ' + b"9" * 5000 + b"}", "is damaged: "),
    "repeated name": (b'{"format": "x", "format": "jaxgd.run/1"}', "is damaged: it repeats"),
    "no checksum": (json.dumps({"format": "jaxgd.run/2", **CONFIG}).encode(), "is damaged: its values differ"),
    "later version": (json.dumps({"format": "jaxgd.run/3", **CONFIG}).encode(), "is not the configuration of a run"),
    "JSON list": (b"[]", "is not the configuration"),
    "2 MiB of spaces": (b" " * 2**21, "cannot be read: it has"),
}


@pytest.mark.parametrize("case", CONTENT)
def test_a_config_file_with_other_content_is_refused(folder, case):
    content, match = CONTENT[case]
    (folder.path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"config\.json {match}"):
        RunFolder.open(folder.path)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_is_refused_without_waiting(folder):
    (folder.path / "config.json").unlink()
    os.mkfifo(folder.path / "config.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        RunFolder.open(folder.path)


def test_a_wrong_configuration_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="epochs must be"):
        RunFolder.create(tmp_path / "run", CONFIG | {"epochs": 0})
    assert names(tmp_path) == []


def test_the_network_of_another_run_is_refused(folder):
    folder.save_network(NETWORK)
    assert folder.load_network()[0].w.shape == (2, 6)
    save_network(folder.path / "network.safetensors", init_network(jax.random.key(0), (5, 2)))
    with pytest.raises(CheckpointError, match=r"sizes \[6, 2\] of its run, got \[5, 2\]"):
        folder.load_network()


def replace(path):
    """Replace the folder with a copy."""
    path.rename(path.with_name("moved"))
    shutil.copytree(path.with_name("moved"), path)


LOSSES = {
    "deleted": shutil.rmtree,
    "moved": lambda path: path.rename(path.with_name("moved")),
    "replaced": replace,
    "config.json deleted": lambda path: (path / "config.json").unlink(),
}
WRITES = {
    "metrics": lambda folder: folder.append_metrics(ENTRY),
    "all metrics": lambda folder: folder.write_metrics([ENTRY]),
    "network": lambda folder: folder.save_network(NETWORK),
    "more epochs": lambda folder: folder.lengthen(9),
    "no write": lambda folder: None,
}


LOST = "run was deleted, moved or replaced during the run"


def lose_and_write(folder, lose, write):
    with folder.locked():
        folder.write_metrics([ENTRY])
        lose(folder.path)
        write(folder)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("write", WRITES)
def test_a_deleted_moved_or_replaced_folder_is_reported(folder, loss, write):
    pytest.importorskip("fcntl")
    with pytest.raises(WriteError, match=LOST):
        lose_and_write(folder, LOSSES[loss], WRITES[write])


def lose_between_checkpoints(folder):
    with folder.locked(), folder.checkpoints() as checkpoints:
        checkpoints.save(1, {"v": jnp.zeros(1)})
        checkpoints.wait()
        shutil.rmtree(folder.path)
        checkpoints.save(2, {"v": jnp.zeros(1)})


def test_checkpoints_stay_valid_if_epochs_and_the_data_path_change(tmp_path):
    """Checkpoints of earlier versions also hold the path of the data."""
    earlier = {name: value for name, value in CONFIG.items() if name != "epochs"}
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    with Checkpoints(folder.path / "checkpoints", earlier) as checkpoints:
        checkpoints.save(1, {"v": jnp.ones(1)})
    folder.lengthen(9)
    folder.relocate("/moved/data", None)
    with folder.checkpoints() as checkpoints:
        assert checkpoints.restore({"v": jnp.zeros(1)}).epoch == 1


def test_no_checkpoint_is_written_after_the_folder_is_deleted(folder):
    pytest.importorskip("fcntl")
    with pytest.raises(WriteError, match=LOST):
        lose_between_checkpoints(folder)
    assert not folder.path.exists()


def test_only_temporary_files_of_a_killed_run_are_removed(folder):
    pytest.importorskip("fcntl")
    path = folder.path
    kept = ["config.json", "notes.tmp", ".notes.01234567.tmp", ".config.json.tmp", "checkpoints"]
    for name in (
        ".network.safetensors.0123abcd.tmp",
        ".config.json.0123abcd.tmp",
        ".metrics.jsonl.0123abcd.tmp",
        *kept[1:4],
    ):
        (path / name).write_text("half")
    (path / "checkpoints" / "2").mkdir(parents=True)
    (path / "checkpoints" / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (path.parent / ".run.creating").mkdir()
    RunFolder.open(path)  # opening removes nothing
    assert len(names(path)) == len(kept) + 3
    with folder.locked():
        assert names(path) == sorted(kept)
        assert names(path / "checkpoints") == ["2"]
        assert names(path.parent) == ["run"]


def test_create_reuses_the_temporary_folder_of_a_killed_call(tmp_path):
    staging = tmp_path / ".run.creating"
    staging.mkdir()
    (staging / ".config.json.0123abcd.tmp").write_text("{")
    (staging / "config.json").write_text("{")
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    assert names(tmp_path) == ["run"]
    assert names(folder.path) == ["config.json"]
    assert RunFolder.open(folder.path).config == CONFIG


def test_create_does_not_touch_the_temporary_folder_of_a_running_process(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    staging = tmp_path / ".run.creating"
    staging.mkdir()
    handle = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is creating"):
            RunFolder.create(tmp_path / "run", CONFIG)
    finally:
        os.close(handle)
    assert names(tmp_path) == [".run.creating"]
