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

LATER_SETTINGS: dict[tuple[str, ...], Any] = {
    ("input", "crop"): "auto",
    ("evaluation",): None,
    ("train", "calibration"): None,
    ("train", "swa"): None,
    ("train", "compile"): False,
    ("train", "recompute"): "auto",
    ("train", "stack"): False,
}
"""Settings that earlier versions did not have, which are left out of config.yaml and of fingerprints
where they have this default."""

EVALUATION_KEYS = ("evaluation", "robustness", "corruptions", "explain", "views", "track")
"""Sections about a trained model: its evaluation and its trackers. They do not change the
training."""

LATER_COMPUTE_KEYS = ("compile", "recompute")
"""Settings of `COMPUTE_KEYS` that earlier versions did not have. A run records them where they are on."""
COMPUTE_KEYS = ("device", "precision", "threads", "memory_format", *LATER_COMPUTE_KEYS)
"""Settings of `train` that the exact bits of any result depend on."""
ESTIMATOR_KEYS = ("device", "precision", "threads", "memory_format", "subset", "calibration")
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
    """One mean for each channel."""
    std: list[Annotated[float, Field(gt=0)]]
    """One standard deviation for each channel."""


@dataclass(config=STRICT)
class Input:
    """Preprocessing of an image before the net: resizing, centre crop, then normalisation.

    `auto` is the preprocessing of the pretrained weights. Without pretrained weights it means no
    resizing, and the normalisation `standard`. If training shows random crops of another size
    (`random_resized_crop: {size: 24}`), `auto` is that size, and the middle of the image.
    """

    size: Positive | tuple[Positive, Positive] | Literal["auto"] | None = "auto"
    """Height and width in pixels, or one number for both; none leaves images as they are."""
    normalize: Literal["auto", "standard", "pixel_minmax", "none"] | ChannelMoments = "auto"
    """How the values of the channels are normalised."""
    interpolation: Literal["auto", "bilinear", "bicubic"] = "auto"
    """How images are resized."""
    crop: Literal["auto", "none", "weights"] | Annotated[float, Field(gt=0, le=1)] = "auto"
    """The share of the shorter side that the net sees, from the middle: 0.875 resizes to 256 and
    crops 224. `none` resizes the whole image, `weights` is the share of the published weights."""


@dataclass(config=STRICT)
class Stop:
    """Early stopping: when the loss of the last batch changes by less than `loss_change` from one
    epoch to the next, or after `patience` evaluations without an improvement."""

    loss_change: Annotated[float, Field(gt=0)] | None = None
    """Stops below this change of the last batch's loss between two epochs."""
    patience: Positive | None = None
    """Stops after so many evaluations without an improvement."""


@dataclass(config=STRICT)
class Subset:
    """A random subset of the training images. With the same seed, a larger subset contains a
    smaller one."""

    images: Positive
    """Number of training images."""
    balanced: bool = True
    """The same number of each class, as far as there are enough."""


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
    """Which layers are trained."""
    unfreeze_every: Positive = 1
    """Epochs before one more block is trained, with `gradual`."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate of a block divided by that of the next block towards the head."""
    head_lr_scale: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies the learning rate of the head."""
    batch_norm: Literal["train", "keep"] = "train"
    """`keep` does not change the running statistics."""
    penalties: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = field(
        default_factory=lambda: [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    )
    """Penalties of a linear probe; validation chooses one."""


@dataclass(config=STRICT)
class Train:
    """The training of a net. docs/studies.md explains every option and its default."""

    epochs: Natural = 10
    """Maximum number of epochs; 0 evaluates the model without training."""
    batch_size: Positive | Literal["full"] = 64
    """Images per batch, of all processes together; `full` is all training images."""
    replay: Positive = 1
    """How often each batch is repeated in a row."""
    subset: Subset | None = None
    """Trains on some of the training images."""
    calibration: Positive | Share | None = None
    """Validation images, a number or a share, that choose nothing and calibrate prediction sets."""
    shuffle: bool = True
    """A new order in each epoch, or file order."""
    lr: Annotated[float, Field(gt=0)] = 0.001
    """Learning rate from which the schedule starts, or at which it peaks."""
    optimizer: PluginValue = "adam"
    """How gradients change the weights."""
    schedule: PluginValue = "constant"
    """How the learning rate changes during training."""
    loss: PluginValue = "cross_entropy"
    """The loss of logits and labels."""
    objective: PluginValue = "supervised"
    """What is minimised."""
    augment: list[PluginValue] = field(default_factory=list)
    """Random changes of the training images, in this order."""
    fine_tune: FineTune | None = None
    """Which layers are trained, from when and how fast."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """For rare classes: weights in the loss, or balanced sampling of an epoch's images."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged for one step."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Maximum norm of the whole gradient."""
    ema: Share | None = None
    """Decay of a moving average of the weights."""
    swa: Share | None = None
    """Share of the epochs after which the weights are averaged over epochs."""
    stop: Stop | None = None
    """Early stopping."""
    select: Select = "auto"
    """Which epoch is kept; decided on the validation images."""
    watch: list[Split] = field(default_factory=lambda: ["validation"])
    """Splits that are evaluated during training."""
    log_every: Positive = 1
    """Epochs between lines of metrics.jsonl; each evaluation also has its line."""
    evaluate_every: Positive = 1
    """Epochs between evaluations."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, …; `auto` is CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Precision of the computation; bfloat16 and float16 leave the weights in float32, and float16
    scales the loss."""
    threads: Positive | Literal["auto"] = "auto"
    """Number of threads, of all processes of a machine together."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """How images lie in memory."""
    compile: bool | Literal["auto"] = False
    """Compiles the forward pass of training (torch.compile); `auto` does where it pays."""
    recompute: bool | Literal["auto"] = "auto"
    """Computes activations again in the backward pass, to save memory (gradient checkpointing); `auto`
    does where memory would not suffice."""
    stack: Literal["auto"] | bool = False
    """Whether runs that differ in seed or in numbers train in one program; `auto`: where that is
    clearly faster."""
    checkpoint_seconds: Annotated[float, Field(gt=0, le=30)] = 30.0
    """Seconds between checkpoints."""

    @property
    def probed(self) -> bool:
        """Whether a linear probe is fitted instead of a training by gradient descent."""
        return self.fine_tune is not None and self.fine_tune.layers == "probe"


@dataclass(config=STRICT)
class IndividualAttack:
    """One attack that is measured on its own, at its own radii if it has any. `name` is its
    label in the report."""

    attack: PluginValue
    """The attack, with its options."""
    name: str | None = None
    """Its label in the report."""
    target: Target | None = None
    """A rule for the target class, or a class by its name or number."""
    radii: str | list[float | str] | None = None
    """Its own radii."""


@dataclass(config=STRICT)
class Robustness:
    """How the trained models are attacked. `protocol` gives the worst case over several attacks;
    each of the `individual_attacks` has its own curve."""

    radii: str | float | list[float | str]
    """`0:0.1:0.01` (both ends included), `2/255,8/255`, or a list, in pixel units of [0, 1]."""
    norm: Norm = "linf"
    """The norm of the ball."""
    protocol: Literal["fast", "standard", "none"] | list[PluginValue] = "fast"
    """The worst case over these attacks."""
    individual_attacks: list[Annotated[IndividualAttack | PluginValue, Field(union_mode="left_to_right")]] = (
        field(default_factory=list)
    )
    """Attacks that get their own curve."""
    images: Positive | Literal["all"] = 1000
    """Number of images, drawn at random, or `all`."""
    split: Literal["test", "validation"] = "test"
    """The split that the images are from."""
    seed: Seed = 0
    """Seed of the random draw of the images."""
    target: Target | None = None
    """A rule for the target class, or a class by its name or number; none is untargeted."""
    success: Literal["untargeted", "target"] = "untargeted"
    """`target`: only the target class counts as a success."""
    eot_samples: Positive | Literal["auto"] = "auto"
    """Passes over which a random model is averaged; `auto` takes 20 if it is random."""
    bpda: list[str] = field(default_factory=list)
    """Submodules that pass no gradient on."""
    surrogate: str | None = None
    """Another variant, whose gradients the attack `transfer` uses."""
    audit: bool = True
    """Looks for signs that the result misleads."""
    certificates: list[PluginValue] = field(default_factory=list)
    """Certificates of robustness, on the same images."""


@dataclass(config=STRICT)
class Corruptions:
    """Corruptions of the images, each kind at five severities."""

    kinds: Annotated[list[PluginValue], Field(min_length=1)]
    """The corruptions."""
    images: Positive | Literal["all"] = 1000
    """Number of images, drawn at random, or `all`."""
    split: Literal["test", "validation"] = "test"
    """The split that the images are from."""
    seed: Seed = 0
    """Seed of the random draw of the images."""


View = Literal["flip", "vertical_flip", "quarter_turns", "five_crops"]


@dataclass(config=STRICT)
class Evaluation:
    """A second evaluation of the trained models, beside that of the image alone."""

    tta: Annotated[list[View], Field(min_length=1)]
    """Test-time augmentation: probabilities are averaged over these views of an image, the image
    itself included."""


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
    """The explainers."""
    images: Positive | Literal["auto"] = "auto"
    """Number of images."""
    choose: Choice | list[int] | list[str] = "one_per_class"
    """Which images: a rule, or images by their numbers or files."""
    target_class: TargetClass = "predicted"
    """The class that the maps explain: a rule, or a class by its name or number."""
    split: Literal["test", "validation"] = "test"
    """The split that the images are from."""
    seed: Seed = 0
    """Seed of the choice of images, and of random explainers."""
    check: bool | Literal["auto"] = "auto"
    """Measures the quality of each map."""


@dataclass(config=STRICT)
class Views:
    """Feature visualisations of a model: filters, activations, class images, … `images` and
    `choose` select images for the kinds that need some."""

    kinds: Annotated[list[PluginValue], Field(min_length=1)]
    """The views."""
    images: Positive = 10
    """Number of images."""
    choose: Choice | list[int] | list[str] = "one_per_class"
    """Which images: a rule, or images by their numbers or files."""
    split: Literal["test", "validation"] = "test"
    """The split that the images are from."""
    seed: Seed = 0
    """Seed of the choice of images, and of random views."""


@dataclass(config=STRICT)
class VariantConfig:
    """The configuration of a variant: one way to train one model, or to fit one estimator, on one
    data set. Each seed of it is a run."""

    data: PluginValue = "digits"
    """The data set."""
    model: PluginValue = "simple_cnn"
    """The model."""
    estimator: PluginValue | None = None
    """An estimator instead of the model. Then `model` and `input` have no effect, and of `train`
    only `ESTIMATOR_KEYS` do."""
    input: Input = field(default_factory=Input)
    """Preprocessing of an image before the net."""
    train: Train = field(default_factory=Train)
    """How the model is trained."""
    evaluation: Evaluation | None = None
    """Test-time augmentation."""
    robustness: Robustness | None = None
    """How the trained models are attacked."""
    corruptions: Annotated[list[PluginValue], Field(min_length=1)] | Corruptions | None = None
    """Which corruptions the images go through."""
    explain: Annotated[list[PluginValue], Field(min_length=1)] | Explain | None = None
    """Explainers of chosen images."""
    views: Annotated[list[PluginValue], Field(min_length=1)] | Views | None = None
    """Views of what the model has learned."""
    track: list[PluginValue] | None = None
    """Trackers that follow the training."""
