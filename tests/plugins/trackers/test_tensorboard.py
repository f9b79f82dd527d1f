"""What TensorBoard's own reader finds in a run's folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import nn

from stresslens.core.errors import Notice
from stresslens.core.tracking import Graph, Scalars
from stresslens.plugins.trackers.tensorboard import tensorboard
from stresslens.study import stages
from stresslens.training.task import Task


def read(folder: Path) -> EventAccumulator:
    """Every event below a folder, none left out."""
    found = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0, "histograms": 0}
    )
    found.Reload()
    return found


@pytest.fixture
def tracked(task_of: Callable[..., Task]) -> tuple[Task, EventAccumulator]:
    task = task_of("mlp", epochs=3, watch=["train", "validation"])
    task = replace(task, config=replace(task.config, track=["tensorboard"]))
    stages.carry_out(task)
    return task, read(task.folder / "tensorboard")


def lines(task: Task) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (task.folder / "metrics.jsonl").read_text().splitlines()]


def test_scalars_by_epoch_are_those_of_the_metrics(tracked: tuple[Task, EventAccumulator]) -> None:
    task, found = tracked
    assert len(lines(task)) == 3
    for name in ("loss", "last_loss", "lr"):
        points = [(event.step, event.value) for event in found.Scalars(f"epoch/{name}")]
        assert points == [(line["epoch"], np.float32(line[name])) for line in lines(task)]
    for split in ("train", "validation"):
        for name in ("loss", "accuracy"):
            points = [(event.step, event.value) for event in found.Scalars(f"epoch/{split}/{name}")]
            assert points == [(line["epoch"], np.float32(line[split][name])) for line in lines(task)]


def test_scalars_by_iteration(tracked: tuple[Task, EventAccumulator]) -> None:
    """120 images in batches of 64 are two iterations an epoch; the second is the epoch's last loss."""
    task, found = tracked
    losses = found.Scalars("step/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in losses[1::2]] == [np.float32(line["last_loss"]) for line in lines(task)]
    first, last = losses[0].value, losses[1].value
    assert (64 * first + 56 * last) / 120 == pytest.approx(lines(task)[0]["loss"], rel=1e-6)
    accuracy = [(event.step, event.value) for event in found.Scalars("step/validation/accuracy")]
    assert accuracy == [
        (2 * line["epoch"], np.float32(line["validation"]["accuracy"])) for line in lines(task)
    ]


def test_graph_names_the_layers(tracked: tuple[Task, EventAccumulator]) -> None:
    names = " ".join(node.name for node in tracked[1].Graph().node)
    assert "Normalize[normalize]" in names
    assert "Linear" in names


def test_pictures_and_confusion_matrices(tracked: tuple[Task, EventAccumulator]) -> None:
    found = tracked[1]
    tags = {"images/samples", "images/mistakes", "figures/confusion, validation", "figures/confusion, test"}
    assert set(found.Tags()["images"]) == tags
    for tag in tags:
        (event,) = found.Images(tag)
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        assert picture.size == (event.width, event.height)
        assert len(np.unique(np.asarray(picture))) > 10


def test_histograms_count_every_weight(tracked: tuple[Task, EventAccumulator]) -> None:
    task, found = tracked
    weights = stages.open_model(stages.RunFolder(task.folder), trust=True).get_submodule("net").state_dict()
    assert {f"weights/{name}" for name in weights} == set(found.Tags()["histograms"])
    for name, value in weights.items():
        events = found.Histograms(f"weights/{name}")
        assert [event.step for event in events] == [1, 2, 3]
        assert all(sum(event.histogram_value.bucket) == value.numel() for event in events)


def test_text_holds_every_setting(tracked: tuple[Task, EventAccumulator]) -> None:
    (event,) = tracked[1].Tensors("settings/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert "| model | mlp |" in text
    assert "| train.epochs | 3 |" in text


def test_the_projector_finds_features_labels_and_sprites(tracked: tuple[Task, EventAccumulator]) -> None:
    folder = tracked[0].folder / "tensorboard"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    features = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    labels = (folder / embedding.metadata_path).read_text().split()
    assert features.shape == (60, 100)  # of the hidden layer
    assert sorted(set(labels)) == [str(k) for k in range(10)]
    assert len(labels) == 60
    assert list(embedding.sprite.single_image_dim) == [8, 8]
    with Image.open(folder / embedding.sprite.image_path) as sprite:
        assert sprite.size == (64, 64)  # 60 pictures of 8 × 8 in a square of 8 × 8


def test_hyper_parameters_with_their_scores(tracked: tuple[Task, EventAccumulator]) -> None:
    task, found = tracked
    held = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(held).session_start_info.hparams
    assert start["model"].string_value == "mlp"
    assert start["train.lr"].number_value == 0.001
    assert start["train.shuffle"].string_value == "True"  # a number in torch's own hands
    scores = json.loads((task.folder / "record.json").read_text())["scores"]
    for split in ("train", "validation", "test"):
        (event,) = found.Scalars(f"scores/{split}/accuracy")
        assert event.value == np.float32(scores[split]["accuracy"]["value"])


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not by tracing")
        return x.flatten(1)


def test_a_model_that_cannot_be_traced_costs_the_graph_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = tensorboard(tmp_path, {})
    with pytest.warns(Notice, match="no graph of this model, which cannot be traced: not by tracing"):
        tracker.log(Graph(Untraceable(), torch.zeros(1, 1, 2, 2)))
    tracker.log(Scalars("epoch", 1, {"loss": 0.5}))
    tracker.close()
    assert [event.value for event in read(tmp_path).Scalars("epoch/loss")] == [0.5]
    assert capfd.readouterr().out == ""


def test_graph_and_histograms_can_be_left_out(task_of: Callable[..., Task]) -> None:
    task = task_of("linear", epochs=1)
    task = replace(
        task, config=replace(task.config, track=[{"tensorboard": {"graph": False, "histograms": False}}])
    )
    stages.carry_out(task)
    tags = read(task.folder / "tensorboard").Tags()
    assert not tags["graph"]
    assert tags["histograms"] == []
    assert "epoch/loss" in tags["scalars"]
