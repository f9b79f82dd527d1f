"""Test-time augmentation from Python, on the command line and on the pages: against the mean of the
probabilities of each view, computed one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import OPTIONS, SMALL
from PIL import Image
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.errors import ConfigError, Notice
from stresslens.evaluation.predictor import open_predictor

IMAGES = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(300) % 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    return sl.train("linear", SMALL, out=tmp_path_factory.mktemp("out"), **OPTIONS)


class Pair(nn.Module):
    """A net that returns its logits in a dictionary, beside something else."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x.flatten(1)), "image": x}


def by_hand(logits: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return ((logits(x).softmax(1) + logits(x.flip(-1)).softmax(1)) / 2).numpy()


def test_predict_averages_a_module_and_a_run(run: sl.Run) -> None:
    torch.manual_seed(0)
    net = Pair()
    found = sl.predict(net, IMAGES, tta="flip")
    assert np.allclose(found, by_hand(lambda x: net(x)["logits"], IMAGES), atol=1e-6)
    assert net.training
    assert np.allclose(sl.predict(run, IMAGES, tta=["flip"]), by_hand(run.model(), IMAGES), atol=1e-6)
    assert np.allclose(sl.predict(run.model(), IMAGES, tta="flip"), by_hand(run.model(), IMAGES), atol=1e-6)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("to", ["safetensors", "torch"])
def test_an_export_is_averaged_too(run: sl.Run, tmp_path: Path, to: str) -> None:
    file = sl.export(run, to, out=tmp_path / ("run.pt2" if to == "torch" else "run")).file
    opened = open_predictor(file, trust=True, views=["flip", "vertical_flip"])
    assert opened.facts.not_calibrated == "averaged over 4 views of each image"
    logits, features = opened.answer(IMAGES[:20])
    model = run.model()
    with torch.no_grad():
        views = [model(x).softmax(1) for x in (IMAGES, IMAGES.flip(-1), IMAGES.flip(-2), IMAGES.flip(-1, -2))]
    expected = torch.stack(views).mean(0)[:20].numpy()
    assert np.allclose(np.exp(logits), expected, atol=1e-6)
    alone = open_predictor(file, trust=True).answer(IMAGES[:20])[1]
    assert all(np.array_equal(a, b) for a, b in zip(vars(features).values(), vars(alone).values()))


def test_evaluate_gives_the_gain_of_a_module(run: sl.Run) -> None:
    net = run.model()
    plain, found = (sl.evaluate(net, IMAGES, LABELS, tta=tta) for tta in ((), "flip"))
    right = by_hand(net, IMAGES).argmax(1) == LABELS.numpy()
    gain = found["accuracy_gain"]
    assert found["accuracy"].value == pytest.approx(right.mean())
    assert gain.value == pytest.approx(found["accuracy"].value - plain["accuracy"].value)
    assert gain.low < gain.value < gain.high
    assert gain.n == 300
    assert "accuracy_gain" not in plain


def test_evaluate_leaves_repeated_images_out_of_both(run: sl.Run) -> None:
    twice, labels = torch.cat([IMAGES, IMAGES[:50]]), torch.cat([LABELS, LABELS[:50]])
    with pytest.warns(Notice, match="50 "):
        found = sl.evaluate(run.model(), twice, labels, tta="flip")
    assert found == sl.evaluate(run.model(), IMAGES, LABELS, tta="flip")


def test_evaluate_keeps_those_of_a_run(tmp_path: Path) -> None:
    run = sl.train("linear", SMALL, out=tmp_path, **OPTIONS)
    reads = run.record["reads_of_test"]
    found = sl.evaluate(run, tta="flip")
    again = sl.open(run.folder)
    assert found["accuracy"].value == pytest.approx(
        again.record["averaged"]["scores"]["test"]["accuracy"]["value"]
    )
    assert found["accuracy_gain"].value == pytest.approx(
        found["accuracy"].value - run.scores("test")["accuracy"].value
    )
    assert sl.evaluate(run, tta="flip") == found  # is read, and not made again
    assert sl.open(run.folder).record["reads_of_test"] == reads + 1
    sl.evaluate(run, "validation", tta="flip")
    assert set(sl.open(run.folder).record["averaged"]["scores"]) == {"test", "validation"}
    assert sl.evaluate(run) == run.scores("test")


def test_train_scores_views_without_training_again(tmp_path: Path) -> None:
    plain = sl.train("linear", SMALL, out=tmp_path, **OPTIONS)
    before = plain._repr_html_()
    run = sl.train("linear", SMALL, out=tmp_path, tta=["flip", "vertical_flip"], **OPTIONS)
    assert run.folder == plain.folder
    assert run.record["fingerprint"] == plain.record["fingerprint"]
    assert run.record["averaged"]["passes"] == 4
    said = r"test-time augmentation \(flip, vertical flip; 4 passes\): .*, test .* points of 360 images"
    assert re.search(said, run._repr_html_())
    assert "test-time augmentation" not in before
    estimator = sl.train("knn", SMALL, out=tmp_path, tta="flip")
    assert estimator.record["averaged"]["gain"]["test"]["n"] == len(estimator.predictions().labels)


@pytest.mark.parametrize(
    ("tta", "why"),
    [
        ("flop", "no view is called 'flop'; did you mean 'flip'"),
        (3, "tta is 3; expected a view such as 'flip', or a list of views"),
        (["flip", 3], "expected a view"),
        ("five_crops", "five_crops needs a net that sees a part of the image"),
    ],
    ids=str,
)
def test_wrong_views_are_refused(run: sl.Run, tta: Any, why: str) -> None:
    for call in (
        lambda: sl.predict(run, IMAGES, tta=tta),
        lambda: sl.predict(nn.Flatten(), IMAGES, tta=tta),
        lambda: sl.evaluate(run, tta=tta),
    ):
        with pytest.raises(ConfigError, match=why):
            call()


def test_train_refuses_wrong_views(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.tta.*flip"):
        sl.train("linear", SMALL, out=tmp_path, tta="flop", **OPTIONS)


@pytest.mark.slow
def test_the_pages_have_both_accuracies_and_their_difference(tmp_path: Path) -> None:
    values = {"study": "s", "data": SMALL, "model": "linear", "train": OPTIONS, "repeats": 3}
    runs = {"views": {"evaluation": {"tta": ["flip"]}}, "none": {}}
    study = sl.run({**values, "runs": runs}, out=tmp_path)
    page = (study.folder / "report.html").read_text()
    section = page[page.index('<section id="averaged">') :]
    section = section[: section.index("</section>")]
    rows = re.findall(r"<tr><th scope=\"row\"><bdi>(.*?)</bdi></th>(.*?)</tr>", section)
    assert [name for name, _ in rows] == ["views"]
    records = [sl.open(study.folder / "views" / f"seed-{k}").record["averaged"] for k in range(3)]
    mean = {key: 100 * float(np.mean([value(r) for r in records])) for key, value in FIGURES.items()}
    cells = re.findall(r"<td[^>]*>(.*?)</td>", rows[0][1])
    assert cells[0] == "averaged over 2 views: flip"
    assert [cell.partition(" ")[0] for cell in cells[1:3]] == [
        f"{mean['alone']:.1f}",
        f"{mean['averaged']:.1f}",
    ]
    assert cells[3].startswith(f"{mean['gain']:+.1f}".replace("-", "−").replace("+0.0", "0.0"))
    assert "interval" in cells[3]
    assert cells[4:] == [str(records[0]["gain"]["test"]["n"]), "3"]
    assert '<a href="#averaged">' in page
    own = (study.folder / "views" / "seed-0" / "report.html").read_text()
    assert "averaged over 2 views: flip" in own
    assert '<section id="averaged">' not in (study.folder / "none" / "seed-0" / "report.html").read_text()


FIGURES: dict[str, Callable[[Any], float]] = {
    "alone": lambda r: r["alone"]["test"]["value"],
    "averaged": lambda r: r["scores"]["test"]["accuracy"]["value"],
    "gain": lambda r: r["gain"]["test"]["value"],
}


@pytest.mark.slow
def test_on_the_command_line(type_: Callable[..., tuple[int, str, str]]) -> None:
    assert type_("train", "digits", "linear", "train.epochs=1", "--tta", "flip")[0] == 0
    (run,) = Path("runs/train").glob("*/seed-0")
    assert json.loads((run / "record.json").read_text())["averaged"]["views"] == ["flip"]
    pixels = (IMAGES[0, 0] * 255).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save("one.png")
    code, out, err = type_("predict", str(run), "one.png", "--tta", "flip", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["tta"], told["temperature"], told["calibrated_on"]) == (["flip"], 1.0, None)
    expected = by_hand(sl.load(run), pixels[None, None].float() / 255)[0]
    found = {each["class"]: each["probability"] for each in told["pictures"][0]["predictions"]}
    assert found == pytest.approx({str(k): expected[k] for k in np.argsort(-expected)[:3]}, abs=1e-6)
    code, out, err = type_("predict", str(run), "one.png", "--tta", "flip")
    assert "Probabilities are not calibrated: averaged over 2 views of each image;" in out
    code, out, err = type_("predict", str(run), "one.png", "--tta", "five_crops")
    assert code == 2
    assert "five_crops needs a net" in err
    code, out, err = type_("evaluate", str(run), "--tta", "vertical_flip")
    assert code == 0, err
    assert "averaged over 2 views: vertical flip" in (run / "report.html").read_text()
