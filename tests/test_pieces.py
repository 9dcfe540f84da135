"""Arrays are assembled from pieces. Several processes save and restore them. Damage changes their digest."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import pieces
from jaxgd.pieces import assembled, boxes, digest

SCRIPT = Path(__file__).with_name("saving_job.py")
HOST = np.random.default_rng(0).standard_normal((6, 5))


def mix(x):
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
    x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


def by_hand(words):
    """Compute the digest of an array of words by the formula in the docstring of `digest`."""
    g, s_sum, t_sum = 0x9E3779B1, 0, 0
    for index in np.ndindex(*words.shape):
        p = q = 0
        for i in index:
            p, q = mix((p + g * (i + 1)) % 2**32), (g * q + i) % 2**32
        s = mix(int(words[index]) ^ p)
        s_sum, t_sum = s_sum + s, t_sum + mix((s + q) % 2**32)
    return f"{s_sum % 2**32:08x}{t_sum % 2**32:08x}"


WORDS = {
    "float32": lambda x: x.view(np.uint32),
    "float64": lambda x: x.view(np.uint32).reshape(6, 5, 2),
    "bfloat16": lambda x: x.view(np.uint16),
    "int8": lambda x: x.astype(np.uint32),
    "bool": lambda x: x.astype(np.uint32),
    "complex64": lambda x: x.view(np.uint32).reshape(6, 5, 2),
}


@pytest.mark.parametrize("dtype", WORDS)
def test_the_digest_follows_the_documented_formula(dtype):
    x = (10 * HOST).astype(jnp.dtype(dtype))
    assert digest([x]) == [by_hand(WORDS[dtype](x))]


def swap(x, i, j):
    x[i], x[j] = x[j].copy(), x[i].copy()


DAMAGE = {
    "two bytes swapped": lambda x: swap(x.view(np.uint8), (2, 0), (2, 4)),
    "two elements swapped": lambda x: swap(x, (1, 2), (4, 0)),
    "two rows swapped": lambda x: swap(x, 1, 4),
    "two columns swapped": lambda x: swap(x.T, 0, 3),
    "a block of zeros": lambda x: x[1:3, 2:4].fill(0),
    "the sign of a zero changed": lambda x: np.negative(x, out=x, where=x == 0),
}


def test_every_damage_changes_both_halves_of_the_digest():
    whole = HOST.astype(np.float32)
    whole[0, 0] = 0
    (sums,) = digest([whole])
    for name, damage in DAMAGE.items():
        x = whole.copy()
        damage(x)
        (changed,) = digest([x])
        assert changed[:8] != sums[:8], name
        assert changed[8:] != sums[8:], name
    assert digest([whole.T.copy()]) != [sums]


@pytest.mark.parametrize(("shape", "box", "start"), [((7, 5), (3, 2), (4, 1)), ((4,), (9,), (0,)), ((), (), ())])
def test_boxes_cover_every_element_once(shape, box, start):
    whole = np.zeros(np.add(shape, start).astype(int))
    for part in boxes(shape, box, start):
        whole[part] += 1
        for axis, size in zip(part, box, strict=True):
            assert axis.start // size == (axis.stop - 1) // size
    assert whole.sum() == np.prod(shape)
    assert whole.max() == 1


def test_an_array_read_in_pieces_has_all_values(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 40)
    x = assembled(HOST.shape, HOST.dtype, HOST.__getitem__)
    assert (x.dtype, x.committed) == (np.float64, False)
    assert np.asarray(x).tobytes() == HOST.tobytes()
    order = []
    assembled((7, 2), np.float32, lambda part: order.append(part) or np.zeros((part[0].stop - part[0].start, 2)))
    assert [part[0] for part in order] == [slice(0, 5), slice(5, 7)]
    # JAX can reuse the memory of the array.
    x = assembled(HOST.shape, np.float32, HOST.__getitem__)
    before = x.unsafe_buffer_pointer()
    assert jax.jit(jnp.negative, donate_argnums=0)(x).unsafe_buffer_pointer() == before


def job(folder, action, devices, processes=1):
    """Run the script in each process of a job, and check that all processes succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(SCRIPT), str(folder), action, str(devices)]
    tails = [[str(port), str(processes), str(i)] for i in range(processes)] if processes > 1 else [[]]
    running = [
        subprocess.Popen([*words, *tail], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for tail in tails
    ]
    try:
        for process in running:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
def test_trees_on_four_devices_are_saved_and_restored(tmp_path):
    for action in ("save", "restore", "fail"):
        job(tmp_path, action, devices=4)


@pytest.mark.slow
def test_a_job_of_two_processes_saves_and_other_jobs_restore(tmp_path):
    job(tmp_path, "save", devices=2, processes=2)
    for devices, processes in ((2, 2), (4, 1), (2, 1), (1, 4)):
        job(tmp_path, "restore", devices, processes)
    job(tmp_path, "fail", devices=2, processes=2)
