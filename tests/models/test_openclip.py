"""CLIP as a classifier: against open_clip itself, what is encoded when, where weights come from, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens import find, stages
from stresslens.building import Task, begin, build_model, open_model, origin_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.layers import evaluating, quick
from stresslens.core.results import RunFolder, read_json
from stresslens.models._zero_shot import open_clip

NAMES = ("cat", "red dog", "ship", "aeroplane")
SHAPE = (3, 12, 12)
TINY = {"embed": 12, "image": {"width": 16, "layers": 2}, "text": {"width": 16, "layers": 2}}
RESNET = {"embed": 12, "image": {"width": 4, "layers": [1, 1, 1, 1]}, "text": {"width": 16, "layers": 1}}


def net_of(shape: tuple[int, int, int] = SHAPE, names: tuple[str, ...] = NAMES, **options: Any) -> Any:
    options = options if "name" in options else {"layout": TINY, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return find.resolve("models", {"openclip": options})(shape, len(names), names, None)


def images(n: int = 5, shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def library(net: Any, layout: dict[str, Any], side: int) -> Any:
    """open_clip's own CLIP with the same weights, which have the same names."""
    image, text = ({**{"heads": 2}, **layout[tower]} for tower in ("image", "text"))
    width = 32 * image["width"] if isinstance(image["layers"], list) else image["width"]
    theirs = open_clip().model.CLIP(
        layout["embed"],
        {"image_size": side, "width": image["width"], "layers": image["layers"], "patch_size": 4, "head_width": width // 2},
        {"context_length": 16, "width": text["width"], "heads": 2, "layers": text["layers"]},
    )
    theirs.load_state_dict(net.state_dict())
    return theirs.eval()


# --- against open_clip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "side"), [(TINY, 12), (RESNET, 32)], ids=["vit", "resnet"])
def test_logits_are_open_clips(layout: dict[str, Any], side: int) -> None:
    net = net_of((3, side, side), layout=layout).eval()
    tokens = open_clip().tokenizer.SimpleTokenizer()([f"a photo of a {name}." for name in NAMES], context_length=16)
    x = images(shape=(3, side, side))
    with torch.no_grad():
        expected, _ = library(net, layout, side).get_logits(x, tokens)
        assert torch.allclose(net(x), expected, atol=1e-5)


def test_several_templates_are_averaged_as_open_clip_does() -> None:
    templates = ["a photo of a {}.", "the {}", "{}, drawn"]
    net = net_of(templates=templates).eval()
    fill = [lambda name, t=template: t.replace("{}", name) for template in templates]
    theirs = library(net, TINY, 12)
    tokenizer = open_clip().tokenizer.SimpleTokenizer(context_length=16)
    expected = open_clip().build_zero_shot_classifier(theirs, tokenizer, list(NAMES), fill, num_classes_per_batch=2)
    with torch.no_grad():
        assert torch.allclose(net.text_features().T, expected, atol=1e-6)


def test_captions_are_encoded_without_their_padding() -> None:
    """Short and long ones together, and one that fills all tokens: as open_clip encodes them."""
    names = ("a", "a very much longer name of a thing", "word " * 20 + "cut short")
    net = net_of(names=names).eval()
    with torch.no_grad():
        for part in (net._captions[:1], net._captions[:2], net._captions):
            assert torch.allclose(net._unpadded(part[:, 0]), net.encode_text(part[:, 0]), atol=1e-5)


def test_a_text_tower_of_its_own_kind_is_open_clips_as_well() -> None:
    """CustomTextCLIP, of which EVA02's smallest is one, has its text side in a module of its own."""
    with torch.device("meta"):
        net = net_of((3, 224, 224), name="EVA02-B-16")
    assert {"text.token_embedding.weight", "text.text_projection"} <= set(net.state_dict())
    assert len(list(net._text_side())) == sum(1 for name, _ in net.named_parameters() if name.startswith("text."))


def test_many_captions_are_encoded_in_parts() -> None:
    names = tuple(f"thing number {k}" for k in range(300))
    net, few = net_of(names=names).eval(), net_of(names=names[280:]).eval()
    with torch.no_grad():
        assert torch.allclose(net.text_features()[280:], few.text_features(), atol=1e-6)


# --- what is encoded when ---------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    net, calls = net_of().eval(), []
    encode = type(net)._encode
    monkeypatch.setattr(type(net), "_encode", lambda self: calls.append(1) or encode(self))
    return net, calls


def test_the_text_side_is_encoded_once(counted: tuple[Any, list[int]]) -> None:
    net, calls = counted
    for _ in range(3):
        net(images())
        with evaluating(net), torch.no_grad():
            net(images(2))
    assert len(calls) == 1


def fused_step(net: Any) -> None:
    net.train()
    net(images()).sum().backward()
    torch.optim.AdamW(net.parameters(), 0.1, fused=True).step()
    net.eval()


def in_place(net: Any) -> None:
    with torch.no_grad():
        net.token_embedding.weight.mul_(-1)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": in_place,
    "a fused optimizer": fused_step,
    "other weights": lambda net: net.load_state_dict({k: v + 0.1 for k, v in net.state_dict().items()}),
    "another type": lambda net: net.double(),
    "other classes": lambda net: net.tell_apart(["frog", *NAMES[1:]], ["{}"]),
}


@pytest.mark.parametrize("how", CHANGES)
def test_it_is_encoded_again_when_it_has_changed(how: str) -> None:
    net = net_of().eval()
    before = net.text_features()
    CHANGES[how](net)
    after = net.text_features()
    assert torch.equal(after, net._encode())
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_a_copy_has_its_own() -> None:
    net = net_of().eval()
    before = net.text_features()
    other = copy.deepcopy(net)
    in_place(other)
    assert not torch.equal(other.text_features(), before)
    assert net.text_features() is before


def test_images_have_gradients_and_in_evaluation_text_has_none() -> None:
    net = net_of().double().eval()
    x = images(2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,), fast_mode=True)
    net(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert net.token_embedding.weight.grad is None
    net.train()(x).sum().backward()
    assert float(net.token_embedding.weight.grad.abs().sum()) > 0


def test_the_attentions_fast_path_gives_the_same() -> None:
    """Without a graph torch may take another path through its attention."""
    net, x = net_of().eval(), images()
    with torch.no_grad():
        fast = net(x)
    assert torch.allclose(net(x), fast, atol=1e-5)


def test_bfloat16_reaches_neither_captions_nor_cosines() -> None:
    net, other = net_of().eval(), net_of().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found, logits = net.text_features(), net(images())
    assert torch.equal(found, other.text_features())
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("layout", [TINY, RESNET], ids=["vit", "resnet"])
def test_quicker_ways_give_the_same(layout: dict[str, Any]) -> None:
    net = net_of((3, 32, 32), layout=layout).eval()
    x = images(shape=(3, 32, 32))
    with torch.no_grad():
        assert torch.allclose(quick(net)(x), net(x), atol=1e-5)


# --- batch norm -------------------------------------------------------------------------------------------------------


def trained(evaluation: str) -> Any:
    """With running statistics that are not those of its next batch."""
    net = net_of((3, 32, 32), layout=RESNET, evaluation=evaluation)
    for _ in range(3):
        net.train()(images(8, (3, 32, 32)) ** 2)
    return net


def test_batch_statistics_do_not_leak_into_evaluation() -> None:
    net, x = trained("running").eval(), images(6, (3, 32, 32))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        whole = net(x)
        alone = torch.cat([net(x[k : k + 1]) for k in range(6)])
    assert torch.allclose(whole, alone, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_labs_mistake_can_be_measured() -> None:
    """In evaluation the logits of a net left in training mode, though nothing of the batch stays."""
    right, wrong, x = trained("running"), trained("batch"), images(6, (3, 32, 32))
    assert wrong.state_dict().keys() == right.state_dict().keys()
    with torch.no_grad():
        kept = {name: value.clone() for name, value in wrong.eval().state_dict().items()}
        found = wrong(x)
        assert all(torch.equal(value, kept[name]) for name, value in wrong.state_dict().items())
        assert torch.allclose(found, right.train()(x), atol=1e-4)
        assert not torch.allclose(found[:3], wrong(x[:3]), atol=1e-2)


# --- QuickGELU --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "quick"),
    [
        ({"name": "ViT-B-32", "weights": "openai"}, True),
        ({"name": "RN50", "weights": "openai"}, True),
        ({"name": "ViT-B-32", "weights": "openai", "quick_gelu": False}, False),
        ({"name": "ViT-B-32", "weights": "laion2b_s34b_b79k"}, False),
        ({"name": "ViT-B-32", "weights": "laion2b_s34b_b79k", "quick_gelu": True}, True),
        ({"name": "ViT-B-32"}, False),
        ({"name": "ViT-B-32-quickgelu"}, True),
        ({"name": "ViT-B-32-quickgelu", "weights": {"file": "x.pt"}}, True),
        ({"name": "ViT-B-32", "weights": {"file": "x.pt"}, "quick_gelu": True}, True),
        ({"layout": TINY}, False),
        ({"layout": TINY, "weights": {"file": "x.pt"}}, False),
        ({"layout": TINY, "quick_gelu": True}, True),
    ],
    ids=str,
)
def test_the_activation_is_the_one_the_weights_were_trained_with(options: dict[str, Any], quick: bool) -> None:
    with torch.device("meta"):
        net = net_of((3, 224, 224) if "name" in options else SHAPE, **options)
    kinds = {type(module) for module in net.modules()}
    assert (open_clip().transformer.QuickGELU in kinds) == quick
    assert (nn.GELU in kinds) != quick


# --- other images and heads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("layout", [TINY, RESNET], ids=["vit", "resnet"])
def test_images_of_any_channels(channels: int, layout: dict[str, Any]) -> None:
    shape = (channels, 32, 32)
    assert net_of(shape, layout=layout).eval()(images(2, shape)).shape == (2, 4)


def test_the_linear_head_is_the_image_tower_and_one_layer() -> None:
    text, linear = net_of().eval(), net_of(head="linear").eval()
    theirs = text.state_dict()
    assert set(linear.state_dict()) == {name for name in theirs if name.startswith("visual.")} | {"head.weight", "head.bias"}
    x = images()
    linear.load_state_dict({**linear.state_dict(), **{k: v for k, v in theirs.items() if k in linear.state_dict()}})
    with torch.no_grad():
        assert torch.allclose(linear(x), F.linear(text.encode_image(x), linear.head.weight, linear.head.bias), atol=1e-6)


def test_repeated_names_are_nothing_to_a_linear_head() -> None:
    assert net_of(names=("cat", "cat"), head="linear")(images(2)).shape == (2, 2)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": ("cat", "cat")}, "'cat' and 'cat' are the same"),
        ({"names": ("Cat", "dog", "cat")}, "'Cat' and 'cat' are the same to the text side, which ignores case"),
        ({"names": ("cat", " ")}, "class 1 is empty"),
        ({"names": tuple("very " * 20 + name for name in NAMES)}, "reads 16 tokens"),
        ({"templates": ["a photo"]}, "'a photo' has no {}"),
        ({"templates": []}, "at least 1"),
        ({"name": "ViT-B-32", "layout": TINY}, "either the name"),
        ({"name": "ViT-B-23"}, "did you mean 'ViT-B-32'"),
        ({"name": "coca_ViT-B-32"}, "CoCa"),
        ({"name": "ViT-B-32", "weights": "opnai"}, "did you mean 'openai'"),
        ({"name": "ViT-B-32", "weights": {"file": "x.pt"}}, "say quick_gelu: true or false"),
        ({"layout": {"image": {"width": 10, "heads": 4}}}, "4 heads do not divide the image tower's width of 10"),
        ({"layout": {"text": {"width": 10, "heads": 4}}}, "the text tower's width of 10"),
        ({"layout": {"text": {"context": 2}}}, "layout"),
        ({"layout": {"images": {}}}, "layout"),
        ({"evaluation": "batch"}, "which this image tower has none of"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        net_of(**options)
    assert says in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 32, 64)], ids=str)
def test_the_resnet_says_which_images_it_takes(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"got {shape[1]}×{shape[2]}"):
        net_of(shape, layout=RESNET)


# --- weights ----------------------------------------------------------------------------------------------------------


def asked(options: dict[str, Any]) -> Any:
    bound = find.weights({"openclip": options})
    assert isinstance(bound, find.Bound)
    return bound()


def test_how_images_are_prepared_is_known_without_a_download() -> None:
    found = asked({"name": "ViT-B-16-SigLIP-256", "weights": "webli"}).preprocessing
    assert (found.shape, found.interpolation) == ((3, 256, 256), "bicubic")
    assert torch.allclose(found.normalize(torch.ones(3, 1, 1)), torch.ones(3, 1, 1))
    openai = asked({"name": "RN50", "weights": "openai"}).preprocessing
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip().OPENAI_DATASET_MEAN, open_clip().OPENAI_DATASET_STD))
    x = images(1, (3, 4, 4))
    assert openai.shape == (3, 224, 224)
    assert torch.allclose(openai.normalize(x), (x - mean) / std, atol=1e-5)
    assert asked({"layout": TINY}) is None


def test_weights_without_a_name_and_with_a_wrong_tag() -> None:
    with pytest.raises(ConfigError, match="of an architecture by name"):
        asked({"weights": "openai"})
    with pytest.raises(ConfigError, match="publishes no weights 'openay' for RN50; did you mean 'openai'"):
        asked({"name": "RN50", "weights": "openay"})


def hub_cache(home: Path, monkeypatch: pytest.MonkeyPatch, repository: str) -> Path:
    """Where huggingface_hub, without a network, looks for the files of a repository."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = home / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    return folder / "snapshots" / "0123"


def test_weights_that_cannot_be_had_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_cache(tmp_path, monkeypatch, "nobody/nothing")
    with pytest.raises(DataError) as caught:
        asked({"name": "ViT-B-32", "weights": "openai"}).load()
    says = str(caught.value)
    for part in ("ViT-B-32 openai", "open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai", "{file: PATH}"):
        assert part in says


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04" + b"x" * 5000], ids=["empty", "a page", "half"])
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, file: str) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(content)
    (hub_cache(tmp_path / "hub", monkeypatch, "timm/vit_base_patch32_clip_224.openai") / file).symlink_to(blob)
    with pytest.raises(DataError, match="remove it, and it is fetched anew") as caught:
        asked({"name": "ViT-B-32", "weights": "openai"}).load()
    assert str(blob) in str(caught.value)


def test_a_file_of_weights_is_taken_whole(task_of: Callable[..., Task], tmp_path: Path) -> None:
    """A run is saved under open_clip's names, and another begins with it, with another template and other classes."""
    task = task_of({"openclip": {"layout": TINY}}, epochs=1)
    record = stages.carry_out(task)
    assert record["training"]["steps"] > 0
    file = tmp_path / "clip.safetensors"
    state = safetensors.torch.load_file(RunFolder(task.folder).weights)
    safetensors.torch.save_file(state, file)
    options = {"layout": TINY, "weights": {"file": str(file)}, "templates": ["{}", "the digit {}"]}
    again = task_of({"openclip": options}, epochs=0, folder=tmp_path / "again" / "seed-0")
    record = stages.carry_out(again)
    assert record["weights"]["used"] == len(state)
    assert not record["weights"]["fresh"]
    assert not record["weights"]["left"]
    opened = open_model(RunFolder(again.folder)).state_dict()
    assert all(torch.equal(opened[f"net.{name}"], value) for name, value in state.items())
    assert read_json(again.folder / "model.json")["model"]["openclip"]["templates"] == ["{}", "the digit {}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "repository"),
    [("ViT-B-32", "timm/vit_base_patch32_clip_224.openai"), ("RN50", "timm/resnet50_clip.openai")],
)
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("head", ["text", "linear"])
def test_published_weights_are_read_through_the_hubs_cache(
    name: str, repository: str, file: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_of: Callable[..., Task]
) -> None:
    """Random weights in the layout of the published file, where huggingface_hub would have left it."""
    snapshot = hub_cache(tmp_path / "hub", monkeypatch, repository)
    torch.manual_seed(1)
    state = open_clip().create_model(f"{name}-quickgelu").state_dict()
    if file.endswith(".bin"):
        torch.save(state, snapshot / file)
    else:
        safetensors.torch.save_file(state, snapshot / file)
    task = task_of({"openclip": {"name": name, "weights": "openai", "head": head}}, epochs=0)
    assert task.data is not None
    model = build_model(task, task.data)
    account = begin(task, task.data, model)
    assert account is not None
    assert not account.adapted
    net = model.get_submodule("net")
    if head == "text":
        assert len(account.used) == len(state)
        assert not account.fresh
        assert not account.left
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    else:
        assert set(account.fresh) == {"head.weight", "head.bias"}
        assert all(not key.startswith("visual.") for key in account.left)
    assert origin_of(task).preprocessing.shape == (3, 224, 224)  # type: ignore[union-attr]


def test_two_captions_are_not_taken_for_two_images() -> None:
    from stresslens.core.tapping import feature_layer

    resnet = {"embed": 16, "image": {"width": 16, "layers": [1, 1, 1, 1], "heads": 8}, "text": {"width": 16, "layers": 1}}
    net = find.resolve("models", {"openclip": {"layout": resnet}})((3, 32, 32), 2, ["cat", "dog"], None)
    assert feature_layer(net, (3, 32, 32))[0] is net  # no linear layer of the image tower, and none of the text's
