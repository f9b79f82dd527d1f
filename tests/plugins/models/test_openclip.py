"""CLIP as a classifier: against open_clip itself, what is encoded when, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.copies import quick
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import evaluating
from stresslens.plugins.models._zero_shot import _check_that_all_is_read, open_clip

NAMES = ("cat", "red dog", "ship", "aeroplane")
SHAPE = (3, 12, 12)
TINY = {"embed": 12, "image": {"width": 16, "layers": 2}, "text": {"width": 16, "layers": 2}}
RESNET = {"embed": 12, "image": {"width": 4, "layers": [1, 1, 1, 1]}, "text": {"width": 16, "layers": 1}}


def net_of(shape: tuple[int, int, int] = SHAPE, names: tuple[str, ...] = NAMES, **options: Any) -> Any:
    options = options if "name" in options else {"layout": TINY, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return registry.resolve("models", {"openclip": options})(shape=shape, classes=len(names), names=names)


def images(n: int = 5, shape: tuple[int, int, int] = SHAPE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def library(net: Any, layout: dict[str, Any], side: int) -> Any:
    """open_clip's own CLIP with the same weights, which have the same names."""
    image, text = ({**{"heads": 2}, **layout[tower]} for tower in ("image", "text"))
    width = 32 * image["width"] if isinstance(image["layers"], list) else image["width"]
    theirs = open_clip().model.CLIP(
        layout["embed"],
        {
            "image_size": side,
            "width": image["width"],
            "layers": image["layers"],
            "patch_size": 4,
            "head_width": width // 2,
        },
        {"context_length": 16, "width": text["width"], "heads": 2, "layers": text["layers"]},
    )
    theirs.load_state_dict(net.state_dict())
    return theirs.eval()


# --- against open_clip --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "side"), [(TINY, 12), (RESNET, 32)], ids=["vit", "resnet"])
def test_logits_are_open_clips(layout: dict[str, Any], side: int) -> None:
    net = net_of((3, side, side), layout=layout).eval()
    tokens = open_clip().tokenizer.SimpleTokenizer()(
        [f"a photo of a {name}." for name in NAMES], context_length=16
    )
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
    expected = open_clip().build_zero_shot_classifier(
        theirs, tokenizer, list(NAMES), fill, num_classes_per_batch=2
    )
    with torch.no_grad():
        assert torch.allclose(net.text_features().T, expected, atol=1e-6)


def test_captions_are_encoded_without_their_padding() -> None:
    """Short and long ones together, and one that fills all tokens: as open_clip encodes them."""
    names = ("a", "a very much longer name of a thing", "word " * 8 + "last")
    net = net_of(names=names).eval()
    with torch.no_grad():
        for part in (net._captions[:1], net._captions[:2], net._captions):
            assert torch.allclose(net._unpadded(part[:, 0]), net.encode_text(part[:, 0]), atol=1e-5)


def test_a_text_tower_of_its_own_kind_is_open_clips_as_well() -> None:
    """CustomTextCLIP, of which EVA02's smallest is one, has its text side in a module of its own."""
    with torch.device("meta"):
        net = net_of((3, 224, 224), name="EVA02-B-16")
    assert {"text.token_embedding.weight", "text.text_projection"} <= set(net.state_dict())
    assert len(list(net._text_side())) == sum(
        1 for name, _ in net.named_parameters() if name.startswith("text.")
    )


def test_many_captions_are_encoded_in_parts() -> None:
    names = tuple(f"thing number {k}" for k in range(300))
    net, few = net_of(names=names).eval(), net_of(names=names[280:]).eval()
    with torch.no_grad():
        assert torch.allclose(net.text_features()[280:], few.text_features(), atol=1e-6)


# --- what is encoded when -----------------------------------------------------------------------------------


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
        assert torch.allclose(quick(net, x)(x), net(x), atol=1e-5)


# --- batch norm ---------------------------------------------------------------------------------------------


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


# --- QuickGELU ----------------------------------------------------------------------------------------------


@pytest.mark.breadth(4)
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
def test_the_activation_is_the_one_the_weights_were_trained_with(
    options: dict[str, Any], quick: bool
) -> None:
    with torch.device("meta"):
        net = net_of((3, 224, 224) if "name" in options else SHAPE, **options)
    kinds = {type(module) for module in net.modules()}
    assert (open_clip().transformer.QuickGELU in kinds) == quick
    assert (nn.GELU in kinds) != quick


# --- other images and heads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("layout", [TINY, RESNET], ids=["vit", "resnet"])
def test_images_of_any_channels(channels: int, layout: dict[str, Any]) -> None:
    shape = (channels, 32, 32)
    assert net_of(shape, layout=layout).eval()(images(2, shape)).shape == (2, 4)


def test_the_linear_head_is_the_image_tower_and_one_layer() -> None:
    text, linear = net_of().eval(), net_of(head="linear").eval()
    theirs = text.state_dict()
    assert set(linear.state_dict()) == {name for name in theirs if name.startswith("visual.")} | {
        "head.weight",
        "head.bias",
    }
    x = images()
    linear.load_state_dict(
        {**linear.state_dict(), **{k: v for k, v in theirs.items() if k in linear.state_dict()}}
    )
    with torch.no_grad():
        assert torch.allclose(
            linear(x), F.linear(text.encode_image(x), linear.head.weight, linear.head.bias), atol=1e-6
        )


def test_repeated_names_are_nothing_to_a_linear_head() -> None:
    assert net_of(names=("cat", "cat"), head="linear")(images(2)).shape == (2, 2)


class Hugging:
    """Pads with 1 and, as some tokenizers of Hugging Face, puts a class token at the very end."""

    all_special_tokens = ("[CLS]", "[PAD]")

    def __call__(self, captions: list[str], context_length: int) -> Tensor:
        words = [[9, *(10 + len(word) for word in caption.split()), 8] for caption in captions]
        rows = [[*(row + [1] * context_length)[: context_length - 1], 7] for row in words]
        return torch.tensor(rows)


def test_other_tokenizers_are_checked_as_well() -> None:
    _check_that_all_is_read(Hugging(), 8, ["a b c d e", "and so on"])
    with pytest.raises(ConfigError, match="has 9 tokens, and the text side reads 8"):
        _check_that_all_is_read(Hugging(), 8, ["and so on", "a b c d e f"])
    with pytest.raises(ConfigError, match=r"contains \[cls\]"):
        _check_that_all_is_read(Hugging(), 8, ["a [CLS] b"])


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": ("cat", "cat")}, "'cat' and 'cat' are the same"),
        (
            {"names": ("Cat", "dog", "cat")},
            "'Cat' and 'cat' are the same to the text side, which ignores case",
        ),
        ({"names": ("cat", " ")}, "class 1 is empty"),
        (
            {"names": tuple("very " * 20 + name for name in NAMES)},
            "has 28 tokens, and the text side reads 16",
        ),
        ({"names": ("cat", "dog " + "very " * 9)}, "has 17 tokens"),
        ({"templates": ["a {}", "word " * 14 + "{}"]}, "has 17 tokens"),
        ({"names": ("cat", "dog <End_of_text> b")}, "contains <end_of_text>"),
        ({"names": ("cat", "dog &lt;start_of_text&gt;")}, "contains <start_of_text>"),
        ({"templates": ["a photo"]}, "'a photo' has no {}"),
        ({"templates": []}, "at least 1"),
        ({"name": "ViT-B-32", "layout": TINY}, "either the name"),
        ({"name": "ViT-B-23"}, "did you mean 'ViT-B-32'"),
        ({"name": "coca_ViT-B-32"}, "CoCa"),
        ({"name": "ViT-B-32", "weights": "opnai"}, "did you mean 'openai'"),
        ({"name": "ViT-B-32", "weights": {"file": "x.pt"}}, "set quick_gelu: true or false"),
        (
            {"layout": {"image": {"width": 10, "heads": 4}}},
            "4 heads do not divide the image tower's width of 10",
        ),
        ({"layout": {"text": {"width": 10, "heads": 4}}}, "the text tower's width of 10"),
        ({"layout": {"text": {"context": 2}}}, "layout"),
        ({"layout": {"images": {}}}, "layout"),
        ({"evaluation": "batch"}, "this image tower has none"),
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


def test_two_captions_are_not_taken_for_two_images() -> None:
    from stresslens.core.inspection import feature_layer

    resnet = {
        "embed": 16,
        "image": {"width": 16, "layers": [1, 1, 1, 1], "heads": 8},
        "text": {"width": 16, "layers": 1},
    }
    net = registry.resolve("models", {"openclip": {"layout": resnet}})(
        shape=(3, 32, 32), classes=2, names=["cat", "dog"]
    )
    assert (
        feature_layer(net, (3, 32, 32))[0] is net
    )  # no linear layer of the image tower, and none of the text's
