"""Models of files: ONNX, torch.export and TorchScript; what they expect, and how they are wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import SHAPE, built, images, prepared, small_net
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.gradient_free import why_no_gradient


def onnx_file(file: Path, net: nn.Module, x: Tensor, **options: Any) -> Path:
    """An ONNX file, written without torch's exporter, so that the test is quick and exact."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    conv, linear = net[0], net[3]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(linear, nn.Linear)
    arrays = {"w": conv.weight, "b": conv.bias, "v": linear.weight, "c": linear.bias}
    first = "images"
    nodes = []
    if options.get("bytes"):
        nodes += [helper.make_node("Cast", [first], ["float"], to=TensorProto.FLOAT)]
        first = "float"
    if options.get("nhwc"):
        nodes += [helper.make_node("Transpose", [first], ["first"], perm=[0, 3, 1, 2])]
        first = "first"
    last = "scores" if options.get("softmax") else "logits"
    nodes += [
        helper.make_node("Conv", [first, "w", "b"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], [last], transB=1),
    ]
    if options.get("softmax"):
        nodes += [helper.make_node("Softmax", ["scores"], ["logits"], axis=1)]
    sizes = [options.get("batch", "n"), *x.shape[1:]]
    if options.get("nhwc"):
        sizes = [sizes[0], *sizes[2:], sizes[1]]
    kind = TensorProto.UINT8 if options.get("bytes") else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kind, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [options.get("batch", "n"), 4])],
        [numpy_helper.from_array(value.detach().numpy(), name) for name, value in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(
        model,
        str(file),
        save_as_external_data=bool(options.get("external")),
        location=f"{file.name}.data",
        size_threshold=0,
    )
    return file


@pytest.mark.parametrize("options", [{}, {"batch": 3}, {"nhwc": True}, {"external": True}], ids=str)
def test_an_onnx_graph_gives_the_logits_of_its_net(options: dict[str, Any], tmp_path: Path) -> None:
    net, x = small_net(), images()
    model = built({"onnx": {"file": str(onnx_file(tmp_path / "net.onnx", net, x, **options))}})
    assert torch.allclose(model(x), net(x), atol=1e-5)
    assert why_no_gradient(model) == "the ONNX graph net.onnx"


def test_a_graph_that_takes_bytes_gets_white_as_255(tmp_path: Path) -> None:
    net = small_net()
    x = torch.arange(7 * 90).reshape(7, *SHAPE) % 256
    value = {"onnx": {"file": str(onnx_file(tmp_path / "net.onnx", net, x.float(), bytes=True))}}
    shown = prepared(value, x / 255)
    assert torch.allclose(shown, x.float())
    assert torch.allclose(built(value)(shown), net(x.float()), rtol=1e-4, atol=1e-3)


def test_images_are_resized_and_repeated_to_what_the_graph_takes(tmp_path: Path) -> None:
    value = {"onnx": {"file": str(onnx_file(tmp_path / "net.onnx", small_net(), images()))}}
    bound = registry.resolve("models", value)
    wanted = bound.answer_beside("own_preprocessing", shape=(1, 28, 28))
    assert wanted.shape == SHAPE
    assert wanted.normalize(torch.rand(2, 1, 6, 5)).shape == (2, *SHAPE)
    with pytest.raises(ConfigError, match=r"the model takes 3 channels .* and the images have 2"):
        bound.answer_beside("own_preprocessing", shape=(2, 6, 5))


def test_mean_std_and_scale_are_the_models_own_convention(tmp_path: Path) -> None:
    file = str(onnx_file(tmp_path / "net.onnx", small_net(), images()))
    options = {"file": file, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "scale": 2.0}
    x = images()
    expected = (
        2 * (x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    )
    assert torch.allclose(prepared({"onnx": options}, x), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="the model takes 2 or 3 channels"):
        prepared({"onnx": {**options, "mean": [0.1, 0.2]}}, x)
    with pytest.raises(ConfigError, match="a standard deviation is above 0"):
        prepared({"onnx": {**options, "std": [0.1, 0.0, 0.2]}}, x)


def test_probabilities_become_their_logarithms(tmp_path: Path) -> None:
    net, x = small_net(), images()
    file = str(onnx_file(tmp_path / "net.onnx", net, x, softmax=True))
    with pytest.raises(ConfigError, match=r"returns probabilities .* say so with output: probabilities"):
        built({"onnx": {"file": file}})
    model = built({"onnx": {"file": file, "output": "probabilities"}})
    assert torch.allclose(model(x), net(x).log_softmax(1), atol=1e-5)


def test_columns_pick_the_classes_of_the_data(tmp_path: Path) -> None:
    net, x = small_net(), images()
    file = str(onnx_file(tmp_path / "net.onnx", net, x))
    with pytest.raises(ConfigError, match=r"has 4 outputs, and the data have 2 classes; .* columns: \[0, 3"):
        built({"onnx": {"file": file}}, names=("x", "y"))
    model = built({"onnx": {"file": file, "columns": [3, 1]}}, names=("x", "y"))
    assert torch.allclose(model(x), net(x)[:, [3, 1]], atol=1e-5)
    with pytest.raises(ConfigError, match=r"columns: the ONNX graph net.onnx has the outputs 0 to 3"):
        built({"onnx": {"file": file, "columns": [4, 1]}}, names=("x", "y"))


@pytest.mark.breadth(2)
@pytest.mark.parametrize("kind", ["torch_export", "torchscript"])
@pytest.mark.parametrize("fixed", [False, True], ids=["any batch", "one image"])
def test_a_program_of_torch_keeps_its_gradient(kind: str, fixed: bool, tmp_path: Path) -> None:
    net, x = small_net(), images()
    file = tmp_path / "net.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "torchscript":
            torch.jit.save(torch.jit.trace(net, x[:1]), file)
        else:
            free = None if fixed else ({0: torch.export.Dim("n")},)
            torch.export.save(torch.export.export(net, (x[: 1 if fixed else 2],), dynamic_shapes=free), file)
    with pytest.raises(ConfigError, match=r"can run any code .* model.trusted=true"):
        built({kind: {"file": str(file)}})
    batch = {"batch": 1} if kind == "torchscript" and fixed else {}
    model = built({kind: {"file": str(file), "trusted": True, **batch}})
    assert why_no_gradient(model) == ""
    point, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    model(point)[:, 2].sum().backward()
    net(other)[:, 2].sum().backward()
    assert torch.allclose(model(x), net(x), atol=1e-5)
    assert torch.allclose(point.grad, other.grad, atol=1e-5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="happens only if you trust it"):
        registry.resolve("models", {kind: {"file": str(file), "trusted": True}}, trust=False)


@pytest.mark.parametrize(("kind", "options"), [("onnx", {}), ("torch_export", {"trusted": True})])
@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "there is no file"), (b"", "is empty"), (b"no model at all", "cannot be read as")],
    ids=["missing", "empty", "garbage"],
)
def test_a_file_that_is_no_model(
    kind: str, options: dict[str, Any], content: bytes | None, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "net"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=told):
        built({kind: {"file": str(file), **options}})
    with pytest.raises(DataError, match="is a folder; expected"):
        built({kind: {"file": str(tmp_path), **options}})


def test_weights_that_are_missing_beside_a_graph(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "net.onnx", small_net(), images(), external=True)
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(DataError, match=r"no file .*net.onnx.data; expected the weights of net.onnx"):
        built({"onnx": {"file": str(file)}})


def test_a_layout_that_the_model_does_not_take(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "net.onnx", small_net(), images())
    with pytest.raises(ConfigError, match=r"cannot take images of shape \(3, 6, 5\) .* in the layout nhwc: "):
        built({"onnx": {"file": str(file), "layout": "nhwc"}})
