"""Tables as people write them: the labs' own mistakes are seen and named, sound tables pass, wrong
ones are told where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stresslens.cli.main import main
from stresslens.config import registry
from stresslens.core.errors import DataError
from stresslens.core.evidence import CLEAN, Row
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.robustness.accuracy_tables import read_table
from stresslens.robustness.audit import audit, needs_of

TABLES = Path(__file__).parent / "tables"
OF_TABLES = [name for name in registry.names("audits") if needs_of(name) == ("table",)]


def looked(rows: list[Row]) -> dict[str, Finding]:
    return {finding.audit: finding for finding in audit(table=rows, only=OF_TABLES)}


def signs(rows: list[Row], *severities: str) -> set[str]:
    return {
        name for name, found in looked(rows).items() if found.severity in (severities or ("serious", "minor"))
    }


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_lab_c_is_seen_through() -> None:
    """PGD above FGSM in every row, and FGSM training less robust than clean training."""
    found = looked(read_table(TABLES / "lab-c.csv").rows)
    assert found["single step wins"].severity == "serious"
    assert found["single step wins"].evidence == (
        "in 3 of 3 pairs the iterative attack is weaker than the single step, by up to 12.30 points"
    )
    assert found["hardening backfires"].severity == "serious"
    assert found["hardening backfires"].evidence.startswith("in 2 of 4 pairs")
    assert any("58.08" in item and "65.65" in item for item in found["hardening backfires"].items)
    assert {name for name, finding in found.items() if finding.severity == "serious"} == {
        "single step wins",
        "hardening backfires",
    }


def test_lab_e_is_seen_through() -> None:
    """4 points lost at ε = 0.1 and no more at ε = 1; steps that reach 0.2 of the ball; steps longer
    than it; one row beats a larger ε."""
    found = looked(read_table(TABLES / "lab-e.csv").rows)
    assert found["barely moves"].severity == "serious"
    assert (
        found["barely moves"].evidence
        == "4.16 points lost at radius 0.1, and 0.47 more at 1, 10 times as far"
    )
    assert found["reach of steps"].severity == "serious"
    assert "20 steps of 0.01 move at most 0.2 of a radius of 1" in found["reach of steps"].evidence
    assert found["step beyond radius"].severity == "minor"
    assert found["rising with radius"].severity == "serious"
    assert found["size of table"].severity == "minor"


@pytest.mark.breadth(6)
@pytest.mark.parametrize("name", sorted(file.name for file in (TABLES / "sound").iterdir()))
def test_a_sound_table_passes(name: str) -> None:
    rows = read_table(TABLES / "sound" / name).rows
    assert len(rows) > 2
    assert signs(rows) <= {"size of table", "reach of steps"}
    assert not signs(rows, "serious")


def row(attack: str, eps: float, accuracy: float, **more: object) -> Row:
    return Row("m", attack, eps, accuracy, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "rows"),
    [
        ("single step wins", [row("fgsm", 0.1, 0.40, n=1000), row("pgd-40", 0.1, 0.41, n=1000)]),
        ("rising with radius", [row("pgd", 0.1, 0.40, n=1000), row("pgd", 0.2, 0.41, n=1000)]),
        ("rising with radius", [row(CLEAN, 0, 0.80, n=1000), row("fgsm", 0.1, 0.81, n=1000)]),
        ("radius zero", [row(CLEAN, 0, 0.90, n=1000), row("pgd", 0, 0.87, n=1000)]),
        ("barely moves", [row(CLEAN, 0, 0.9), row("pgd", 0.01, 0.8), row("pgd", 0.1, 0.79)]),
        ("barely moves", [row(CLEAN, 0, 0.9, norm="linf"), row("pgd", 0.5, 0.5, norm="linf")]),
        ("reach of steps", [row("pgd", 0.1, 0.5, steps=5, step_size=0.01)]),
        ("step beyond radius", [row("pgd", 0.1, 0.5, steps=5, step_size=0.3)]),
        ("black box below", [row("square", 0.1, 0.40, n=1000), row("pgd", 0.1, 0.45, n=1000)]),
        ("size of table", [row("pgd", 0.1, 0.5)]),
        ("hardening backfires", [row("pgd", 0.1, 0.5, trained=CLEAN), row("pgd", 0.1, 0.4, trained="pgd")]),
    ],
)
def test_each_sign_by_itself(expected: str, rows: list[Row]) -> None:
    assert expected in signs(rows)


@pytest.mark.parametrize(
    "rows",
    [
        [row("fgsm", 0.1, 0.40, n=1000), row("pgd", 0.1, 0.401, n=1000)],  # one image
        [row("fgsm", 0.1, 0.40), row("pgd", 0.1, 0.405)],  # half a point of nobody knows how many
        [row("fgsm", 0.1, 0.40, n=20), row("pgd", 0.1, 0.45, n=20)],  # one of twenty
        [row("fgsm", 0.1, 0.40, n=10000, grain=0.01), row("pgd", 0.1, 0.41, n=10000, grain=0.01)],  # rounding
        [row("fgsm", 0.1, 0.40), row("pgd to the least likely class", 0.1, 0.6)],
        [row("fgsm", 0.1, 0.40), row("pgd", 0.2, 0.6)],
        [row("fgsm", 0.1, 0.40, norm="linf"), row("pgd", 0.1, 0.6, norm="l2")],
        [row(CLEAN, 0, 0.99), row("pgd", 0.01, 0.985), row("pgd", 0.04, 0.98)],  # nothing has happened yet
        [row(CLEAN, 0, 0.9), row("pgd", 0.01, 0.1), row("pgd", 0.1, 0.099)],  # nothing is left
        [row("pgd", 0.1, 0.5, steps=20, step_size=0.01), row("pgd", 0.1, 0.5, steps=1)],
        [
            row("pgd", 0.1, 0.5, n=100, trained=CLEAN),
            row("pgd", 0.1, 0.45, n=100, trained="pgd"),
        ],  # within chance
    ],
)
def test_what_is_no_sign(rows: list[Row]) -> None:
    assert signs(rows) <= {"size of table"}


LONG = "model,attack,eps,accuracy,n\nm,none,0,0.9,1000\nm,fgsm,8/255,0.5,1000\nm,pgd-40,8/255,0.4,1000\n"
SAME = [
    LONG,
    LONG.replace(",", "\t"),
    LONG.replace(",", ";"),
    (
        "Network, Attack, ε, Robust accuracy (%), images\nm, clean, , 90, 1000\nm, FGSM, 8/255, 50, 1000\n"
        "m, PGD-40, 8/255, 40, 1000\n"
    ),
    "model,clean,FGSM eps=8/255,PGD-40 (ε = 8/255),n\nm,90 %,50 %,40 %,1000\n",
    (
        "| model | clean | FGSM ε=8/255 | PGD-40 ε=8/255 | n |\n|---|---|---:|:-:|---|\n"
        "| m | .9 | **.5** | .4 ± .03 | 1000 |\n"
    ),
    '\ufeff# a remark\nmodel,n,eps,clean,fgsm,pgd-40\n\nm,"1,000",8/255,0.9,0.5,0.4\n',
]


@pytest.mark.parametrize("text", SAME)
def test_the_same_table_in_many_ways(tmp_path: Path, text: str) -> None:
    rows = read_table(written(tmp_path, text)).rows
    assert [(r.model, r.attack, round(r.eps, 6), r.accuracy, r.n, r.steps) for r in rows] == [
        ("m", CLEAN, 0.0, 0.9, 1000, None),
        ("m", "fgsm", round(8 / 255, 6), 0.5, 1000, None),
        ("m", "pgd", round(8 / 255, 6), 0.4, 1000, 40),
    ]


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", "table.csv", "expected a line of column names"),
        ("model,attack,eps\nm,fgsm,0.1\n", ":1:", "no column of accuracies"),
        ("model,attack,eps,accuracy\nm,fgsm,0.1\n", ":2:", "3 cells"),
        (
            "model,attack,eps,accuracy\nm,none,0,0.9\nm,fgsm,big,0.5\n",
            ":3:",
            "expected a number or a fraction",
        ),
        ("model,attack,eps,accuracy\nm,fgsm,-0.1,0.5\n", ":2:", "number from 0 up"),
        ("model,attack,norm,eps,accuracy\nm,fgsm,linf,8,0.5\n", ":2:", "is it 8/255?"),
        ("model,attack,eps,accuracy\nm,fgsm,0.1,high\n", ":2:", "expected an accuracy"),
        ("model,attack,eps,accuracy\nm,fgsm,0.1,120\n", ":2:", "expected 0 to 100"),
        ("model,attack,accuracy\nm,fgsm,0.5\n", ":2:", "--eps"),
        ("model,attack,eps,accuracy,n\nm,fgsm,0.1,0.5,many\n", ":2:", "whole number"),
        ("model,attack,eps,epsilon,accuracy\nm,fgsm,0.1,0.1,0.5\n", ":1:", "two columns give the eps"),
        ('"steps, eps",accuracy\n"1,2,3",0.5\n', ":2:", "has 3 values"),
        ("model,attack,eps,accuracy\nm,fgsm,0.1,\n", "table.csv", "no accuracies"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, place: str, what: str) -> None:
    with pytest.raises(DataError) as told:
        read_table(written(tmp_path, text))
    assert place in str(told.value)
    assert what in str(told.value)


@given(st.text(max_size=200))
def test_no_text_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "any.csv"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        rows = read_table(file).rows
    except DataError:
        return
    looked(rows)


CELLS = st.sampled_from(
    [
        "m",
        "none",
        "0.1",
        "8/255",
        "fgsm",
        "PGD-40 eps=0.1",
        "clean",
        "eps",
        "accuracy",
        "n",
        "50%",
        ".5",
        "",
        "-1",
        "∞",
    ]
)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=2, max_size=5))
def test_no_table_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]) -> None:
    file = tmp_path_factory.mktemp("any") / "any.csv"
    file.write_text("\n".join(",".join(line) for line in cells))
    try:
        rows = read_table(file).rows
    except DataError:
        return
    assert all("could not be carried out" not in found.evidence for found in looked(rows).values())


def test_the_verb_says_it_and_exits_with_5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["stresslens", "audit", str(TABLES / "lab-c.csv")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 5
    out, err = capsys.readouterr()
    assert "9 figures; accuracies are read as shares of 1" in out
    assert "✗ serious: single step wins: in 3 of 3 pairs" in out
    assert "serious: hardening backfires, single step wins" in err


def test_the_verb_for_machines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["stresslens", "audit", str(TABLES / "sound" / "digits.csv"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["figures"] == 34
    assert {finding["audit"] for finding in told["findings"]} == {
        name.replace("_", " ") for name in OF_TABLES
    }


@pytest.mark.parametrize("options", [["--norm", "l3"], ["--eps", "wide"], ["--n", "0"]])
def test_wrong_options_are_usage_errors(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["stresslens", "audit", str(TABLES / "lab-c.csv"), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("clean", [CLEAN]),
        (
            "iterative",
            [
                "pgd 40",
                "PGD-20",
                "PGD40",
                "apgd ce",
                "apgd dlr_targeted",
                "APGD-T",
                "AutoAttack",
                "AA",
                "standard",
                "LinfPGD",
            ],
        ),
        (
            "iterative",
            [
                "PGD line search",
                "PGD-CW",
                "PGD (CW loss)",
                "AutoAttack (APGD, FAB, Square)",
                "random-start PGD",
                "AutoPGD",
            ],
        ),
        (
            "iterative",
            [
                "projected gradient descent",
                "ProjectedGradientDescent",
                "I-FGSM",
                "MI-FGSM",
                "iterative fast gradient sign",
            ],
        ),
        (
            "single step",
            [
                "fgsm",
                "FGSM-RS",
                "One-step",
                "single-step",
                "fast gradient sign",
                "FastGradientMethod",
                "R+FGSM",
            ],
        ),
        (
            "black box",
            [
                "square",
                "SquareAttack",
                "NES",
                "transfer",
                "PGD transfer",
                "black-box PGD",
                "HopSkipJump",
                "SimBA",
            ],
        ),
        (
            "smallest",
            [
                "deepfool",
                "DeepFool",
                "carlini_wagner",
                "C&W",
                "CW-L2",
                "CarliniL2Method",
                "fab",
                "fast adaptive boundary",
            ],
        ),
        ("random", ["noise", "random noise", "gaussian", "uniform"]),
        ("other", ["ours", "lines", "fabric", "scw", "unknown"]),
    ],
)
def test_what_kind_of_attack_a_name_means(kind: str, names: list[str]) -> None:
    assert {name: attack_kind(name) for name in names} == dict.fromkeys(names, kind)
