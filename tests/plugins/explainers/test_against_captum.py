"""The same maps as captum's where the method is the same; where it is not, why."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.plugins.explainers.gradcam import gradcam
from stresslens.plugins.explainers.integrated_gradients import integrated_gradients
from stresslens.plugins.explainers.occlusion import occlusion
from stresslens.plugins.explainers.saliency import saliency
from stresslens.plugins.models.simple_cnn import simple_cnn

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor:UserWarning", "ignore:Setting:UserWarning")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return simple_cnn((3, 16, 20), 4).eval()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 3, 16, 20, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 4


@pytest.mark.breadth(2)
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 2), (4, 4), ((3, 7), 2)])
def test_occlusion(
    model: nn.Module, images: tuple[Tensor, Tensor], size: int | tuple[int, int], stride: int
) -> None:
    """Windows begin at multiples of the stride and a pixel has their mean: `credit: covered`."""
    from captum.attr import Occlusion

    x, y = images
    high, wide = (size, size) if isinstance(size, int) else size
    theirs = Occlusion(model).attribute(
        x, target=y, sliding_window_shapes=(3, high, wide), strides=(3, stride, stride), baselines=0.5
    )
    with attacked(model):
        ours = occlusion(model, x, y, None, size=size, stride=stride, of="logit", credit="covered").values
    assert torch.allclose(ours, theirs[:, 0].detach().float(), atol=1e-4)


@pytest.mark.slow
def test_saliency_and_integrated_gradients(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    from captum.attr import IntegratedGradients, Saliency

    x, y = images
    assert torch.allclose(
        saliency(model, x, y).values, Saliency(model).attribute(x, target=y).amax(1), atol=1e-4
    )
    theirs = IntegratedGradients(model).attribute(
        x, target=y, n_steps=256, method="gausslegendre", internal_batch_size=64
    )
    assert torch.allclose(
        integrated_gradients(model, x, y, None, steps=256).values, theirs.sum(1).float(), atol=1e-4
    )


@pytest.mark.slow
def test_gradcam(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """With the ReLU that the paper has and captum leaves out unless asked, at the last convolution."""
    from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam

    x, y = images
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    small = LayerGradCam(model, last).attribute(x, target=y, relu_attributions=True)
    theirs = LayerAttribution.interpolate(small, x.shape[2:], interpolate_mode="bilinear")[:, 0]
    assert torch.allclose(gradcam(model, x, y).values, theirs, atol=1e-4)
    backwards = GuidedBackprop(model).attribute(x, target=y)
    guided = gradcam(model, x, y, guided=True).values
    assert torch.allclose(guided, theirs * backwards.abs().amax(1), atol=1e-4)
