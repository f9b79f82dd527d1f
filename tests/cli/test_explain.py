"""`stresslens explain` where an explainer does not suit the model: the other maps are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Type = Callable[..., tuple[int, str, str]]
RUN = "runs/train/l/seed-0"


def trained(type_: Type) -> None:
    file = Path("l.yaml")
    file.write_text(
        "study: train\ndata: {digits: {subset: 100}}\nmodel: linear\n"
        "train: {epochs: 1, threads: 1, precision: float32}\nruns: {l: {}}\n"
    )
    assert type_("run", "l.yaml")[0] == 0


def test_explainers_that_do_not_suit_the_model(type_: Type) -> None:
    trained(type_)
    asked = ("explain", RUN, "--images", "2", "--no-check")
    code, out, err = type_(*asked)
    assert code == 0, err
    assert "occlusion" in out
    assert "integrated_gradients" in out
    assert [line for line in err.splitlines() if "gradcam" in line] == [
        "left out: gradcam: the model has no layer that is laid out like the image and that the logits "
        "depend on; name one (layer: …)"
    ]
    code, out, err = type_(*asked, "--explainer", "gradcam", "--explainer", "saliency")
    assert code == 2
    assert "saliency" in out
    assert err.startswith("stresslens: gradcam: the model has no layer")
    code, out, err = type_(*asked, "--explainer", "gradcam", "--explainer", "saliency", "--json")
    assert code == 2
    assert [each["explainer"] for each in json.loads(out)] == ["saliency"]
    code, out, err = type_(*asked, "--explainer", "gradcam")
    assert (code, out) == (2, "")
    assert "gradcam: the model has no layer" in err
