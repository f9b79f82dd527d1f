"""A saved model of transformers: its figures are those of transformers' own pipeline."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stresslens as sl

NAMES = ("cat", "dog", "owl")
SIDE = 32


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.ViTConfig(
            image_size=SIDE,
            patch_size=8,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=1.0,
            id2label=dict(enumerate(NAMES)),
            label2id={name: k for k, name in enumerate(NAMES)},
        )
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    sizes = {"height": SIDE, "width": SIDE}
    transformers.ViTImageProcessor(size=sizes, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and four test images of each class, already of the model's size."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in NAMES:
            (folder / split / name).mkdir(parents=True)
            for k in range(4):
                pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.png")
    return folder


def test_it_answers_as_its_pipeline_and_can_be_attacked(saved: Path, pictures: Path, tmp_path: Path) -> None:
    run = sl.train(
        {"transformers": {"name": str(saved)}},
        {"folder": {"path": str(pictures)}},
        epochs=0,
        precision="float32",
        out=tmp_path,
        progress=False,
    )
    files = sorted((pictures / "test").rglob("*.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import pipeline as pipeline_of

        pipeline = pipeline_of("image-classification", model=str(saved), device="cpu")
        told = pipeline([Image.open(file).convert("RGB") for file in files], top_k=3)
    expected = [{each["label"]: each["score"] for each in row} for row in told]
    logits = run.model()(torch.stack([_tensor(file) for file in files]))
    ours = logits.softmax(1).detach().numpy()
    assert ours == pytest.approx(np.array([[row[name] for name in NAMES] for row in expected]), abs=1e-5)
    assert len(np.unique(ours.argmax(1))) > 1
    attacked = sl.attack(run, "8/255", protocol=["fgsm"], n_images=6, audit=False, progress=False)
    assert attacked.robust_accuracy("8/255").n == 6


def _tensor(file: Path) -> torch.Tensor:
    pixels = np.asarray(Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255


def test_classes_in_another_order_are_refused(saved: Path) -> None:
    from foreign_models import built

    with pytest.raises(sl.ConfigError, match="its class 0 is 'cat', and that of the data 'dog'"):
        built({"transformers": {"name": str(saved)}}, (3, SIDE, SIDE), ("dog", "cat", "owl"))
