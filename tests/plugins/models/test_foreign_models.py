"""Models that other software made: ONNX, torch.export, TorchScript, scikit-learn, a server; what they
expect, and how they are wrong."""

from __future__ import annotations

import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import joblib
import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.foreign_model import ForeignModel
from stresslens.core.gradient_free import why_no_gradient
from stresslens.evaluation.saved_model import net_from

SHAPE = (3, 6, 5)
NAMES = ("a", "b", "c", "d")


def small_net(outputs: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(120, outputs))
    return net.eval()


def images(n: int = 7) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(2))


def built(value: dict[str, Any], shape: tuple[int, int, int] = SHAPE, names: Any = NAMES) -> nn.Module:
    return net_from(value, shape, names, None, Path.cwd())


def prepared(value: dict[str, Any], x: Tensor) -> Tensor:
    """What the model's input layers make of images in [0, 1]."""
    wanted = registry.resolve("models", value).answer_beside("own_preprocessing", shape=tuple(x.shape[1:]))
    return wanted.normalize(x)


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


def fitted(classifier: Any, labels: Any = None) -> Any:
    x = images(80).flatten(1).numpy()
    order = x[:, 0].argsort().argsort() * 4 // 80
    return classifier.fit(x, order if labels is None else np.array(labels)[order])


@pytest.mark.parametrize(
    ("classifier", "expected"),
    [
        (LogisticRegression(), lambda c, x: np.log(c.predict_proba(x))),
        (make_pipeline(StandardScaler(), Perceptron()), lambda c, x: c.decision_function(x)),
        (Perceptron(), lambda c, x: c.decision_function(x)),
    ],
    ids=["probabilities", "pipeline", "decision"],
)
def test_a_fitted_classifier(classifier: Any, expected: Callable[..., Any], tmp_path: Path) -> None:
    made = fitted(classifier)
    joblib.dump(made, tmp_path / "made.joblib")
    model = built({"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}})
    x = images()
    assert torch.allclose(model(x), torch.from_numpy(expected(made, x.flatten(1).numpy())).float(), atol=1e-4)
    assert "classifier" in why_no_gradient(model)
    with pytest.raises(ConfigError, match="joblib and pickle execute what is in the file"):
        built({"sklearn": {"file": str(tmp_path / "made.joblib")}})


def test_its_classes_are_matched_by_name(tmp_path: Path) -> None:
    made = fitted(LogisticRegression(), ["d", "a", "c", "b"])
    joblib.dump(made, tmp_path / "made.joblib")
    value = {"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}}
    x = images()
    assert [NAMES[k] for k in built(value)(x).argmax(1)] == list(made.predict(x.flatten(1).numpy()))
    with pytest.raises(ConfigError, match="does not know the class 'e' of the data; its classes are a, b, c"):
        built(value, names=("a", "b", "c", "e"))


def test_a_classifier_that_only_names_classes(tmp_path: Path) -> None:
    made = fitted(NearestCentroid())
    hidden = type("Names", (), {"fit": None, "predict": made.predict, "classes_": made.classes_})()
    from stresslens.core.fitted_classifier import of_classifier

    x = images()
    logits = of_classifier(hidden, NAMES)(x)
    assert logits.argmax(1).tolist() == made.predict(x.flatten(1).numpy()).tolist()
    assert set(logits.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (LogisticRegression(), "is not fitted"),
        ({"a": 1}, "is a dict; expected a fitted classifier"),
        (StandardScaler(), "is a StandardScaler; expected a fitted classifier"),
        (
            DummyClassifier(strategy="uniform").fit(np.zeros((4, 2)), [[0, 1]] * 4),
            "several questions at once",
        ),
    ],
    ids=["not fitted", "no classifier", "a transformer", "multi-output"],
)
def test_a_file_with_something_else(made: Any, told: str, tmp_path: Path) -> None:
    joblib.dump(made, tmp_path / "made.joblib")
    with pytest.raises(ConfigError, match=told):
        built({"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}})


def test_a_classifier_of_other_images(tmp_path: Path) -> None:
    joblib.dump(fitted(LogisticRegression()), tmp_path / "made.joblib")
    with pytest.raises(ConfigError, match=r"cannot take images of shape \(1, 8, 8\).*features"):
        built({"sklearn": {"file": str(tmp_path / "made.joblib"), "trusted": True}}, shape=(1, 8, 8))


class Server(BaseHTTPRequestHandler):
    """Answers with what `reply` makes of the images: a status, and the bytes."""

    reply: ClassVar[Callable[[np.ndarray], tuple[int, bytes]]]
    asked: ClassVar[list[int]]
    headed: ClassVar[list[str | None]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        npy = self.headers["Content-Type"] == "application/x-npy"
        sent = np.load(io.BytesIO(content)) if npy else np.array(json.loads(content)["instances"], np.float32)
        self.asked.append(len(sent))
        self.headed.append(self.headers.get("Authorization"))
        status, body = type(self).reply(sent)
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has gone
            pass

    def log_message(self, *anything: Any) -> None:
        pass


@contextmanager
def serving(reply: Callable[[np.ndarray], tuple[int, bytes]]) -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {"reply": staticmethod(reply), "asked": [], "headed": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/predict", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scores_of(sent: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return small_net()(torch.from_numpy(sent)).numpy()


def in_json(sent: np.ndarray) -> tuple[int, bytes]:
    return 200, json.dumps({"predictions": scores_of(sent).tolist()}).encode()


def in_npy(sent: np.ndarray) -> tuple[int, bytes]:
    file = io.BytesIO()
    np.save(file, scores_of(sent))
    return 200, file.getvalue()


@pytest.mark.parametrize("send", ["json", "npy"])
@pytest.mark.parametrize(
    "reply", [in_json, in_npy, lambda sent: (200, json.dumps(scores_of(sent).tolist()).encode())]
)
def test_a_server(send: str, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_TOKEN", "secret")
    with serving(reply) as (url, handler):
        model = built(
            {"http": {"url": url, "send": send, "batch": 3, "headers": {"Authorization": "$OWN_TOKEN"}}}
        )
        handler.asked.clear()
        x = images()
        assert torch.allclose(model(x), small_net()(x), atol=1e-5)
    assert handler.asked == [3, 3, 1]
    assert set(handler.headed) == {"secret"}
    assert why_no_gradient(model) == f"the server {url}"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b"out of memory", r"it answers 500 .*: out of memory; asked 2 times for 2 images"),
        (404, b"", r"it answers 404 Not Found$"),
        (200, b"<html>hello</html>", r"cannot be read as scores .* begins with '<html>hello"),
        (200, b'{"error": "no"}', r"it has none of predictions.*, but error"),
        (200, b"[[1, 2, 3, 4]]", r"numbers of shape \(1, 4\) for 2 images"),
        (200, b'[["a", "b"], ["c", "d"]]', "cannot be read as scores"),
        (200, b"[[1, 2], [3]]", "cannot be read as scores"),
        (200, b"[[NaN, 1, 2, 3], [NaN, 1, 2, 3]]", None),
        (200, b"[[1, 2, 3], [1, 2, 3]]", "has 3 outputs, and the data have 4 classes"),
        (200, b"[[[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]]", r"returned shape \(2, 1, 2, 2\) for 2 images"),
        (200, b"[[NaN, NaN, NaN, NaN], [NaN, NaN, NaN, NaN]]", "returns NaN or infinity"),
    ],
)
def test_a_server_that_does_not_answer_so(status: int, body: bytes, told: str | None) -> None:
    with serving(lambda sent: (status, body)) as (url, handler):
        value = {"http": {"url": url, "retries": 1}}
        if told is None:
            assert built(value)(images(2)).isnan().any(1).all()
            return
        with pytest.raises((ConfigError, DataError), match=told):
            built(value)
    assert len(handler.asked) == (2 if status == 500 else 1)


def test_a_server_that_is_slow_or_away() -> None:
    waiting = threading.Event()

    def slow(sent: np.ndarray) -> tuple[int, bytes]:
        waiting.wait(5)
        return in_json(sent)

    with serving(slow) as (url, _):
        with pytest.raises(DataError, match=r"no answer within 0.1 s \(timeout\); asked once"):
            built({"http": {"url": url, "timeout": 0.1, "retries": 0}})
        waiting.set()
    with pytest.raises(DataError, match="refused"):
        built({"http": {"url": url, "retries": 0}})
    with pytest.raises(ConfigError, match="expected an address that begins with http"):
        built({"http": {"url": "file:///etc/passwd"}})
    with pytest.raises(ConfigError, match="the environment has no variable OWN_MISSING"):
        built({"http": {"url": url, "headers": {"a": "$OWN_MISSING"}}})


def test_one_column_of_two_classes_and_labels() -> None:
    x = images(4)
    score = np.array([-1.0, 0.5, 2.0, np.nan], np.float32)
    found = ForeignModel(lambda sent: score, "it", classes=2)(x)
    assert found[:3].tolist() == [[0, -1], [0, 0.5], [0, 2]]
    chance = ForeignModel(
        lambda sent: np.array([[0.25], [1], [0], [0.5]]), "it", classes=2, output="probabilities"
    )
    assert torch.allclose(
        chance(x).exp(), torch.tensor([[0.75, 0.25], [0, 1], [1, 0], [0.5, 0.5]]), atol=1e-6
    )
    assert chance(x).isfinite().all()
    labels = ForeignModel(lambda sent: [2, 0, 1, 2], "it", classes=3, output="labels")
    assert labels(x).argmax(1).tolist() == [2, 0, 1, 2]
    for wrong in ([3, 0, 0, 0], [0.5, 0, 0, 0], [-1, 0, 0, 0]):
        with pytest.raises(ConfigError, match="which is no class from 0 to 2"):
            ForeignModel(lambda sent, wrong=wrong: wrong, "it", classes=3, output="labels")(x)  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"rows that add up to 2, and these are no probabilities"):
        ForeignModel(lambda sent: np.ones((4, 2)), "it", output="probabilities")(x)
    with pytest.raises(ConfigError, match=r"returned shape \(3, 2\) for 4 images"):
        ForeignModel(lambda sent: np.ones((3, 2)), "it")(x)
    with pytest.raises(ConfigError, match="returned no numbers"):
        ForeignModel(lambda sent: [None, "a"], "it")(x)


def test_layouts_are_the_same_numbers() -> None:
    x = images(2)
    seen: dict[str, np.ndarray] = {}
    for layout in ("nchw", "nhwc", "flat"):

        def keep(sent: np.ndarray, layout: str = layout) -> np.ndarray:
            seen[layout] = sent
            return np.zeros((2, 3))

        ForeignModel(keep, "it", layout=layout, bgr=True)(x)  # type: ignore[arg-type]
    assert np.array_equal(seen["nchw"], x.flip(1).numpy())
    assert np.array_equal(seen["nhwc"], x.flip(1).permute(0, 2, 3, 1).numpy())
    assert np.array_equal(seen["flat"], x.flip(1).flatten(1).numpy())
