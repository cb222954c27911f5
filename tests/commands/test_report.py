"""The report of a comparison that was really run: whole, self-contained, and with the numbers of ``compare.json``."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.commands.pages import Page, numbers

from foveate.commands.compare import CompareConfig
from foveate.commands.compare import run as compare
from foveate.commands.report import ReportConfig, run

pytestmark = pytest.mark.slow

MODELS = ["conv_resnet_tiny", "expatt_resnet_tiny", "cram_resnet_tiny"]
TEST_IMAGES = 23


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "runs"
    options = {"size": 32, "clutter": 2, "length": 32, "val_length": 10, "test_length": TEST_IMAGES}
    compare(
        CompareConfig(
            models=MODELS, seeds=2, jobs=1, out=str(out), epochs=2, batch_size=16, device="cpu", data_options=options
        )
    )
    return out


@pytest.fixture(scope="module")
def table(runs: Path) -> dict[str, Any]:
    return json.loads((runs / "compare.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def text(runs: Path) -> str:
    return run(ReportConfig(runs=runs, images=5)).read_text("utf-8")


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "copied"))


def doctored(folder: Path, **changes: Any) -> Page:
    """Return the page of a comparison whose second network has other figures, as ``top1__mean=0.9``."""
    path = folder / "compare.json"
    table = json.loads(path.read_text("utf-8"))
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = table["networks"][1]
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(table), "utf-8")
    return Page(run(ReportConfig(runs=folder, images=1)).read_text("utf-8"))


def test_the_path_is_the_last_line_and_the_page_is_valid(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(ReportConfig(runs=runs, images=2))
    assert capsys.readouterr().out.splitlines()[-1] == str(path) == str(runs / "report.html")
    text = path.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    page = Page(text)
    assert page.attributes("html") == [{"lang": "en"}]
    assert all(attributes.get("alt") for attributes in page.attributes("img"))
    assert "{{" not in text
    assert "{%" not in text


def test_nothing_is_fetched(text: str) -> None:
    page = Page(text)
    assert not re.search(r"https?:|//\w|@import|<script|<link|<iframe", re.sub(r"base64,[\w+/=]+", "", text))
    assert all(attributes["src"].startswith("data:image/") for attributes in page.attributes("img"))
    assert not any("href" in attributes or "srcset" in attributes for _, attributes in page.tags)


def test_every_picture_opens(text: str) -> None:
    pictures, charts = [], []
    for attributes in Page(text).attributes("img"):
        kind, content = re.fullmatch(r"data:image/([\w+]+);base64,(.+)", attributes["src"]).groups()
        content = base64.b64decode(content, validate=True)
        if kind == "svg+xml":
            charts.append(ElementTree.fromstring(content).tag)
        else:
            pictures.append(Image.open(io.BytesIO(content)).convert("RGB"))
    assert [chart.rpartition("}")[2] for chart in charts] == ["svg", "svg"]
    assert len(pictures) == 5 * (1 + 2)  # the images, and what the two networks with attention attended to
    assert all(np.asarray(picture).std() > 3 for picture in pictures)


def test_the_numbers_are_those_of_the_comparison(text: str, table: dict[str, Any]) -> None:
    _, *rows = Page(text).tables[0]
    assert [row[0].strip() for row in rows] == MODELS
    for row, network in zip(rows, table["networks"], strict=True):
        top1, difference, rate = network["top1"], network["difference"], network["images_per_second"]
        expected = [
            [100 * top1[key] for key in ("mean", "low", "high")],
            [100 * top1["seed_std"]],
            [100 * difference[key] for key in ("mean", "low", "high")] if difference else [],
            [difference["p_value"]] if difference else [],
            [network["parameters"] / 1e6],
            [network["flops"] / 1e9],
            [rate[key] for key in ("median", "q1", "q3")],
            [network["peak_memory"] / 1e6],
            [network["seconds"] / 60],
        ]
        precision = [0.005, 0.005, 0.005, 0.00005, 0.0005, 0.0005, 0.5, 0.05, 0.05]
        for cell, values, within in zip(row[1:], expected, precision, strict=True):
            assert numbers(cell) == pytest.approx(values, abs=within * 1.001)


def test_answers_are_those_that_were_counted(text: str, runs: Path, table: dict[str, Any]) -> None:
    page = Page(text)
    _, *rows = page.tables[1]
    shown = [int(re.match(r"Image (\d+)", a["alt"])[1]) for a in page.attributes("img") if "Image" in a["alt"]]
    assert shown == [0, 6, 11, 16, 22]
    for column, network in enumerate(table["networks"], 1):
        result = json.loads((runs / network["runs"][0] / "result.json").read_text("utf-8"))
        for row, index in zip(rows, shown, strict=True):
            mark, answer = row[column].replace("–", "").split()[:2]
            assert (mark == "✓") == bool(result["correct"][index]) == (answer == str(index % 10))


def test_the_legend_states_scales_and_outlines(text: str) -> None:
    page = Page(text)
    assert "gate: the share of each feature that passes, from 0 (none) to 1 (all)" in page.text
    assert "1 is as much as every position would receive if all received the same" in page.text
    assert re.search(r"expatt_resnet_tiny: circle: .*radius, \d\.\d\d positions", page.text)
    assert "cram_resnet_tiny: outline: the rectangle" in page.text
    assert "True box" in page.text
    assert "1 multiply-add = 2 FLOPs" in page.text


def test_the_true_box_is_drawn_where_it_is(text: str, table: dict[str, Any]) -> None:
    data = CompareConfig(data_options=table["protocol"]["data_options"]).open()
    images = [a["src"] for a in Page(text).attributes("img") if (a["alt"] or "").startswith("Image 16,")]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[0].partition(",")[2]))).convert("RGB")).astype(
        int
    )
    zoom = picture.shape[0] // 32
    orange = (picture[..., 0] - picture[..., 2]) > 120
    rows, columns = np.nonzero(orange)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(np.array(box) / zoom - data.test.boxes(16)).max() <= 0.5


@pytest.mark.parametrize(
    ("low", "high", "mean", "p", "finding"),
    [
        (0.01, 0.05, 0.03, 0.004, "Above conv_resnet_tiny"),
        (-0.05, -0.01, -0.03, 0.004, "Below conv_resnet_tiny"),
        (-0.01, 0.05, 0.02, 0.004, "Not told apart from conv_resnet_tiny"),
        (0.01, 0.05, 0.03, 0.06, "Not told apart from conv_resnet_tiny"),
    ],
)
def test_the_words_claim_what_the_numbers_say(
    copied: Path, low: float, high: float, mean: float, p: float, finding: str
) -> None:
    changes = {"difference__low": low, "difference__high": high, "difference__mean": mean, "difference__p_value": p}
    page = doctored(copied, top1__mean=0.987654, **changes)
    assert "expatt_resnet_tiny with 98.77 %" in page.text
    (sentence,) = [line for line in page.text.splitlines() if "expatt_resnet_tiny (" in line]
    assert sentence.strip().startswith(finding)
    assert f"expatt_resnet_tiny ({100 * mean:+.2f} points, p\u00a0=\u00a0{p:.4f})" in sentence


def test_one_network_with_one_seed(copied: Path) -> None:
    """Nothing is compared then, and nothing is said of a comparison."""
    path = copied / "compare.json"
    table = json.loads(path.read_text("utf-8"))
    table["networks"], table["seeds"] = table["networks"][:1], [0]
    table["networks"][0]["runs"] = table["networks"][0]["runs"][:1]
    table["networks"][0]["top1"]["seed_std"] = None
    path.write_text(json.dumps(table), "utf-8")
    page = Page(run(ReportConfig(runs=copied, images=1)).read_text("utf-8"))
    assert "conv_resnet_tiny on cluttered digits" in page.text
    assert "Trained under one protocol with 1 seed each" in " ".join(page.text.split())
    assert not re.search("told apart|Above|Below|permutation", page.text)


def test_figures_that_could_not_be_measured_are_left_out(copied: Path) -> None:
    page = doctored(copied, images_per_second=None, peak_memory=None)
    assert [cell.strip() for cell in page.tables[0][2][7:9]] == ["", ""]


def test_the_settings_are_those_of_the_table(copied: Path) -> None:
    file = copied / "config.yaml"
    file.write_text(file.read_text().replace("epochs: 2", "epochs: 77").replace("- cram_resnet_tiny\n", ""))
    text = html.unescape(run(ReportConfig(runs=copied, images=1)).read_text("utf-8"))
    settings = yaml.safe_load(re.search(r"<pre>(\w+:.*?)</pre>", text, re.DOTALL)[1])
    assert (settings["epochs"], settings["models"], settings["seeds"]) == (2, MODELS, 2)
    assert f"foveate report {copied}" in text


@pytest.mark.parametrize("place", ["protocol", "environment", "images", "networks"])
def test_a_table_from_elsewhere_is_refused(place: str, copied: Path, table: dict[str, Any]) -> None:
    path = copied / "compare.json"
    without = {key: value for key, value in table.items() if key != place}
    foreign = {**table, "protocol": {**table["protocol"], "colour": 1}}
    for content in (without, foreign, [table], {**table, "networks": []}):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="is not what `foveate compare` writes"):
            run(ReportConfig(runs=copied, images=1))
    path.write_text(json.dumps({**table, "seeds": []}))
    with pytest.raises(ValueError, match="seeds must be at least 1; got 0"):
        run(ReportConfig(runs=copied, images=1))


def test_labels_are_text_not_markup(copied: Path) -> None:
    label = '<b>$x^2$</b> & "co"'
    page = doctored(copied, label=label)
    assert page.tables[0][2][0].strip() == label
    assert not page.attributes("b")


def test_bad_input_is_refused_and_nothing_is_left(copied: Path, tmp_path: Path) -> None:
    (copied / "report.html").write_text("an earlier report")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="no folder given"):
        run(ReportConfig())
    with pytest.raises(ValueError, match=r"no compare\.json in .*nowhere"):
        run(ReportConfig(runs=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="images must be at least 1; got 0"):
        run(ReportConfig(runs=copied, images=0))
    with pytest.raises(ValueError, match="is a folder; name a file"):
        run(ReportConfig(runs=copied, out=tmp_path))
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        run(ReportConfig(runs=copied, out=copied / "compare.json" / "report.html"))
    assert set(tmp_path.rglob("*")) == before

    weights = copied / "cram_resnet_tiny" / "seed-0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut short"):
        run(ReportConfig(runs=copied, images=1))
    (copied / "expatt_resnet_tiny" / "seed-1" / "result.json").unlink()
    with pytest.raises(ValueError, match=r"seed-1.result\.json is missing; run `foveate compare` again"):
        run(ReportConfig(runs=copied, images=1))
    (copied / "compare.json").write_text('{"networks": [{}]}')
    with pytest.raises(ValueError, match="is not what `foveate compare` writes"):
        run(ReportConfig(runs=copied, images=1))
    (copied / "compare.json").write_text('{"networks": ')
    with pytest.raises(ValueError, match="is not JSON"):
        run(ReportConfig(runs=copied, images=1))
    assert (copied / "report.html").read_text() == "an earlier report"
    assert set(tmp_path.rglob("*")) < before


def test_images_that_were_not_compared_are_refused(copied: Path, table: dict[str, Any]) -> None:
    protocol = table["protocol"]
    other = {**protocol, "data_options": {**protocol["data_options"], "clutter": 3}}
    (copied / "compare.json").write_text(json.dumps({**table, "protocol": other}))
    with pytest.raises(ValueError, match=r"clutter: \d+ then, 3 now"):
        run(ReportConfig(runs=copied, images=1))
