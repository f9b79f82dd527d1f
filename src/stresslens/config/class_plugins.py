"""Classes as plug-ins: `torch.optim:NAdam`, `torch.nn:CrossEntropyLoss`, or a class of one's own.

A class becomes a function as every plug-in is one. What its constructor needs has the name of a word
of its kind's vocabulary, or a usual name for it; all its other parameters are options. An instance of
a kind that is called (a loss, an attack) is made and then called with what its call needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
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

Parameter = inspect.Parameter
NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@cache
def function_of(made: type[Any], words: tuple[str, ...], *, called: bool) -> Callable[..., Any]:
    """A class as a plug-in's function; `words` are those of its kind. With `called`, its instances are
    called. Raises ConfigError where its signature cannot be read."""
    needs, options = _of_constructor(made, words)
    call = _of_call(made, words) if called else {}

    def function(**given: Any) -> Any:
        chosen = {name: value for name, value in given.items() if name in options}
        instance = made(**{name: given[word] for word, name in needs.items()}, **chosen)
        if not called:
            return instance
        by_position = [given[word] for word, name in call.items() if not name]
        return instance(*by_position, **{name: given[word] for word, name in call.items() if name})

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
        if parameter.kind not in NAMED:
            continue
        word = _word(parameter.name, words)
        if word is not None and word not in needs:
            needs[word] = parameter.name
        else:
            kept = parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=_annotation(made, parameter))
            options[parameter.name] = kept
    return needs, options


def _of_call(made: type, words: Sequence[str]) -> dict[str, str]:
    """The words that a call of an instance needs, with the names of its parameters; "" where a word is
    passed by position, because the parameter has no name of the vocabulary."""
    defined = {name: method for each in reversed(made.__mro__) for name, method in vars(each).items()}
    if "__call__" not in defined:
        raise ConfigError(f"{made.__name__} cannot be called; it needs a method __call__")
    parameters = _parameters(made, defined.get("forward", defined["__call__"]))[1:]  # torch's calls forward
    named = {
        word: parameter.name
        for parameter in parameters
        if parameter.kind in NAMED and (word := _word(parameter.name, words)) is not None
    }
    left = [word for word in words if word not in named]
    by_position: dict[str, str] = {}
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            raise ConfigError(f"{made.__name__} is called with *{parameter.name}; name its parameters")
        if parameter.name in named.values() or parameter.default is not parameter.empty:
            continue
        if parameter.kind is Parameter.VAR_KEYWORD:
            continue
        if not left:
            raise ConfigError(f"{made.__name__} asks for {parameter.name} when it is called")
        by_position[left.pop(0)] = ""
    return by_position | named


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
