"""A network is loaded from its file bit for bit, or a message names the refused file."""

import pickle
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from support import assert_leaves_close, example

from jaxgd import load_network, network_file, save_network
from jaxgd.errors import CheckpointError, DtypeError, RangeError, ShapeError, WriteError
from jaxgd.network import Layer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_saved_network_loads_bit_for_bit(tmp_path, dtype, x64):
    network = example((4, 3, 2), seed=0, dtype=jnp.dtype(dtype))[0]
    save_network(tmp_path / "n.safetensors", network)
    assert_leaves_close(load_network(tmp_path / "n.safetensors"), network, rtol=0)


def test_a_file_keeps_the_activations(tmp_path):
    """Files of sigmoid networks still have format 2. Other networks have format 3, which old versions refuse."""
    path, network = tmp_path / "n.safetensors", example((4, 3, 2), seed=0)[0]
    for names, version in ((("sigmoid", "sigmoid"), b"jaxgd.network/2"), (("tanh", "softmax"), b"jaxgd.network/3")):
        given = tuple(layer._replace(activation=name) for layer, name in zip(network, names, strict=True))
        save_network(path, given)
        assert version in path.read_bytes()[:200]
        assert_leaves_close(load_network(path), given, rtol=0)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"tanh", b"relu"))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_network(path)
    path.write_bytes(content)
    sha = network_file.read_tensors(path).sha
    unknown = network_file.checksum("jaxgd.network/3", sha, {"activations": '["x"]'})
    path.write_bytes(safetensors.numpy.save(safetensors.numpy.load(content), metadata=unknown))
    with pytest.raises(CheckpointError, match=r"must have 2 of the activations sigmoid, .* got \[\"x\"\]"):
        load_network(path)


def test_other_programs_can_read_a_saved_network(tmp_path):
    network = example((4, 3, 2), seed=0)[0]
    save_network(tmp_path / "n.safetensors", network)
    tensors = safetensors.numpy.load_file(tmp_path / "n.safetensors")
    assert sorted(tensors) == ["0.b", "0.w", "1.b", "1.w"]
    np.testing.assert_array_equal(tensors["0.w"], network[0].w)


def test_float64_is_refused_while_x64_is_off(tmp_path):
    with jax.enable_x64(True):
        save_network(tmp_path / "n.safetensors", example((2, 1), seed=0)[0])
    with pytest.raises(CheckpointError, match="jax_enable_x64"):
        load_network(tmp_path / "n.safetensors")


class Trap:
    """An object that raises when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def write(tensors):
    return safetensors.numpy.save({name: np.asarray(x) for name, x in tensors.items()})


ONE = {"0.w": np.ones((2, 3), np.float32), "0.b": np.ones(2, np.float32)}


def named(format, **changes):
    return safetensors.numpy.save(ONE | changes, metadata={"format": format})


EMPTY = {"0.w": np.ones((0, 3), np.float32), "0.b": np.ones(0, np.float32)}
BAD_FILES = {
    "empty": (b"", "damaged"),
    "pickle": (pickle.dumps(Trap()), "damaged"),
    "cut short": (write(ONE)[:-5], "damaged"),
    "another tensor name": (write({"weight": np.ones((2, 3))}), "must hold the tensors"),
    "layer 0 missing": (write({"1.w": ONE["0.w"], "1.b": ONE["0.b"]}), "must hold the tensors"),
    "integers": (write({"0.w": np.ones((2, 3), np.int32), "0.b": np.ones(2, np.int32)}), "floating point"),
    "w with 2 rows, b with 3 elements": (write(ONE | {"0.b": np.ones(3, np.float32)}), "must have w"),
    "no neuron": (write(EMPTY), "at least one neuron"),
    "no input": (write(ONE | {"0.w": np.ones((2, 0), np.float32)}), "at least one neuron and one input"),
    "NaN": (write(ONE | {"0.b": np.array([1, np.nan], np.float32)}), "0.b must be finite"),
    "infinite": (write(ONE | {"0.w": np.full((2, 3), np.inf, np.float16)}), "0.w must be finite"),
    "no checksum": (named("jaxgd.network/2"), "is damaged"),
    "wrong checksum": (named(f"jaxgd.network/2 sha256:{'0' * 64}"), "is damaged"),
    "damaged name": (named(f"jaxge.network/2 sha256:{'0' * 64}"), "is damaged"),
    "damaged version": (named("jaxgd.network/3"), "is damaged"),
    "damaged activations": (
        safetensors.numpy.save(ONE, metadata={"format": f"jaxgd.network/3 sha256:{'0' * 64}", "activations": "[1"}),
        "is damaged",
    ),
    "damaged word sha256": (named(f"jaxgd.network/2 sha25v:{'0' * 64}"), "is damaged"),
}


@pytest.mark.parametrize(("content", "match"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_without_a_valid_network_are_refused(tmp_path, content, match):
    path = tmp_path / "n.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_network(path)
    assert "n.safetensors" in str(caught.value)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_no_flipped_bit_changes_a_network(tmp_path, activation):
    network, path, rng = example((4, 3, 2), seed=0)[0], tmp_path / "n.safetensors", random.Random(0)
    network = tuple(layer._replace(activation=activation) for layer in network)
    save_network(path, network)
    whole = path.read_bytes()
    for _ in range(200):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            load_network(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "jaxgd.network/1"}], ids=str)
def test_a_file_without_a_checksum_loads_with_a_warning(tmp_path, metadata):
    path = tmp_path / "n.safetensors"
    path.write_bytes(safetensors.numpy.save(ONE, metadata=metadata))
    with pytest.warns(UserWarning, match=r"n\.safetensors has no checksum.*could not be verified") as caught:
        (layer,) = load_network(path)
    np.testing.assert_array_equal(layer.w, ONE["0.w"])
    assert "\n" not in str(caught[0].message)


def test_weights_that_are_not_finite_load_on_request(tmp_path):
    network = (Layer(jnp.array([[1.0, jnp.nan]]), jnp.array([-jnp.inf])),)
    save_network(tmp_path / "n.safetensors", network)
    with pytest.raises(CheckpointError, match="allow_non_finite=True"):
        load_network(tmp_path / "n.safetensors")
    loaded = load_network(tmp_path / "n.safetensors", allow_non_finite=True)
    np.testing.assert_array_equal(loaded[0].w, network[0].w)


ROW = np.ones((1, 2), np.float32)
NOT_SAVED = {
    "None": (None, DtypeError),
    "array": (ROW, DtypeError),
    "pair instead of a layer": (((ROW, ROW[0, :1]),), DtypeError),
    "integers": ((Layer(np.ones((1, 2), int), np.ones(1)),), DtypeError),
    "lists as w and b": ((Layer([[1.0, 2.0]], [1.0]),), DtypeError),
    "complex": ((Layer(ROW.astype(complex), ROW[0, :1]),), DtypeError),
    "8-bit floats": ((Layer(ROW.astype(jnp.float8_e5m2), ROW[0, :1]),), DtypeError),
    "layer outside a tuple": (Layer(ROW, ROW[0, :1]), ShapeError),
    "no layer": ((), ShapeError),
    "no neuron": ((Layer(ROW[:0], ROW[0, :0]),), ShapeError),
    "no input": ((Layer(ROW[:, :0], ROW[0, :1]),), ShapeError),
    "w with one axis": ((Layer(ROW[0], ROW[0, :1]),), ShapeError),
    "function as activation": ((Layer(ROW, ROW[0, :1], jnp.sin),), DtypeError),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("case", NOT_SAVED)
def test_save_network_refuses_invalid_networks_and_other_objects(tmp_path, case):
    network, error = NOT_SAVED[case]
    with pytest.raises(error):
        save_network(tmp_path / "n.safetensors", network)
    assert not list(tmp_path.iterdir())


@pytest.mark.bad_input
@pytest.mark.parametrize(("path", "error"), [(3, DtypeError), (None, DtypeError), ("\0.safetensors", RangeError)])
def test_an_invalid_path_is_refused(path, error):
    with pytest.raises(error, match="save_network: path must"):
        save_network(path, (Layer(ROW, ROW[0, :1]),))
    with pytest.raises(error, match="load_network: path must"):
        load_network(path)


def test_a_file_above_the_free_memory_is_refused(tmp_path, monkeypatch):
    save_network(tmp_path / "n.safetensors", (Layer(np.ones((200, 300), np.float32), np.ones(200, np.float32)),))
    monkeypatch.setattr(network_file, "free_memory", lambda: 10**5)
    with pytest.raises(CheckpointError, match=r"it needs 0\.000241 GB of memory, but 0\.0001 GB are free"):
        load_network(tmp_path / "n.safetensors")
    monkeypatch.setattr(network_file, "free_memory", lambda: None)
    load_network(tmp_path / "n.safetensors")


def test_a_file_has_the_bytes_that_safetensors_writes(tmp_path):
    """The format sorts the tensors by dtype, then by name."""
    rng = np.random.default_rng(0)
    tensors = {
        f'{len(network_file._DTYPES) - i}\n"é': rng.standard_normal((i, 3)).astype(dtype)
        for i, dtype in enumerate(network_file._DTYPES.values())
    }
    network_file.write_tensors(tmp_path / "t", "kind", tensors)
    arrays, metadata, sha, _ = network_file.read_tensors(tmp_path / "t")
    assert metadata == network_file.checksum("kind", sha)
    assert (tmp_path / "t").read_bytes() == safetensors.numpy.save(tensors, metadata=metadata)
    for name, x in tensors.items():
        assert arrays[name].dtype == x.dtype
        assert np.asarray(arrays[name]).tobytes() == x.tobytes()


HEADERS = {
    "header too long": (b"\xff" * 8, "header must have"),
    "no JSON": (b"{]", "Expecting"),
    "no object": (b"[]", "must be an object"),
    "nested": (b"[" * 100_000, "nested"),
    "number in the metadata": (b'{"__metadata__":{"a":1}}', "must be an object"),
    "repeated name": (b'{"a":1,"a":1}', "repeats a name"),
    "no entry": (b'{"a":1}', "known dtype"),
    "unknown dtype": (b'{"a":{"dtype":"F8","shape":[],"data_offsets":[0,1]}}', "known dtype"),
    "negative size": (b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[1,0]}}', "fit its shape"),
    "fractional size": (b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', "fit its shape"),
    "wrong size": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1]}}', "fit its shape"),
    "huge shape": (b'{"a":{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,0]}}', "fit its shape"),
    "a gap": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', "must fill the file"),
    "file too short": (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', "must fill the file"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_error_describes_a_damaged_header(tmp_path, name):
    header, words = HEADERS[name]
    content = header if name == "header too long" else len(header).to_bytes(8, "little") + header
    (tmp_path / "n.safetensors").write_bytes(content + b"\0\0")
    with pytest.raises(CheckpointError, match=words):
        load_network(tmp_path / "n.safetensors")


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        load_network(tmp_path / "n.safetensors")


def test_a_failed_save_leaves_no_file(tmp_path):
    network = example((4, 3, 2), seed=0)[0]
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        save_network(tmp_path / "n.pkl", network)
    with pytest.raises(WriteError, match="No such file"):
        save_network(tmp_path / "absent" / "n.safetensors", network)
    with pytest.raises(ShapeError):
        save_network(tmp_path / "n.safetensors", (network[1], network[0]))
    assert list(tmp_path.iterdir()) == []
