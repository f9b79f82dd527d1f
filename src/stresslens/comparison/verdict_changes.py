"""Which verdicts change when the same predictions are scored by other labels, or on fewer images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stresslens.comparison.schema import Contrast
from stresslens.config.run_names import ShortNames


@dataclass(frozen=True)
class VerdictChanges:
    """The contrasts `before` and `after`. `name` is that of the change in JSON, with the `facts` on it;
    `touched` says in a sentence what was changed, and `change` is its name in words."""

    name: str
    change: str
    touched: str
    facts: Mapping[str, Any]
    before: Sequence[Contrast]
    after: Sequence[Contrast]

    def renamed(self, names: ShortNames) -> VerdictChanges:
        """With the short names of variants."""
        before, after = (
            [Contrast.model_validate(names.replaced(each.as_json())) for each in contrasts]
            for contrasts in (self.before, self.after)
        )
        return replace(self, before=before, after=after)

    @property
    def changed(self) -> list[tuple[Contrast, Contrast]]:
        """The contrasts, before and after, that are decided in another way."""
        after = {(c.contrast, c.a, c.b): c for c in self.after}
        pairs = [(c, after[c.contrast, c.a, c.b]) for c in self.before if (c.contrast, c.a, c.b) in after]
        return [pair for pair in pairs if pair[0].better != pair[1].better]

    @property
    def sentences(self) -> list[str]:
        """What was changed, how many verdicts survive, and those that do not."""
        if not self.before:
            return [self.touched]
        changed = self.changed
        survive = f"{len(self.before) - len(changed)} of {len(self.before)} verdicts survive {self.change}."
        return [self.touched, survive, *(f"Before: {a.verdict}. Now: {b.verdict}." for a, b in changed)]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.facts,
            "before": [contrast.model_dump(mode="json", exclude_unset=True) for contrast in self.before],
            "changed": [[a.verdict, b.verdict] for a, b in self.changed],
            "sentences": self.sentences,
        }
