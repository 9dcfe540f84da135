"""`jaxgd evaluate`: its table and its JSON agree with an independent count, and messages name data that do not fit."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import Layer, assess, load_dataset, load_idx, load_network, save_network
from jaxgd.cli.assessment import as_json, as_text
from jaxgd.data.idx import write_idx
from jaxgd.network import feedforward
from jaxgd.run_folder import RunFolder


def metrics(row=-1):
    return json.loads(Path("run/metrics.jsonl").read_text().splitlines()[row])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_accuracy_and_cost_equal_those_in_the_history(jaxgd, run_folder, split):
    answer = jaxgd("evaluate", "run", "--split", split)
    right, of, cost = re.match(
        rf"digits {split}: (\d+) / (\d+) \(.*%\), cost (.*)\n\nlabel  answer\n", answer.out
    ).groups()
    prefix = "" if split == "train" else f"{split}_"
    assert int(right) / int(of) == pytest.approx(metrics()[f"{prefix}accuracy"])
    assert float(cost) == pytest.approx(metrics()[f"{prefix}cost"], rel=1e-4)


def answers_of(path):
    """Return a network's answers to the test images of digits, the labels, and the activation of each answer."""
    images, labels = load_dataset("digits").test
    a = np.asarray(feedforward(load_network(path), jnp.asarray(images.reshape(300, -1) / 255, jnp.float32)))
    return a.argmax(1), labels, a.max(1)


def test_the_table_the_list_and_the_json_agree_with_a_count(jaxgd, run_folder, monkeypatch):
    answers, labels, activations = answers_of("run/network.safetensors")
    wrong = [i for i in np.argsort(-activations, kind="stable") if answers[i] != labels[i]]
    content = json.loads(jaxgd("evaluate", "run", "--json").out)
    assert [content[name] for name in ("network", "data", "split")] == ["run", "digits", "test"]
    assert (content["images"], content["right"]) == (300, 300 - len(wrong))
    for label in range(10):
        row = [int(((labels == label) & (answers == answer)).sum()) for answer in range(10)]
        assert content["confusion"][label] == row
        assert content["class_accuracy"][label] == row[label] / sum(row)
    assert [m["index"] for m in content["mistakes"]] == wrong
    first = content["mistakes"][0]
    assert (first["label"], first["answer"]) == (labels[wrong[0]], answers[wrong[0]])
    assert first["activation"] == pytest.approx(activations[wrong[0]], abs=1e-5)
    monkeypatch.setenv("COLUMNS", "80")
    rows = [line.split() for line in jaxgd("evaluate", "run", "--part", "test").out.splitlines()]
    for label in range(10):
        cells = [int(cell.replace(".", "0")) for cell in rows[4 + label][1:-1]]
        assert cells == content["confusion"][label]
        assert rows[4 + label][-1] == f"{content['class_accuracy'][label]:.2%}"
    assert [int(row[0]) for row in rows[-10:]] == wrong[:10]
    monkeypatch.setenv("COLUMNS", "35")
    lines = jaxgd("evaluate", "run").out.splitlines()
    worst = int(np.argmin(content["class_accuracy"]))
    counts = {answer: count for answer, count in enumerate(content["confusion"][worst]) if answer != worst}
    most = max(counts, key=lambda answer: counts[answer])
    assert re.match(rf" *{worst} +{(labels == worst).sum()} +\d+\.\d+%  {most}: {counts[most]}", lines[3 + worst])


def test_the_text_fits_the_width_and_names_images_without_an_answer():
    """Classes are numbered from `labels_from`. A class without examples has no accuracy."""
    network = (Layer(jnp.array([[jnp.inf, 0, 0], [0, 1, 0], [0, 0, 1]]), jnp.zeros(3)),)
    result = assess(network, jnp.array([[0, 0, 9], [1, 0, 0], [-1, 1, 0.0]]), np.array([2, 1, 1]))
    lines = as_text(result, 5, width=80).splitlines()
    assert lines[:7] == [
        "", "label  answer", "       5  6  7    right", "    5  .  .  .        –", "    6  1  1  .   50.00%",
        "    7  .  .  .    0.00%", "images without an answer, because an output is NaN: 1",
    ]  # fmt: skip
    assert lines[-2:] == ["     1      6       5      1.0000", "     0      7    none"]
    assert "".join(as_text(result, 5, width=10).splitlines()[1:4]) == (
        "label  images    right  most frequent wrong answers    6       2   50.00%  5: 1    7       1    0.00%"
    )
    content = json.loads(as_json(result, 5, float("nan"), {"data": "mine"}), parse_constant=pytest.fail)
    assert (content["data"], content["cost"], content["class_accuracy"]) == ("mine", None, [None, 0.5, 0.0])
    assert content["mistakes"][-1] == {"index": 0, "label": 7, "answer": None, "activation": None}
    right = as_text(assess(network, jnp.ones((1, 3)), np.array([0])), 0, width=80)
    assert "mistakes" not in right


def test_a_network_file_needs_the_name_of_its_data(jaxgd, run_folder):
    network = "run/network.safetensors"
    assert jaxgd("evaluate", network, "--data", "digits").out == jaxgd("evaluate", "run").out
    answer = jaxgd("evaluate", network)
    assert (answer.status, answer.out) == (2, "")
    assert "expected --data, because the file of a network does not name its data" in answer.err
    save_network("other.safetensors", (Layer(jnp.zeros((10, 4)), jnp.zeros(10)),))
    answer = jaxgd("evaluate", "other.safetensors", "--data", "digits")
    assert (answer.status, len(answer.err.splitlines())) == (2, 1)
    assert "other.safetensors has sizes [4, 10] and does not fit digits" in answer.err


@pytest.mark.slow
def test_the_figure_is_written(jaxgd, run_folder):
    pytest.importorskip("matplotlib")
    answer = jaxgd("evaluate", "run", "--plot", "mistakes.png")
    assert (answer.status, answer.err) == (0, "drawn: mistakes.png\n")
    assert answer.out.startswith("digits test: ")
    assert Path("mistakes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.bad_input
def test_the_error_for_images_of_another_size_names_the_run_and_the_data(jaxgd, run_folder):
    """The command has no option --sizes, so the message must not name --sizes."""
    Path("mine").mkdir()
    for part in ("train", "test"):
        write_idx(f"mine/{part}-images", np.ones((9, 5, 4), np.uint8))
        write_idx(f"mine/{part}-labels", np.arange(9, dtype=np.uint8) % 3)
    answer = jaxgd("evaluate", "run", "--data", "mine")
    assert (answer.status, answer.out) == (2, "")
    assert "the network of run has sizes [64, 30, 10] and does not fit mine: its images are 5×4" in answer.err
    assert "64 pixels per image and 10 classes" in answer.err
    assert "--sizes" not in answer.err


def test_data_other_than_the_training_data_give_a_warning(jaxgd, run_folder):
    assert jaxgd("evaluate", "run").err == ""
    folder = RunFolder.open(Path("run"))
    config = folder.config
    folder._change(data_sha256="0" * 64)
    answer = jaxgd("evaluate", "run")
    assert answer.status == 0
    assert answer.err.startswith("jaxgd evaluate: warning: digits is not the data set that run was trained on")
    assert f"expected the SHA-256 {'0' * 64}, got {config['data_sha256']}" in answer.err
    assert len(answer.err.splitlines()) == 1


def write_digits(folder, names, *, emnist):
    """Write digits as IDX files, with EMNIST's transposed images and labels from 1 if `emnist` is true."""
    Path(folder).mkdir()
    for split in ("train", "test"):
        images, labels = getattr(load_dataset("digits"), split)
        write_idx(f"{folder}/{names}{split}-images", np.ascontiguousarray(images.swapaxes(1, 2)) if emnist else images)
        write_idx(f"{folder}/{names}{split}-labels", labels + np.uint8(emnist))


def test_files_in_emnists_conventions_train_the_same_network(jaxgd):
    """`train --resume`, `evaluate` and `predict` read the data as the run did.

    `evaluate` and `predict` print the labels of the files.
    """
    write_digits("plain", "", emnist=False)
    write_digits("letters", "emnist-letters-", emnist=True)
    stated = ("--labels-from", 1, "--transpose")
    refused = jaxgd("train", "--data", "letters", "--run-dir", "run")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "Pass labels_from=1, transpose=True (--labels-from 1 --transpose)." in refused.err
    assert not Path("run").exists()
    settings = ("--epochs", 1, "--scheme", "scaled", "--kernel", "native")
    assert jaxgd("train", "--data", "plain", "--run-dir", "same", *settings).status == 0
    assert jaxgd("train", "--data", "letters", "--run-dir", "run", *stated, *settings).status == 0
    assert Path("run/network.safetensors").read_bytes() == Path("same/network.safetensors").read_bytes()
    config = RunFolder.open(Path("run")).config
    assert (config["labels_from"], config["transpose"]) == (1, True)
    refused = jaxgd("train", "--resume", "run", *stated)
    assert (refused.status, refused.out) == (2, "")
    assert "leave out --labels-from, --transpose" in refused.err
    Path("letters").rename("moved")
    assert jaxgd("train", "--resume", "run", "--data", "moved", "--epochs", 2).status == 0
    answer = jaxgd("evaluate", "run", "--json")
    assert (answer.status, answer.err) == (0, "")
    ours = json.loads(answer.out)
    theirs = json.loads(jaxgd("evaluate", "run", "--json", "--data", "plain").out)
    assert ours["labels"] == list(range(1, 11))
    assert ours["confusion"] == theirs["confusion"]
    assert [m["label"] - 1 for m in ours["mistakes"]] == [m["label"] for m in theirs["mistakes"]]
    assert jaxgd("evaluate", "run", "--data", "moved", "--json").out == answer.out
    read = jaxgd("predict", "run", "moved/emnist-letters-test-images").out.splitlines()
    labels = [int(line.split("\t")[1]) for line in read]
    wrong = [m["index"] for m in ours["mistakes"]]
    true = load_dataset("digits").test.labels + 1
    assert sorted(wrong) == [i for i in range(300) if labels[i] != true[i]]
    Path("moved").rename("again")
    refused = jaxgd("evaluate", "run", "--data", "again")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "--labels-from 1 --transpose" in refused.err
    assert json.loads(jaxgd("evaluate", "run", "--data", "again", *stated, "--json").out)["right"] == ours["right"]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["run", "--split", "all"], "--part/--split must be train, validation or test, got 'all'"),
        (["run", "--data", "cifar"], "digits, mnist"),
        (["run", "--data", ""], "--data must be a name or a path, got ''."),
        (["run", "--data-dir", "."], "--data-dir must be left out"),
        (["run", "--transpose"], "--labels-from and --transpose are for folders of IDX files, but digits has"),
        (
            ["run", "--data", "run", "--transpose", "--no-transpose"],
            "--transpose and --no-transpose exclude each other",
        ),
        (["run", "--data", "run", "--labels-from", 256], "--labels-from must be between 0 and 255, got 256"),
        (["run", "--data", "run"], "expected one file train-images*, got none. Put it into this folder"),
        (["run", "--data", "run/config.json"], "run/config.json: expected a folder of IDX files, got a file."),
        (["run", "--data", "mnist.csv"], "mnist.csv must have rows of one label and the pixels of a square image"),
        (["run", "--plot", "x.txt"], "--plot must be a file whose name ends in"),
        (["missing.safetensors", "--data", "digits"], "missing.safetensors cannot be read"),
        (["run/config.json", "--data", "digits"], "config.json is damaged or not a safetensors file"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_misuse_prints_one_line(jaxgd, run_folder, argv, match):
    Path("mnist.csv").write_text("a;b\n")
    answer = jaxgd("evaluate", *argv)
    assert (answer.status, answer.out) == (2, "")
    assert match in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.slow
def test_the_confusion_matrix_equals_a_count_on_mnist(jaxgd, genuine_mnist):
    assert jaxgd("train", "--data", genuine_mnist, "--epochs", 1, "--run-dir", "run").status == 0
    content = json.loads(jaxgd("evaluate", "run", "--json").out)
    images, labels = load_idx(genuine_mnist).test
    network = [np.asarray(x, float) for layer in load_network("run/network.safetensors") for x in (layer.w, layer.b)]
    a = images.reshape(len(images), -1) / 255
    for w, b in zip(network[::2], network[1::2], strict=True):
        a = 1 / (1 + np.exp(-(a @ w.T + b)))
    # These float64 answers may differ only where two float32 outputs are nearly equal.
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, a.argmax(1)), 1)
    assert np.abs(confusion - content["confusion"]).sum() <= 4
    assert sum(map(sum, content["confusion"])) == 10_000
