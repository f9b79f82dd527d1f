"""Rollout of attention that is computed in other ways than softmax(q · k): the weights that the model
uses, or a refusal that says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.errors import ConfigError

WIDTH, HEADS, TOKENS, SIDE = 16, 2, 17, 16
DIM = WIDTH // HEADS


class Attention(nn.Module):
    """Attention that keeps the weights which it uses: `seen` (N, heads, T, T)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.qkv, self.out = kind, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(3 * torch.randn(TOKENS, TOKENS))
        self.angle = nn.Parameter(3 * torch.randn(TOKENS, DIM // 2))
        self.mix, self.memory = nn.Linear(HEADS, HEADS), nn.Parameter(torch.randn(1, HEADS, TOKENS, DIM))
        self.seen = torch.empty(0)

    def turned(self, t: Tensor) -> Tensor:
        a, b = t.chunk(2, -1)
        cos, sin = self.angle.cos(), self.angle.sin()
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        if self.kind == "rotary":
            q, k = self.turned(q), self.turned(k)
        if self.kind in ("normalised", "cosine"):
            q, k = (
                (F.layer_norm(t, (DIM,)) if self.kind == "normalised" else 3 * F.normalize(t, dim=-1))
                for t in (q, k)
            )
        if self.kind == "keys shifted":
            k = k.roll(1, 2)
        if self.kind == "heads crossed":
            k = k.flip(1)
        scores = q @ k.mT * (1.0 if self.kind == "unscaled" else DIM**-0.5)
        if self.kind == "position bias":
            scores = scores + self.bias
        if self.kind == "causal":
            scores = scores.masked_fill(torch.ones(TOKENS, TOKENS).triu(1).bool(), -torch.inf)
        if self.kind == "heads mixed before":
            scores = self.mix(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.kind == "sigmoid":
            return scores.sigmoid()
        weights = scores.softmax(-1)
        if self.kind == "heads mixed after":
            weights = self.mix(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.kind == "position gate":
            weights = 0.7 * weights + 0.3 * self.bias.softmax(-1)
        return weights

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.kind == "channels":
            return ((q.mT @ k).softmax(-1) @ v.mT).mT
        if self.kind == "linear":
            return q.softmax(-1) @ (k.softmax(-2).mT @ v)
        if self.kind == "other tokens":
            return (q @ self.memory.mT).softmax(-1) @ self.memory.expand_as(v)
        if self.kind == "fused":
            with torch.no_grad():
                self.seen = (q @ k.mT * 0.7 + self.bias).softmax(-1)
            return F.scaled_dot_product_attention(q, k, v, self.bias, scale=0.7)
        weights = self.weights(q, k)
        self.seen = weights.detach()
        if self.kind == "values shifted":
            return weights @ v.roll(1, 2)
        if self.kind == "einsum":
            return torch.einsum("nhij,nhjd->nhid", weights, v)
        if self.kind == "einsum, turned":
            return torch.einsum("nhjd,nhij->nhdi", v, weights).mT
        if self.kind == "bmm":
            return torch.bmm(weights.flatten(0, 1), v.flatten(0, 1)).view_as(v)
        if self.kind == "heads first":
            return (weights.transpose(0, 1) @ v.transpose(0, 1)).transpose(0, 1)
        if self.kind == "by hand":
            return (weights[..., None] * v[:, :, None]).sum(3)
        if self.kind == "of its own":
            result: Tensor = Product.apply(weights, v)  # type: ignore[no-untyped-call]
            return result
        return weights @ v

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, HEADS, DIM).permute(2, 0, 3, 1, 4)
        result: Tensor = self.out(self.mixed(q, k, v).transpose(1, 2).reshape(n, tokens, WIDTH))
        return result


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, v: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weights, v)
        return weights @ v

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        weights, v = ctx.saved_tensors
        return slope @ v.mT, weights.mT @ slope


class Net(nn.Module):
    """Two attentions, both residual; what stands between them is given."""

    def __init__(self, *kinds: str, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.token = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.attentions = nn.ModuleList(map(Attention, kinds))
        self.head, self.between = nn.Linear(WIDTH, 3), between

    def forward(self, x: Tensor) -> Tensor:
        patches = 9 * self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        for attention in self.attentions:
            tokens = tokens + attention(tokens)
            if self.between is not None:
                tokens = self.between(tokens)
        logits: Tensor = self.head(tokens[:, 0])
        return logits


def images(n: int = 3) -> Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def expected(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        net(x)
    mixed = torch.eye(TOKENS).expand(len(x), -1, -1)
    for attention in net.attentions:
        assert isinstance(attention, Attention)
        mixed = (0.5 * attention.seen.mean(1) + 0.5 * torch.eye(TOKENS)) @ mixed
    read = mixed[:, :1, 1:].reshape(len(x), 1, 4, 4)
    return F.interpolate(read, (SIDE, SIDE), mode="bilinear")[:, 0]


SEEN = ["plain", "rotary", "normalised", "cosine", "keys shifted", "heads crossed", "unscaled"]
SEEN += ["position bias", "causal", "heads mixed before", "position gate", "fused"]
SEEN += ["einsum", "einsum, turned", "bmm", "heads first"]


@pytest.mark.breadth(5)
@pytest.mark.parametrize("kind", SEEN)
def test_the_weights_are_those_that_the_model_uses(kind: str) -> None:
    net, x = Net(kind, kind).eval(), images()
    found = sl.explain(net, x, "rollout").maps
    assert found == pytest.approx(expected(net, x).numpy(), abs=1e-5)


REFUSED = {
    "heads mixed after": "heads mixed after the softmax",
    "sigmoid": "no attention with weights that add up to 1",
    "channels": "cannot be laid out|add up to 1",
    "linear": "add up to 1|cross attention",
    "other tokens": "no attention layers|add up to 1",
    "values shifted": "row by row",
    "by hand": "add up to 1",
    "of its own": "computed as one step",
}


@pytest.mark.breadth(5)
@pytest.mark.parametrize("other", ["", "plain"])
@pytest.mark.parametrize("kind", REFUSED)
def test_attention_that_is_not_over_all_tokens_is_refused(kind: str, other: str) -> None:
    """Alone, and behind an attention that is."""
    kinds = [kind] if not other else [other, kind]
    with pytest.raises(ConfigError, match="rollout: "):
        sl.explain(Net(*kinds).eval(), images(), "rollout")
    if not other:
        with pytest.raises(ConfigError, match=REFUSED[kind]):
            sl.explain(Net(*kinds).eval(), images(), "rollout")


def convolved(tokens: Tensor) -> Tensor:
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    return torch.cat([tokens[:, :1], F.avg_pool2d(patches, 3, 1, 1).flatten(2).transpose(1, 2)], 1)


@pytest.mark.parametrize(
    "between",
    [convolved, lambda tokens: tokens.roll(1, 1), lambda tokens: tokens + tokens.mean(1, keepdim=True)],
    ids=["convolved", "shifted", "averaged"],
)
def test_tokens_that_are_mixed_between_the_blocks_are_refused(between: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"those of the layer before|others in the next"):
        sl.explain(Net("plain", "plain", between=between).eval(), images(), "rollout")


def test_what_acts_on_each_token_alone_is_no_mixing() -> None:
    net, x = (
        Net("plain", "fused", between=lambda tokens: F.gelu(F.layer_norm(tokens, (WIDTH,)))).eval(),
        images(),
    )
    assert sl.explain(net, x, "rollout").maps == pytest.approx(expected(net, x).numpy(), abs=1e-5)


def test_one_image_or_many_give_the_same_map() -> None:
    net, x = Net("rotary", "plain").eval(), images(TOKENS)
    whole = sl.explain(net, x, "rollout").maps
    for k in (0, 16):
        assert sl.explain(net, x[k : k + 1], "rollout").maps == pytest.approx(whole[k : k + 1], abs=1e-6)
