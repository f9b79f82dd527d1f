"""The configuration schema of one variant: every setting with its type, range and default."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from stresslens.config.selection_rules import Select
from stresslens.core.ball import Norm
from stresslens.core.types import Count, Natural, Seed

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
PluginValue = str | dict[str, Any]
Positive = Count
Share = Annotated[float, Field(gt=0, lt=1)]
ClassName = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
"""A class by its name or its number (`core.class_names`)."""
Target = Literal["least_likely", "random"] | ClassName
"""The target class of an attack."""
Split = Literal["train", "validation", "test"]

EVALUATION_KEYS = ("robustness", "corruptions", "explain", "views", "track")
"""Sections about a trained model: its evaluation and its trackers. They do not change the
training."""

COMPUTE_KEYS = ("device", "precision", "threads", "memory_format")
"""Settings of `train` that the exact bits of any result depend on."""
ESTIMATOR_KEYS = (*COMPUTE_KEYS, "subset")
"""Keys of `train` that also apply to estimators."""

MONITORING_KEYS = ("watch", "log_every", "evaluate_every")
"""Settings of `train` that say when metrics are computed and logged."""

RESUME_SAFE_KEYS = ("checkpoint_seconds",)
"""Settings of `train` that change neither weights nor metrics, so they may differ when a run
resumes."""


@dataclass(config=STRICT)
class ChannelMoments:
    """Normalisation by given means and standard deviations of the channels, of images in [0, 1]."""

    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


@dataclass(config=STRICT)
class Input:
    """Preprocessing of an image before the net: resizing to `size` in pixels, then normalisation.

    `auto` is the preprocessing of the pretrained weights. Without pretrained weights it means no
    resizing, and the normalisation `standard`.
    """

    size: Positive | tuple[Positive, Positive] | Literal["auto"] | None = "auto"
    normalize: Literal["auto", "standard", "pixel_minmax", "none"] | ChannelMoments = "auto"
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"


@dataclass(config=STRICT)
class Stop:
    """Early stopping: when the loss of the last batch changes by less than `loss_change` from one
    epoch to the next, or after `patience` evaluations without an improvement."""

    loss_change: Annotated[float, Field(gt=0)] | None = None
    patience: Positive | None = None


@dataclass(config=STRICT)
class Subset:
    """A random subset of the training images. With the same seed, a larger subset contains a
    smaller one."""

    images: Positive
    balanced: bool = True


@dataclass(config=STRICT)
class FineTune:
    """Fine-tuning: which layers are trained.

    `all` trains every layer, `head` only the head. `gradual` starts with the head and unfreezes one
    more block after every `unfreeze_every` epochs, from the head down. `probe` fits the head as a
    linear probe, with the best of the `penalties`. `layer_decay` is the learning rate of a block
    divided by that of the next block towards the head. `head_lr_scale` multiplies the learning rate
    of the head. `batch_norm: keep` does not change the running statistics.
    """

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
    """The training of a net. docs/studies.md explains every option and its default."""

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
        """Whether a linear probe is fitted instead of a training by gradient descent."""
        return self.fine_tune is not None and self.fine_tune.layers == "probe"


@dataclass(config=STRICT)
class IndividualAttack:
    """One attack that is measured on its own, at its own radii if it has any. `name` is its
    label in the report."""

    attack: PluginValue
    name: str | None = None
    target: Target | None = None
    radii: str | list[float | str] | None = None


@dataclass(config=STRICT)
class Robustness:
    """How the trained models are attacked. `protocol` gives the worst case over several attacks;
    each of the `individual_attacks` has its own curve."""

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
    """Corruptions of the images, each kind at five severities."""

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
TargetClass = Literal["predicted", "label"] | ClassName


@dataclass(config=STRICT)
class Explain:
    """Attribution maps of selected images. `target_class` is the class that they explain: the
    predicted class, the label, or a class by its name or number. `check` measures the quality of
    each map. `auto` is ten images and all checks, fewer for a large net (`explanation.plan`)."""

    explainers: Annotated[list[PluginValue], Field(min_length=1)]
    images: Positive | Literal["auto"] = "auto"
    choose: Choice | list[int] | list[str] = "one_per_class"
    target_class: TargetClass = "predicted"
    split: Literal["test", "validation"] = "test"
    seed: Seed = 0
    check: bool | Literal["auto"] = "auto"


@dataclass(config=STRICT)
class Views:
    """Feature visualisations of a model: filters, activations, class images, … `images` and
    `choose` select images for the kinds that need some."""

    kinds: Annotated[list[PluginValue], Field(min_length=1)]
    images: Positive = 10
    choose: Choice | list[int] | list[str] = "one_per_class"
    split: Literal["test", "validation"] = "test"
    seed: Seed = 0


@dataclass(config=STRICT)
class VariantConfig:
    """The configuration of a variant: one way to train one model, or to fit one estimator, on one
    data set. Each seed of it is a run."""

    data: PluginValue = "digits"
    model: PluginValue = "simple_cnn"
    estimator: PluginValue | None = None
    """An estimator instead of the model. Then `model` and `input` have no effect, and of `train`
    only `ESTIMATOR_KEYS` do."""
    input: Input = field(default_factory=Input)
    train: Train = field(default_factory=Train)
    robustness: Robustness | None = None
    corruptions: Annotated[list[PluginValue], Field(min_length=1)] | Corruptions | None = None
    explain: Annotated[list[PluginValue], Field(min_length=1)] | Explain | None = None
    views: Annotated[list[PluginValue], Field(min_length=1)] | Views | None = None
    track: list[PluginValue] | None = None
