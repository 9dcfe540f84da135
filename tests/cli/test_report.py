"""`jaxgd report`: the page of a run, and the notes on missing parts."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxgd import assess, load_dataset, load_network
from jaxgd.cli.report import training_command
from jaxgd.run_folder import RunFolder


def test_the_page_shows_the_run(jaxgd, run_folder):
    answer = jaxgd("report", "run")
    assert answer == (0, "", "written: run/report.html\n")
    page = Path("run/report.html").read_text()
    data, network = load_dataset("digits"), load_network("run/network.safetensors")
    found = assess(network, data.test.images, data.test.labels)
    assert f"<dd>{found.accuracy:.2%}</dd>" in page
    assert f"<dd>{len(found.mistakes):,} of 300</dd>" in page
    cells = re.findall(r"<td class=\"(?:zero|right|wrong)\"[^>]*>(\d+)</td>", page)
    assert [int(cell) for cell in cells] == found.confusion.ravel().tolist()
    assert page.count("data-example=") == min(60, len(found.mistakes))
    assert hashlib.sha256(Path("run/network.safetensors").read_bytes()).hexdigest() in page
    assert RunFolder.open(Path("run")).config["data_sha256"] in page
    # The page does not depend on the path where it is written.
    assert jaxgd("report", "run", "--out", "other.htm").err == "written: other.htm\n"
    assert Path("other.htm").read_text() == page
    assert jaxgd("report", "run", "--split", "validation").status == 0
    assert "The 300 validation images of digits." in Path("run/report.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--data digits --sizes 64 30 10 --scheme scaled --eta 3.0 --batch-size 10 --epochs 2 --seed 0"),
        ({"gradient_norm": False, "batch_size": "full"}, "--batch-size full .*--no-gradient-norm"),
        ({"data": "/a b/mine"}, "--data '/a b/mine' --no-transpose --sizes"),
        ({"data": "/mine", "labels_from": 1, "transpose": True}, "--data /mine --labels-from 1 --transpose --sizes"),
        ({"keep": "best", "patience": 3, "record": ["gradient-norms", "sharpness"]},
         "--keep best --patience 3 --record gradient-norms --record sharpness"),
        ({"from": {"path": "a", "sha256": "b"}, "scheme": None, "activation": ["tanh"]}, "--seed 0 --from s --kernel"),
        ({"activation": ["sigmoid", "sigmoid"]}, "--scheme scaled --eta"),
        ({"data": "mnist", "data_dir": "/data"}, "--data mnist --data-dir /data"),
        ({"made_with": {"float": "float64", "matrix products": "highest", "partitionable keys": "False"}},
         "^JAX_ENABLE_X64=1 JAX_DEFAULT_MATMUL_PRECISION=highest JAX_THREEFRY_PARTITIONABLE=0 jaxgd train"),
    ],
)  # fmt: skip
def test_the_command_line_has_the_settings(completed, options, words):
    config = RunFolder.open(completed).config
    line = training_command(config | options, Path("s"))
    assert re.search(words, line)
    assert ("from" in options) == ("--sizes" not in line)
    assert "--activation" not in line
    assert ("JAX_" in training_command(config | options, Path("s"))) == ("made_with" in options)


def test_the_command_line_leaves_out_the_default_folder_of_data(completed, monkeypatch):
    config = RunFolder.open(completed).config | {"data": "mnist", "data_dir": "/usual"}
    monkeypatch.setenv("JAXGD_DATA_DIR", "/usual")
    assert "--data-dir" not in training_command(config, Path("s"))


def test_the_command_line_of_the_page_repeats_the_run(jaxgd, run_folder):
    jaxgd("report", "run")
    (words,) = re.findall(r'<pre id="command"><code>jaxgd (.*?)</code>', Path("run/report.html").read_text())
    assert jaxgd(*shlex.split(words), "--run-dir", "again").status == 0
    assert Path("again/network.safetensors").read_bytes() == Path("run/network.safetensors").read_bytes()


def lose(*names):
    for name in names:
        path = Path("run", name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def spoil_metrics():
    Path("run/metrics.jsonl").write_text("{\n{\n")


def move_data():
    RunFolder.open(Path("run")).relocate(str(Path("gone").absolute()), None)


def change_data():
    RunFolder.open(Path("run"))._change(data_sha256="0" * 64)


@pytest.mark.parametrize(
    ("damage", "note", "lacking"),
    [
        (lambda: lose("checkpoints"), "run has no folder checkpoints, so the run cannot be continued", ""),
        (lambda: lose("metrics.jsonl"), "No curves: run/metrics.jsonl cannot be read: No such file", 'id="curves"'),
        (spoil_metrics, "metrics.jsonl cannot be read: line 1 is not JSON", 'id="curves"'),
        (move_data, "If the data have moved: jaxgd report run --data FOLDER", 'id="confusion"'),
        (change_data, f"was trained on: expected the SHA-256 {'0' * 64}", ""),
    ],
    ids=["no checkpoints", "no metrics", "damaged metrics", "no data", "other data"],
)
def test_a_missing_or_damaged_part_is_noted_in_the_page_and_on_standard_error(jaxgd, run_folder, damage, note, lacking):
    damage()
    answer = jaxgd("report", "run")
    assert answer.status == 0
    first, last = answer.err.splitlines()
    assert first.startswith("jaxgd report: warning: ")
    assert note in first
    assert last == "written: run/report.html"
    page = Path("run/report.html").read_text()
    (noted,) = re.findall(r'<p class="note">([^<]*)</p>\n', page)
    assert note.split(" ")[-1] in noted
    assert not lacking or lacking not in page
    assert 'id="canvas"' in page


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("damage", "argv", "match"),
    [
        (lambda: lose("network.safetensors"), (), "got none. Continue the run: jaxgd train --resume run"),
        (lambda: lose("network.safetensors", "checkpoints"), (), "must have network.safetensors, which training"),
        (lambda: Path("run/network.safetensors").write_bytes(b"x"), (), "network.safetensors"),
        (lambda: lose("config.json"), (), "run is not a run folder"),
        (lambda: None, ("--out", "run/config.json"), "--out must be a file whose name ends in .html or .htm"),
        (lambda: None, ("--out", "nowhere/page.html"), "nowhere does not exist"),
        (lambda: None, ("--data", "gone/"), "gone"),
        (lambda: None, ("--split", "all"), "--split"),
        (lambda: None, ("--data-dir", "."), "--data-dir must be left out"),
    ],
)  # fmt: skip
def test_misuse_prints_one_line_and_writes_nothing(jaxgd, run_folder, damage, argv, match):
    damage()
    before = sorted(Path("run").iterdir())
    answer = jaxgd("report", "run", *argv)
    assert (answer.status, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert match in answer.err
    assert sorted(Path("run").iterdir()) == before


def test_a_name_that_is_not_utf8_is_written_with_escapes(jaxgd, run_folder):
    Path("run").rename("r\udcff")
    assert jaxgd("report", "r\udcff").status == 0
    assert "<h1>Run r\\udcff</h1>" in Path("r\udcff/report.html").read_text()


def test_the_page_of_a_run_that_stopped_early_names_its_epochs(jaxgd, run_folder):
    rows = Path("run/metrics.jsonl").read_text().splitlines(keepends=True)
    Path("run/metrics.jsonl").write_text(
        "".join(rows[:-1]) + rows[-1][:20]
    )  # training may have written only the start of this line
    assert jaxgd("report", "run").status == 0
    page = Path("run/report.html").read_text()
    assert "This run has made 1 of 2 epochs. It was stopped, or" in page
    assert "jaxgd train --resume run" in page
    epochs = json.loads(page.split('id="facts">')[1].split("</script>")[0])["curves"]["epochs"]
    np.testing.assert_array_equal(epochs, [0, 1])
