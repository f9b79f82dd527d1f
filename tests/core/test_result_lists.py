"""Lists of findings show in short which of them are signs."""

from __future__ import annotations

from stresslens.core.result_lists import Findings
from stresslens.core.types import Finding


def found(*serious: str, minor: str = "a minor one") -> Findings:
    signs = [Finding(name, "sign", "serious", f"{name} was seen", 5) for name in serious]
    return Findings([Finding(minor, "sign", "minor", "seen", 5), *signs])


def test_the_serious_signs_end_a_line_with_three_names_at_most() -> None:
    assert found().warning == ""
    assert found("leaks").warning == "; 1 serious sign: leaks"
    assert found("a", "b", "c").warning == "; 3 serious signs: a, b, c"
    assert found("a", "b", "c", "d", "e").warning == "; 5 serious signs: a, b, c, …"


def test_a_list_says_that_it_names_only_some_of_its_signs() -> None:
    assert repr(found("a", "b", "c")) == "Findings(4 checks: 4 with a sign (3 serious): a, b, c, a minor one)"
    assert repr(found("a", "b", "c", "d")).endswith("(4 serious): a, b, c, d, …)")
