"""Parts as students write them: right ones, and each usual mistake with what the check must say of it."""

from __future__ import annotations

GRADIENT = """
# part: gradient mse
import torch


def own_gradient(net, inputs, y):
    a = inputs.flatten(1)
    layer = net[-1]
    with torch.no_grad():
        difference = a @ layer.weight.T + layer.bias
        difference[torch.arange(len(y)), y] -= 1
        slope = 2 * difference / difference.numel()
        layer.weight.grad = slope.T @ a
        layer.bias.grad = slope.sum(0)
    return difference.square().mean()
"""
LOSS = """
# part: loss cross_entropy
import torch


def own_loss(logits, y):
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()
"""
OPTIMIZER = """
# part: optimizer momentum
import torch


def own_momentum(parameters, lr):
    return _Momentum(parameters, {"lr": lr})


class _Momentum(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
                    velocity.mul_(0.9).add_(weight.grad)
                    weight -= group["lr"] * velocity
"""
CONVOLUTION = """
# part: convolution
import torch.nn.functional as F


def convolution(x, weight, bias, stride, padding):
    n, _, height, width = x.shape
    filters, _, h, w = weight.shape
    columns = F.unfold(x, (h, w), padding=padding, stride=stride)
    out = weight.flatten(1) @ columns
    rows = (height + 2 * padding - h) // stride + 1
    out = out.view(n, filters, rows, -1)
    return out if bias is None else out + bias[:, None, None]
"""
MODEL = """
# part: model first_cnn shape=3x32x32 classes=10 least=50000
from torch import nn


def own_cnn(shape, classes):
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (height // 8) * (width // 8), 64), nn.ReLU(), nn.Linear(64, classes),
    )
"""
ATTACK = """
# part: attack fgsm
import torch
import torch.nn.functional as F


def own_fgsm(model, x, y, ball):
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return ball.project(x.detach() + ball.radius(x) * slope.sign(), x.detach())
"""
PGD = """
# part: attack
import torch
import torch.nn.functional as F


def own_pgd(model, x, y, ball, target, *, steps: int = 20):
    x_adv, label, sign = x, y if target is None else target, 1 if target is None else -1
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x_adv), label), x_adv)
        x_adv = ball.project(x_adv.detach() + sign * ball.radius(x) / 5 * slope.sign(), x)
    return x_adv
"""
EXPLAINER = """
# part: explainer {occlusion: {size: 3}}
import torch
from stresslens.plugins import Maps


def own_occlusion(model, x, y):
    height, width = x.shape[2:]
    values = torch.zeros(len(x), height, width)
    with torch.no_grad():
        clean = model(x).softmax(1)[torch.arange(len(y)), y]
        for row in range(height):
            for column in range(width):
                covered = x.clone()
                covered[:, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 0.5
                values[:, row, column] = clean - model(covered).softmax(1)[torch.arange(len(y)), y]
    return Maps(values, True, "probability lost")
"""
RIGHT = {
    "gradient": GRADIENT,
    "loss": LOSS,
    "optimizer": OPTIMIZER,
    "convolution": CONVOLUTION,
    "model": MODEL,
    "fgsm": ATTACK,
    "pgd": PGD,
    "explainer": EXPLAINER,
}
MEAN_OVER_IMAGES = ("difference.numel()", "len(y)")
WRONG = {
    "gradient: mean over images alone": (
        GRADIENT.replace(*MEAN_OVER_IMAGES),
        {"gradient of 1.weight": "10 times the reference", "finite differences": "the loss rises by"},
    ),
    "gradient: without the 2": (
        GRADIENT.replace("2 * difference /", "difference /"),
        {"gradient of 1.bias": "0.5 times the reference (1/2)"},
    ),
    "gradient: sum, and its loss too": (
        GRADIENT.replace("2 * difference / difference.numel()", "2 * difference").replace(
            "square().mean()", "square().sum()"
        ),
        {"loss": "not mse", "gradient of 1.weight": "times the reference"},
    ),
    "gradient: transposed": (
        GRADIENT.replace("slope.T @ a", "a.T @ slope"),
        {"execution": "RuntimeError"},
    ),
    "gradient: bias forgotten": (
        GRADIENT.replace("        layer.bias.grad = slope.sum(0)\n", ""),
        {"gradient of 1.bias": "it is not set"},
    ),
    "gradient: autograd's": (
        "# part: gradient\nimport torch.nn.functional as F\n\n\n"
        "def g(net, inputs, y):\n    return F.cross_entropy(net(inputs), y)\n",
        {"gradient": "the gradient is autograd's"},
    ),
    "gradient: by hand without the mean, and with a graph": (
        """# part: gradient
import torch
import torch.nn.functional as F


def g(net, inputs, y):
    logits = net(inputs)
    with torch.no_grad():
        slope = logits.softmax(1) - F.one_hot(y, logits.shape[1])
        net[1].weight.grad = slope.T @ inputs.flatten(1)
        net[1].bias.grad = slope.sum(0)
    return F.cross_entropy(logits, y)
""",
        {"gradient of 1.weight": "11 times the reference", "graph": "training adds autograd's gradient"},
    ),
    "gradient: steps by itself": (
        GRADIENT.replace("        layer.bias.grad", "        layer.weight -= 0.01\n        layer.bias.grad"),
        {"weights": "are changed"},
    ),
    "gradient: another signature": (
        "# part: gradient\ndef g(model, x, y):\n    return 0\n",
        {"signature": "net and inputs"},
    ),
    "gradient: unknown parameter": (
        "# part: gradient\ndef g(weights, x, y):\n    return 0\n",
        {"signature": "asks for weights"},
    ),
    "loss: sum": (LOSS.replace(".mean()", ".sum()"), {"reference": "7 times the reference"}),
    "loss: overflows": (
        LOSS.replace("logits.log_softmax(1)", "(logits.exp() / logits.exp().sum(1, keepdim=True)).log()"),
        {"reference": "not finite"},
    ),
    "loss: detached": (LOSS.replace(".mean()", ".mean().detach()"), {"signature": "with a graph"}),
    "loss: per image": (LOSS.replace(".mean()", ""), {"signature": "got shape (1,)"}),
    "loss: softmax twice": (
        LOSS.replace("logits.log_softmax(1)", "logits.softmax(1).log_softmax(1)"),
        {"reference": "not cross_entropy: value"},
    ),
    "optimizer: no momentum": (OPTIMIZER.replace("0.9", "0.0"), {"steps": "step 2 is not that of momentum"}),
    "optimizer: learning rate kept": (
        OPTIMIZER.replace('group["lr"] *', "0.05 *"),
        {"steps": "step 6 is not that of momentum"},
    ),
    "optimizer: uphill": (OPTIMIZER.replace("weight -=", "weight +="), {"steps": "step 1 is not"}),
    "optimizer: missing gradient": (
        OPTIMIZER.replace("if weight.grad is not None", "if True"),
        {"execution": "TypeError"},
    ),
    "optimizer: none": (
        "# part: optimizer\ndef o(parameters, lr):\n    return None\n",
        {"optimizer": "returns a NoneType"},
    ),
    "convolution: stride ignored": (
        CONVOLUTION.replace("stride=stride)", "stride=1)").replace("// stride + 1", "+ 1"),
        {"output": "its shape is"},
    ),
    "convolution: bias ignored": (
        CONVOLUTION.replace("out if bias is None else out + bias[:, None, None]", "out"),
        {"output": "with bias", "gradient of bias": "there is none"},
    ),
    "convolution: mirrored": (
        CONVOLUTION.replace("weight.flatten(1)", "weight.flip(2, 3).flatten(1)"),
        {"output": "36 of 54", "gradient of weight": "differ"},
    ),
    "convolution: no gradient": (
        CONVOLUTION.replace("weight.flatten(1) @", "weight.detach().flatten(1) @"),
        {"gradient of weight": "there is none"},
    ),
    "convolution: without padding": (
        "# part: convolution\ndef convolution(x, weight, bias, stride):\n    return x\n",
        {"signature": "no parameter padding"},
    ),
    "model: softmax": (
        MODEL.replace("nn.Linear(64, classes),", "nn.Linear(64, classes), nn.Softmax(1),"),
        {"logits": "they are probabilities"},
    ),
    "model: log_softmax": (
        MODEL.replace("nn.Linear(64, classes),", "nn.Linear(64, classes), nn.LogSoftmax(1),"),
        {"logits": "or their logarithms"},
    ),
    "model: too small": (
        MODEL.replace("64", "8").replace("first_cnn ", ""),
        {"number of parameters": "at least 50,000"},
    ),
    "model: another one": (MODEL.replace("16", "24"), {"reference": "its weights are"}),
    "model: one more class": (
        MODEL.replace("(64, classes)", "(64, classes + 1)"),
        {"output": "expected (5, 10)"},
    ),
    "model: batch statistics": (
        MODEL.replace(
            "nn.ReLU(), nn.MaxPool2d(2),",
            "nn.BatchNorm2d(16, track_running_stats=False), nn.ReLU(), nn.MaxPool2d(2),",
            1,
        ),
        {"one image": "other logits than among others"},
    ),
    "model: no module": ("# part: model\ndef m(shape, classes):\n    return 3\n", {"model": "returns int"}),
    "attack: outside the box": (
        ATTACK.replace(
            "ball.project(x.detach() + ball.radius(x) * slope.sign(), x.detach())",
            "(x + ball.radius(x) * slope.sign()).detach()",
        ),
        {"ball and box": "leave the box"},
    ),
    "attack: twice the radius": (
        ATTACK.replace(
            "ball.project(x.detach() + ball.radius(x) * slope.sign(), x.detach())",
            "(x + 2 * ball.radius(x) * slope.sign()).detach().clamp(0, 1)",
        ),
        {"ball and box": "outside the ball, up to 2 radii away"},
    ),
    "attack: one radius for all": (
        ATTACK.replace(
            "ball.project(x.detach() + ball.radius(x) * slope.sign(), x.detach())",
            "(x + ball.eps * slope.sign()).detach().clamp(0, 1)",
        ),
        {"a radius for each image": "raises RuntimeError"},
    ),
    "attack: wrong sign": (
        ATTACK.replace("+ ball.radius(x) *", "- ball.radius(x) *"),
        {"margin lost": "-100 %", "reference": "not the images of fgsm"},
    ),
    "attack: away from the target": (
        PGD.replace("1 if target is None else -1", "1"),
        {"target": "rises for"},
    ),
    "attack: training mode": (
        ATTACK.replace("    x = x", "    model.train()\n    x = x"),
        {"no side effects": "training mode"},
    ),
    "attack: changes the weights": (
        ATTACK.replace("    x = x", "    next(model.parameters()).data.mul_(0.5)\n    x = x"),
        {"no side effects": "it changes the model's"},
    ),
    "attack: other shape": (
        ATTACK.replace("return ball", "return [ball").rstrip() + "]\n",
        {"images": "returns list"},
    ),
    "explainer: swapped": (
        EXPLAINER.replace("values[:, row, column]", "values[:, column % height, row % width]"),
        {"reference": "not the maps of occlusion"},
    ),
    "explainer: last positions": (
        EXPLAINER.replace("range(height)", "range(height - 2)").replace("range(width)", "range(width - 2)"),
        {"reference": "not the maps of occlusion"},
    ),
    "explainer: no maps": (
        EXPLAINER.replace('Maps(values, True, "probability lost")', "values"),
        {"maps": "expected Maps"},
    ),
    "raises": (
        "# part: loss\ndef loss(logits, y):\n    return logits[len(y) + 99].sum()\n",
        {"execution": "(line 3 of the part)"},
    ),
    "ends the process": (
        "# part: loss\nimport os\nos._exit(0)\n\n\ndef loss(logits, y):\n    return 0\n",
        {"execution": "without an answer"},
    ),
}
"""The source, and words of the evidence of each finding that must be serious."""
