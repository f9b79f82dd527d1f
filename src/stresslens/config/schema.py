"""A recipe: one way of training one model on one data set, every setting with its type, range and default."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from stresslens.config.selection import Select
from stresslens.core.ball import Norm
from stresslens.core.types import Natural, Seed

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
PluginValue = str | dict[str, Any]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Target = Literal["least_likely", "random"] | Annotated[int, Field(ge=0)]
"""Which class an attack drives an image to."""
Split = Literal["train", "validation", "test"]

EVALUATION_KEYS = ("robustness", "corruptions", "explain", "views", "track")
"""Keys of a recipe that say what is done with a trained model, or told of it: they change nothing
about its training."""

COMPUTE_KEYS = ("device", "precision", "threads", "memory_format")
"""Settings of `train` that the bits of any result depend on."""
ESTIMATOR_KEYS = (*COMPUTE_KEYS, "subset")
"""What of `train` an estimator goes by."""

MONITORING_KEYS = ("watch", "log_every", "evaluate_every")
"""Settings of `train` that say when training is looked at."""

RESUME_SAFE_KEYS = ("checkpoint_seconds",)
"""Settings of `train` that change neither weights nor metrics, so they may differ when a run goes on."""


@dataclass(config=STRICT)
class ChannelMoments:
    """Normalising by given channel means and deviations, on [0,1]."""

    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


@dataclass(config=STRICT)
class Input:
    """What happens to an image before the net: resizing to `size`, then normalising. `auto` is what
    the net's first weights were trained with; without any, images as they are and `standard`."""

    size: Positive | tuple[Positive, Positive] | Literal["auto"] | None = "auto"
    normalize: Literal["auto", "standard", "pixel_minmax", "none"] | ChannelMoments = "auto"
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"


@dataclass(config=STRICT)
class Stop:
    """Early stopping: when the last batch's loss changes by less than `loss_change` from one epoch
    to the next, or after `patience` evaluations without a better one."""

    loss_change: Annotated[float, Field(gt=0)] | None = None
    patience: Positive | None = None


@dataclass(config=STRICT)
class Subset:
    """So many of the training images; a larger subset with the same seed contains a smaller one."""

    images: Positive
    balanced: bool = True


@dataclass(config=STRICT)
class FineTune:
    """Which layers are trained: all, the head, gradually more from the head down (one block more
    after each `every` epochs), or the head alone as a linear probe, by the best of the `penalties`.
    `decay` is how much slower each block learns than the one behind it, `head_rate` how much faster
    the head; `batch_norm: keep` leaves its statistics as they came."""

    layers: Literal["all", "head", "gradual", "probe"] = "all"
    unfreeze_every: Positive = 1
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    head_lr_scale: Annotated[float, Field(gt=0)] = 1.0
    batch_norm: Literal["train", "keep"] = "train"
    penalties: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = field(
        default_factory=lambda: [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    )


@dataclass(config=STRICT)
class Train:
    """How a net is trained. Every option, its meaning and its default: docs/studies.md."""

    epochs: Natural = 10
    batch_size: Positive | Literal["full"] = 64
    replay: Positive = 1
    subset: Subset | None = None
    shuffle: bool = True
    lr: Annotated[float, Field(gt=0)] = 0.001
    optimizer: PluginValue = "adam"
    schedule: PluginValue = "constant"
    loss: PluginValue = "cross_entropy"
    objective: PluginValue = "supervised"
    augment: list[PluginValue] = field(default_factory=list)
    fine_tune: FineTune | None = None
    balance: Literal["none", "weights", "sampling"] = "none"
    accumulate: Positive = 1
    clip: Annotated[float, Field(gt=0)] | None = None
    ema: Share | None = None
    stop: Stop | None = None
    select: Select = "auto"
    watch: list[Split] = field(default_factory=lambda: ["validation"])
    log_every: Positive = 1
    evaluate_every: Positive = 1
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    threads: Positive | Literal["auto"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    checkpoint_seconds: Annotated[float, Field(gt=0, le=30)] = 30.0

    @property
    def probed(self) -> bool:
        """Whether a linear probe is fitted instead of training."""
        return self.fine_tune is not None and self.fine_tune.layers == "probe"


@dataclass(config=STRICT)
class IndividualAttack:
    """One attack by itself, at its own radii if it has any; `name` is what the report calls it."""

    attack: PluginValue
    name: str | None = None
    target: Target | None = None
    radii: str | list[float | str] | None = None


@dataclass(config=STRICT)
class Robustness:
    """How runs are attacked. `protocol` is the worst case over several attacks; `alone` are attacks
    with a curve of their own."""

    radii: str | float | list[float | str]
    norm: Norm = "linf"
    protocol: Literal["fast", "standard", "none"] | list[PluginValue] = "fast"
    individual_attacks: list[Annotated[IndividualAttack | PluginValue, Field(union_mode="left_to_right")]] = (
        field(default_factory=list)
    )
    images: Positive | Literal["all"] = 1000
    split: Literal["test", "validation"] = "test"
    seed: Seed = 0
    target: Target | None = None
    success: Literal["untargeted", "target"] = "untargeted"
    eot_samples: Positive | Literal["auto"] = "auto"
    bpda: list[str] = field(default_factory=list)
    surrogate: str | None = None
    audit: bool = True
    certificates: list[PluginValue] = field(default_factory=list)


@dataclass(config=STRICT)
class Corruptions:
    """How images are spoiled: each kind at five severities."""

    kinds: Annotated[list[PluginValue], Field(min_length=1)]
    images: Positive | Literal["all"] = 1000
    split: Literal["test", "validation"] = "test"
    seed: Seed = 0


Choice = Literal[
    "one_per_class",
    "random",
    "most_confident_correct",
    "most_confident_wrong",
    "least_confident",
    "confused_pairs",
]
TargetClass = Literal["predicted", "label"] | Annotated[int, Field(ge=0)]


@dataclass(config=STRICT)
class Explain:
    """Why a model answers as it does: maps over chosen images. `answer` is the class that is
    explained: the one predicted, the label, or one by number. `check` says what each map is
    worth."""

    explainers: Annotated[list[PluginValue], Field(min_length=1)]
    images: Positive = 10
    choose: Choice | list[int] | list[str] = "one_per_class"
    target_class: TargetClass = "predicted"
    split: Literal["test", "validation"] = "test"
    seed: Seed = 0
    check: bool = True


@dataclass(config=STRICT)
class Views:
    """What a model has learned: filters, activations, class images, … of chosen images where they
    are of images."""

    kinds: Annotated[list[PluginValue], Field(min_length=1)]
    images: Positive = 10
    choose: Choice | list[int] | list[str] = "one_per_class"
    split: Literal["test", "validation"] = "test"
    seed: Seed = 0


@dataclass(config=STRICT)
class VariantConfig:
    """One way of training one model on one data set, or of fitting an estimator to it; its seeds
    are its repeats."""

    data: PluginValue = "digits"
    model: PluginValue = "simple_cnn"
    estimator: PluginValue | None = None
    """In the model's place; then `model`, `input` and, but for `COMPUTE_KEYS`, `train` mean nothing."""
    input: Input = field(default_factory=Input)
    train: Train = field(default_factory=Train)
    robustness: Robustness | None = None
    corruptions: Annotated[list[PluginValue], Field(min_length=1)] | Corruptions | None = None
    explain: Annotated[list[PluginValue], Field(min_length=1)] | Explain | None = None
    views: Annotated[list[PluginValue], Field(min_length=1)] | Views | None = None
    track: list[PluginValue] | None = None
