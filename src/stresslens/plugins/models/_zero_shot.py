"""Zero-shot classification with CLIP: a model of open_clip that classifies among captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, first_line
from stresslens.core.extras import extra

CAPTIONS = 256
"""Number of captions that are encoded at once."""


def open_clip() -> ModuleType:
    with extra("clip", "the model openclip"):
        import open_clip as library

    return library  # type: ignore[no-any-return]


def _is_exporting() -> bool:
    """As torch.compiler.is_exporting, which torch 2.6 lacks."""
    asked: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return asked()


class ZeroShot(nn.Module):
    """Mix-in for open_clip's CLIP that makes it a classifier: images (N, C, H, W) → logits (N, K).

    Each class has a caption.
    """

    visual: nn.Module
    logit_scale: Tensor
    logit_bias: Tensor | None
    context_length: int
    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[Tensor], Tensor]
    architecture: str | None
    _captions: Tensor
    _encoded: tuple[Any, Tensor] | None

    def tell_apart(self, names: Sequence[str], templates: Sequence[str]) -> None:
        """Sets the classes to these names.

        Raises ConfigError for empty names, for captions that are longer than the text side reads or
        contain one of its special tokens, and for those that the tokenizer does not distinguish.
        """
        self.names = tuple(names)
        self._captions = self.captions(templates)
        self._encoded = None

    def captions(self, templates: Sequence[str]) -> Tensor:
        """(classes, templates, tokens) the tokens of the class names in these templates."""
        return _read(self.architecture, self.context_length, self.names, tuple(templates))

    def train(self, mode: bool = True) -> Self:
        if self.training:  # fused optimizers change weights without increasing their version
            self._encoded = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        of_text = self.text_features()  # first, so that the image tower's layers run last (see feature_layer)
        return self.similarity(F.normalize(self.encode_image(x), dim=-1), of_text)

    def similarity(self, of_images: Tensor, of_text: Tensor) -> Tensor:
        """(N, K) logits of normalised features (N, D) and (K, D).

        They are never in bfloat16, which is not precise enough.
        """
        with torch.autocast(of_images.device.type, enabled=False):
            image, text = (features.to(self.logit_scale.dtype) for features in (of_images, of_text))
            logits = self.logit_scale.exp() * image @ text.T
            return logits if self.logit_bias is None else logits + self.logit_bias

    def text_features(self) -> Tensor:
        """(K, D) features of the classes, cached as long as the text side's weights do not
        change."""
        weights = list(self._text_side())
        if self.training and any(p.requires_grad for p in weights):
            return self._encode()
        if self._encoded is not None and _is_exporting():
            return self._encoded[1]  # a constant of the graph
        state = [(p.data_ptr(), p._version, p.dtype, p.device) for p in weights]
        if self._encoded is None or self._encoded[0] != state:
            with torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
                self._encoded = state, self._encode()
        return self._encoded[1]

    def _encode(self) -> Tensor:
        classes, templates, _ = self._captions.shape
        tokens = self._captions.to(self.logit_scale.device).flatten(0, 1)
        features = torch.cat(
            [F.normalize(self._unpadded(part), dim=-1) for part in torch.split(tokens, CAPTIONS)]
        )
        return F.normalize(features.view(classes, templates, -1).mean(1), dim=-1)

    def _unpadded(self, tokens: Tensor) -> Tensor:
        """open_clip's `encode_text`; with causal attention, without the padding after the longest
        caption."""
        clip: Any = self
        causal = getattr(clip, "text_pool_type", None) == "argmax" and clip.attn_mask is not None
        if not causal or not isinstance(clip.text_projection, Tensor):
            return self.encode_text(tokens)
        last = tokens.argmax(-1)  # the end-of-text token has the highest number
        length = int(last.max()) + 1
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        read: Tensor = x[torch.arange(len(x), device=x.device), last] @ clip.text_projection
        return read

    def _text_side(self) -> Iterator[nn.Parameter]:
        yield from (
            p for name, p in self._parameters.items() if p is not None and not name.startswith("logit")
        )
        for name, part in self.named_children():
            if name != "visual":
                yield from part.parameters()


@lru_cache(maxsize=64)
def _read(
    architecture: str | None, context: int, names: tuple[str, ...], templates: tuple[str, ...]
) -> Tensor:
    without = [template for template in templates if "{}" not in template]
    if without:
        raise ConfigError(f"the template {without[0]!r} has no {{}} for the class's name")
    if empty := [k for k, name in enumerate(names) if not name.strip()]:
        raise ConfigError(
            f"a text side identifies classes by their names, and that of class {empty[0]} is empty; name it"
        )
    texts = [template.replace("{}", name) for name in names for template in templates]
    tokenizer = _tokenizer(architecture)
    _check_that_all_is_read(tokenizer, context, texts)
    with torch.device("cpu"):
        tokens: Tensor = tokenizer(texts, context_length=context).view(len(names), len(templates), context)
    first_with: dict[bytes, int] = {}
    for k, of_class in enumerate(tokens):
        other = first_with.setdefault(of_class.numpy().tobytes(), k)
        if other != k:
            raise ConfigError(
                f"the classes {names[other]!r} and {names[k]!r} are the same to the text side, "
                f"which ignores case; rename one of them"
            )
    return tokens


def _check_that_all_is_read(tokenizer: Callable[..., Tensor], context: int, captions: Sequence[str]) -> None:
    """Raises ConfigError for a caption that the tokenizer would cut, or that it would take to end
    earlier."""
    cleaned: Callable[[str], str] = getattr(tokenizer, "clean_fn", str)
    special = _special_tokens(tokenizer)
    for caption in captions:
        inside = [token for token in special if token in cleaned(caption).lower()]
        if inside:
            raise ConfigError(
                f"the caption {_short(caption)} contains {inside[0]}, which the text side takes as a mark of "
                "its own; write it without"
            )
    long = [caption for caption in captions if len(caption.encode()) + 3 > context]  # at most a token a byte
    if not long:
        return
    with torch.device("cpu"):
        whole = tokenizer(long, context_length=context + max(len(caption.encode()) for caption in long))
        padding = whole[:, -2:-1]
        used = (whole != padding) * torch.arange(1, whole.shape[1] + 1)
        lengths = used[:, :-1].amax(1) + (whole[:, -1] != padding[:, 0])  # some put a class token at the end
    for caption, length in zip(long, lengths.tolist()):
        if length > context:
            raise ConfigError(
                f"the caption {_short(caption)} has {length} tokens, and the text side reads {context}: it "
                "would be cut; shorten the class's name or the template"
            )


def _special_tokens(tokenizer: Any) -> list[str]:
    """The tokens of open_clip's or a Hugging Face tokenizer that are no text, in lower case."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if hasattr(inner, "all_special_tokens"):
        return [token.lower() for token in inner.all_special_tokens]
    return [inner.decoder[number] for number in inner.all_special_ids]


def _short(caption: str) -> str:
    return repr(caption if len(caption) <= 60 else f"{caption[:57]}…")


@cache
def _tokenizer(architecture: str | None) -> Callable[..., Tensor]:
    if architecture is None:
        return open_clip().tokenizer.SimpleTokenizer()  # type: ignore[no-any-return]
    try:
        return open_clip().get_tokenizer(architecture)  # type: ignore[no-any-return]
    except Exception as error:  # from other libraries, which may not be installed or try to download
        raise ConfigError(
            f"openclip: the tokenizer of {architecture} is not available: {first_line(error)}"
        ) from error
