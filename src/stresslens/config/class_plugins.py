"""Classes as plug-ins: `torch.optim:NAdam`, `torch.nn:CrossEntropyLoss`, or a class of one's own.

A class becomes a function as every plug-in is one. What its constructor needs has the name of a word
of its kind's vocabulary, or a usual name for it; all its other parameters are options. An instance of
a kind that is called (a loss, an attack) is made and then called with what its call needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, get_type_hints

from stresslens.core.errors import ConfigError

USUAL_NAMES = {
    "params": "parameters",
    "num_classes": "classes",
    "total_steps": "steps",
    "images": "x",
    "labels": "y",
    "targets": "y",
}
"""Names that libraries give to words of the vocabulary."""

NAMES_IN_CALLS: dict[str, list[str]] = {
    "logits": [
        "input",
        "inputs",
        "output",
        "outputs",
        "pred",
        "preds",
        "prediction",
        "predictions",
        "y_pred",
        "y_hat",
        "scores",
    ],
    "x": ["input", "inputs", "image"],
    "y": ["target", "label", "truth", "y_true"],
}
"""Further names of words, for the required parameters of a call. A constructor has options of such
names."""

Parameter = inspect.Parameter
STARRED = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@cache
def function_of(made: type[Any], words: tuple[str, ...], *, called: bool) -> Callable[..., Any]:
    """A class as a plug-in's function; `words` are those of its kind. With `called`, its instances are
    called. Raises ConfigError where its signature cannot be read."""
    needs, options = _of_constructor(made, words)
    call = _of_call(made, words, needs) if called else {}
    of_constructor, of_call = _parameters(made, made), _call_parameters(made) if called else []

    def function(**given: Any) -> Any:
        named = {name: value for name, value in given.items() if name in options}
        named |= {name: given[word] for word, name in needs.items()}
        instance = _called(made, of_constructor, named)
        named = {name: given[word] for word, name in call.items()}
        return _called(instance, of_call, named) if called else instance

    asked = [word for word in words if word in needs or word in call]
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [Parameter(word, Parameter.POSITIONAL_OR_KEYWORD) for word in asked] + list(options.values())
    )
    function.__name__ = function.__qualname__ = made.__name__
    function.__module__, function.__doc__ = made.__module__, inspect.getdoc(made)
    return function


def _of_constructor(made: type, words: Sequence[str]) -> tuple[dict[str, str], dict[str, Parameter]]:
    """The names of the constructor's parameters by the words that they mean, and its options."""
    needs: dict[str, str] = {}
    options: dict[str, Parameter] = {}
    for parameter in _parameters(made, made):
        if parameter.kind in STARRED:
            continue
        word = _word(parameter.name, words)
        if word is not None and word not in needs:
            needs[word] = parameter.name
        else:
            kept = parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=_annotation(made, parameter))
            options[parameter.name] = kept
    return needs, options


def _of_call(made: type, words: Sequence[str], of_constructor: Collection[str]) -> dict[str, str]:
    """The words that a call of an instance needs, with the names of its parameters. A required
    parameter without a known name gets the first word that neither the call nor the constructor has."""
    parameters = _call_parameters(made)
    if star := next((each for each in parameters if each.kind is Parameter.VAR_POSITIONAL), None):
        raise ConfigError(f"{made.__name__} is called with *{star.name}; name its parameters")
    parameters = [each for each in parameters if each.kind is not Parameter.VAR_KEYWORD]
    found: dict[str, str] = {}
    for parameter in parameters:
        if (word := _word(parameter.name, words)) is not None:
            found.setdefault(word, parameter.name)
    required = [
        each.name for each in parameters if each.default is each.empty and each.name not in found.values()
    ]
    for name in list(required):
        if word := next((w for w in words if w not in found and name in NAMES_IN_CALLS.get(w, ())), None):
            found[word] = name
            required.remove(name)
    left = [word for word in words if word not in found and word not in of_constructor]
    if len(required) > len(left):
        raise ConfigError(f"{made.__name__} asks for {required[len(left)]} when it is called")
    return found | dict(zip(left, required))


def _called(function: Callable[..., Any], parameters: Sequence[Parameter], named: dict[str, Any]) -> Any:
    """The result with arguments by the names of the parameters; those that can be given by position
    only are."""
    first = [each for each in parameters if each.kind is Parameter.POSITIONAL_ONLY]
    by_position = [named.pop(each.name, each.default) for each in first]
    return function(*by_position, **named)


def _call_parameters(made: type) -> list[Parameter]:
    """The parameters of a call of an instance, without `self`: those of `forward`, which the call of
    torch's modules passes on to."""
    defined = {name: method for each in reversed(made.__mro__) for name, method in vars(each).items()}
    if "__call__" not in defined:
        raise ConfigError(f"{made.__name__} cannot be called; it needs a method __call__")
    return _parameters(made, defined.get("forward", defined["__call__"]))[1:]


def _parameters(made: type, of: Any) -> list[Parameter]:
    try:
        return list(inspect.signature(of).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the signature of {made.__name__} cannot be read ({error})") from None


def _word(name: str, words: Sequence[str]) -> str | None:
    word = name if name in words else USUAL_NAMES.get(name)
    return word if word in words else None


def _annotation(made: type, parameter: Parameter) -> Any:
    """The type of an option: as it is annotated, or that of its default, or anything."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = get_type_hints(made.__init__).get(parameter.name, Any)  # type: ignore[misc]
        except Exception:  # names that are there for type checkers only
            annotation = Any
    if annotation is not Parameter.empty:
        return annotation
    default = parameter.default
    if isinstance(default, bool | str):
        return type(default)
    return int | float if isinstance(default, int | float) else Any
