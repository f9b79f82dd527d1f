"""Messages for a misspelt name or key: "unknown key", "did you mean", and the valid ones."""

from __future__ import annotations

from collections.abc import Iterable

MANY = 60
"""A list of more names than this is not shown completely."""


OTHER_WORDS = {
    **dict.fromkeys(("low", "lower", "min", "minimum"), ("from",)),
    **dict.fromkeys(("high", "upper", "max", "maximum", "until"), ("to",)),
    **dict.fromkeys(("sampler", "search", "strategy", "algorithm"), ("method",)),
    **dict.fromkeys(("distribution", "scale"), ("log",)),
    **dict.fromkeys(("n_trials", "num_trials", "num_samples", "budget"), ("trials",)),
    **dict.fromkeys(("parameters", "params", "search_space"), ("space",)),
    **dict.fromkeys(("objective", "goal", "score"), ("metric",)),
    **dict.fromkeys(("values",), ("choices",)),
    **dict.fromkeys(("seeds", "n_seeds"), ("repeats",)),
    **dict.fromkeys(("variants", "experiments"), ("runs",)),
    **dict.fromkeys(("dataset", "datasets"), ("data",)),
    **dict.fromkeys(("attack", "attacks"), ("robustness", "protocol")),
    **dict.fromkeys(("radius", "eps", "epsilon", "epsilons"), ("radii",)),
    **dict.fromkeys(("n-images", "num-images", "limit"), ("images",)),
    **dict.fromkeys(("format", "target"), ("to",)),
    **dict.fromkeys(("output", "output-dir", "dir", "folder"), ("out",)),
}
"""Words of other programs, and the keys that they stand for where these are valid."""


def near(name: str, valid: list[str]) -> str | None:
    """The valid name that is meant by another word, or else the most similar one; None if none is
    similar."""
    from difflib import get_close_matches

    for meant in OTHER_WORDS.get(name, ()):
        if meant in valid:
            return meant
    return next(iter(get_close_matches(name, valid, n=1, cutoff=0.6)), None)


def closest(name: str, valid: list[str]) -> str:
    """A hint: `did you mean 'X'?` if one of the valid names is similar, and the valid names.

    Of more than `MANY` valid names only the most similar ones are listed.
    """
    from difflib import get_close_matches

    similar = near(name, valid)
    hint = f"did you mean {similar!r}? " if similar else ""
    if len(valid) > MANY:
        nearest = get_close_matches(name, valid, n=8, cutoff=0.3)
        return f"{hint}among the {len(valid)} valid: {', '.join(nearest or sorted(valid)[:8])}, …"
    return f"{hint}valid: {', '.join(sorted(valid)) or 'none'}"


def unknown_key(key: object, valid: Iterable[object], what: str = "unknown key") -> str:
    """The message for a key that is none of the valid ones, after `what`."""
    return f"{what}; {closest(str(key), [str(each) for each in valid])}"
