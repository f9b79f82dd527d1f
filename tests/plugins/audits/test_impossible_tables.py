"""Tables that cannot be right, as files: each kind with its siblings, and what a sound table has in
common with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresslens.config import registry
from stresslens.core.types import Finding
from stresslens.robustness.accuracy_tables import read_table
from stresslens.robustness.attack_labels import AttackLabel, read_label
from stresslens.robustness.audit import audit, needs_of

OF_TABLES = [name for name in registry.names("audits") if needs_of(name) == ("table",)]
CLEAN = "a,none,0,95.0,1000\n"


def looked(folder: Path, text: str) -> dict[str, Finding]:
    file = folder / "table.csv"
    file.write_text(text)
    return {finding.audit: finding for finding in audit(table=read_table(file).rows, only=OF_TABLES)}


def long(*rows: str, columns: str = "model,attack,eps,accuracy,n") -> str:
    return columns + "\n" + CLEAN + "\n".join(f"a,{row}" for row in rows)


SIGNS = {
    "PGD + CW above PGD": (
        "whole above part",
        "serious",
        long("PGD,0.03,52.0,1000", "CW,0.03,60.0,1000", "PGD + CW,0.03,58.0,1000"),
    ),
    "autoattack above apgd-ce": (
        "whole above part",
        "serious",
        long("apgd-ce,0.03,52.0,1000", "autoattack,0.03,58.0,1000"),
    ),
    "AA above Square, written AA": (
        "whole above part",
        "serious",
        long("Square Attack,0.03,55.0,1000", "AA,0.03,58.0,1000"),
    ),
    "auto-attack above FAB-T": (
        "whole above part",
        "serious",
        long("FAB-T,8/255,50.0,1000", "Auto-Attack,8/255,58.0,1000"),
    ),
    "AutoAttack above PGD, which is no part": (
        "whole above part",
        "minor",
        long("PGD-20,0.03,50.0,1000", "AutoAttack,0.03,58.0,1000"),
    ),
    "worst case above PGD": (
        "whole above part",
        "serious",
        long("PGD-20,0.03,52.0,1000", "FGSM,0.03,60.0,1000", "worst case,0.03,53.0,1000"),
    ),
    "ensemble above FGSM, n unknown": (
        "whole above part",
        "serious",
        "model,clean,FGSM eps=0.1,PGD eps=0.1,ensemble eps=0.1\na,95.1,60.2,40.3,50.4\n",
    ),
    "the minimum over attacks above one": (
        "whole above part",
        "serious",
        long("PGD,0.03,52.0,1000", "min over attacks,0.03,58.0,1000"),
    ),
    "union by one image of 50": (
        "whole above part",
        "minor",
        "model,attack,eps,accuracy,n\na,none,0,90,50\na,pgd,0.1,40,50\na,union,0.1,42,50\n",
    ),
    "PGD-100 above PGD-20": (
        "stronger leaves more",
        "serious",
        long("pgd-20,0.03,52.0,1000", "pgd-100,0.03,60.0,1000"),
    ),
    "PGD (100 steps) above PGD20": (
        "stronger leaves more",
        "serious",
        long("PGD20,0.03,52.0,1000", "PGD (100 steps),0.03,60.0,1000"),
    ),
    "ten restarts above one": (
        "stronger leaves more",
        "serious",
        long("PGD-20,0.03,52.0,1000", "PGD-20x10,0.03,54.0,1000"),
    ),
    "a column of restarts": (
        "stronger leaves more",
        "serious",
        "model,attack,eps,restarts,accuracy,n\na,pgd,0.1,1,40.0,1000\na,pgd,0.1,5,45.0,1000\n",
    ),
    "more queries": (
        "stronger leaves more",
        "serious",
        long("Square (1000 queries),0.03,70.0,1000", "Square (5k queries),0.03,75.0,1000"),
    ),
    "certified above PGD": (
        "certified above attacked",
        "serious",
        long("pgd,0.03,55.0,1000", "certified,0.03,60.0,1000"),
    ),
    "IBP above PGD at a smaller radius": (
        "certified above attacked",
        "serious",
        long("pgd,0.02,55.0,1000", "IBP,0.03,60.0,1000"),
    ),
    "verified above clean": ("certified above attacked", "serious", long("verified accuracy,0.03,96.0,1000")),
    "alpha-beta-CROWN in linf above an attack in l2": (
        "certified above attacked",
        "serious",
        "model,attack,norm,eps,accuracy,n\na,pgd,l2,0.3,50.0,1000\na,alpha-beta-CROWN,linf,0.3,60.0,1000\n",
    ),
    "smoothing, as a column": (
        "certified above attacked",
        "serious",
        "model,clean,PGD-20 ε=0.5,randomized smoothing ε=0.5,n\na,77.0,40.0,43.0,1000\n",
    ),
    "a share that 360 images cannot give": (
        "impossible share",
        "serious",
        "model,attack,eps,accuracy,n\na,none,0,97.50,360\na,pgd,0.1,61.31,360\n",
    ),
    "two decimals of 1,000 images": ("impossible share", "minor", long("pgd,0.1,52.35,1000")),
    "0.5 of 15 images, as a share": (
        "impossible share",
        "minor",
        "model,attack,eps,accuracy,n\na,fgsm,0.1,0.700,15\na,pgd,0.1,0.500,15\n",
    ),
    "0.55 among 95.0 and 60.0": (
        "mixed scales",
        "serious",
        long("fgsm,0.03,60.0,1000", "pgd,0.03,0.55,1000"),
    ),
    "0.5234 among 95.12, n unknown": ("mixed scales", "minor", "model,clean,pgd eps=0.1\na,95.12,0.5234\n"),
    "a column of shares among columns of percentages": (
        "mixed scales",
        "minor",
        "model,clean,FGSM eps=0.03,PGD eps=0.03\na,95.02,60.14,0.55\nb,93.11,58.10,0.47\n",
    ),
    "a point without a zero": ("mixed scales", "minor", "model,clean,pgd eps=0.1\na,95.12,.52\n"),
    "percent signs in some cells": ("mixed scales", "minor", "model,clean,pgd eps=0.1\na,95 %,0.5\n"),
    "8 and 0.0314": ("mixed radii", "serious", long("fgsm,8,60.0,1000", "pgd,0.0314,55.0,1000")),
    "0.03 rounded": ("mixed radii", "serious", long("fgsm,8,60.0,1000", "pgd,0.03,55.0,1000")),
    "4 and 2/255 without a norm": (
        "mixed radii",
        "serious",
        long("fgsm,4,60.0,1000", "pgd,2/255,55.0,1000"),
    ),
    "16 and 0.1 without a norm": ("mixed radii", "minor", long("fgsm,16,60.0,1000", "pgd,0.1,55.0,1000")),
    "three radii, one figure": (
        "same at every radius",
        "serious",
        long("pgd,0.01,62.3,1000", "pgd,0.02,62.3,1000", "pgd,0.03,62.3,1000"),
    ),
    "two radii, one figure of many images": (
        "same at every radius",
        "serious",
        long("pgd,0.01,62.3,1000", "pgd,0.02,62.3,1000"),
    ),
    "nothing breaks at any radius": (
        "same at every radius",
        "minor",
        long("pgd,0.01,95.0,1000", "pgd,0.02,95.0,1000", "pgd,0.04,95.0,1000"),
    ),
    "robust and broken do not add up": (
        "sum of shares",
        "serious",
        "model,attack,eps,accuracy,success rate,n\na,none,0,95.0,,1000\na,pgd,0.1,60.0,20.0,1000\n",
    ),
    "success rate of 100 with half left": (
        "sum of shares",
        "serious",
        "model,attack,eps,accuracy,ASR,n\na,none,0,0.95,,1000\na,pgd,0.1,0.50,1.00,1000\n",
    ),
    "robust and a number of broken images do not add up": (
        "sum of shares",
        "serious",
        "model,attack,eps,accuracy,broken,n\na,none,0,95.0,,1000\na,pgd,0.1,60.0,200,1000\n",
    ),
    "an interval in columns of its own": (
        "interval of table",
        "serious",
        "model,attack,eps,accuracy,low,high,n\na,none,0,95.0,93.5,96.2,1000\na,pgd,0.1,60.0,61,64,1000\n",
    ),
    "a figure outside its interval": (
        "interval of table",
        "serious",
        long('pgd,0.1,"52.1 (53.0 to 55.2)",1000'),
    ),
    "an interval too short for n": ("interval of table", "minor", long('pgd,0.1,"52.1 [51.9, 52.3]",1000')),
    "an interval too long for n": ("interval of table", "minor", long('pgd,0.1,"52.1 (40.0 - 64.0)",1000')),
    "PGD-L2 in a row of linf": (
        "norm mismatch",
        "serious",
        "model,attack,norm,eps,accuracy,n\na,PGD-L2,linf,0.3,50.0,1000\n",
    ),
    "linf leaves more than l2": (
        "norm mismatch",
        "serious",
        "model,attack,norm,eps,accuracy,n\na,pgd,l2,0.3,50.0,1000\na,pgd,linf,0.3,60.0,1000\n",
    ),
    "away from the least likely class": (
        "early saturation",
        "serious",
        'model,"steps, eps, alpha",accuracy,n\na,none,43.7,1000\na,"10, 0.1, 0.01",40.0,1000\n'
        'a,"20, 1, 0.01",39.3,1000\n',
    ),
    "clean below robust": ("rising with radius", "serious", long("pgd,0.1,97.0,1000")),
    "larger radius leaves more": (
        "rising with radius",
        "serious",
        long("PGD-20,0.01,60.0,1000", "PGD20,0.02,65.0,1000"),
    ),
    "transfer below white box": (
        "black box below",
        "serious",
        long("PGD-20,0.03,60.0,1000", "PGD transfer,0.03,50.0,1000"),
    ),
}


@pytest.mark.breadth(20)
@pytest.mark.parametrize("name", SIGNS)
def test_what_cannot_be_is_seen(tmp_path: Path, name: str) -> None:
    expected, severity, text = SIGNS[name]
    found = looked(tmp_path, text)
    assert found[expected].severity == severity, found[expected]
    assert found[expected].remedy


SOUND = {
    "one attack with a plus": long("pgd,0.03,52.0,1000", "pgd + eot,0.03,56.0,1000"),
    "a union below its parts": long("pgd,0.03,52.0,1000", "cw,0.03,54.0,1000", "pgd+cw,0.03,51.0,1000"),
    "two of five images at three radii": (
        "model,attack,eps,accuracy,n\na,none,0,80.0,5\n"
        "a,pgd,0.03,40.0,5\na,pgd,0.06,40.0,5\na,pgd,0.09,40.0,5\n"
    ),
    "a part by one image, rounded": long("apgd-ce,0.03,52.04,10000", "autoattack,0.03,52.04,10000"),
    "AutoAttack on fewer images": long("apgd-ce,0.03,52.0,10000", "autoattack,0.03,53.0,500"),
    "more steps at another radius": long("pgd-20,0.03,52.0,1000", "pgd-100,0.01,60.0,1000"),
    "two images between PGD-20 and PGD-100": long("pgd-20,0.03,52.0,1000", "pgd-100,0.03,52.1,1000"),
    "a small certified share": long("pgd,0.03,55.0,1000", "certified,0.03,12.0,1000"),
    "certified at a smaller radius": long("pgd,0.03,55.0,1000", "certified,0.01,60.0,1000"),
    "certified in l2, attacked in linf": (
        "model,attack,norm,eps,accuracy,n\na,pgd,linf,0.3,50.0,1000\na,certified,l2,0.3,60.0,1000\n"
    ),
    "a mean of seeds": long("pgd,0.1,52.35 ± 0.41,1000"),
    "cut off, not rounded": "model,attack,eps,accuracy,n\na,none,0,97.7,360\na,pgd,0.1,61.38,360\n",
    "half a percent": long("fgsm,0.1,20.0,1000", "pgd,0.1,0.5,1000"),
    "one image of 360": "model,attack,eps,accuracy,n\na,none,0,95.83,360\na,pgd,0.1,0.28,360\n",
    "0.5 beside whole percentages of unknown n": "model,clean,pgd eps=0.1\na,95.1,0.5\n",
    "radii of l2 and of linf": (
        "model,attack,norm,eps,accuracy,n\na,pgd,l2,8,50.0,1000\na,pgd,linf,0.0314,60.0,1000\n"
    ),
    "radii of l2 without a norm": long("pgd,0.25,80.0,1000", "pgd,0.5,60.0,1000", "pgd,2,10.0,1000"),
    "everything is broken at three radii": long("pgd,0.1,0.0,1000", "pgd,0.2,0.0,1000", "pgd,0.3,0.0,1000"),
    "two equal figures of few images": (
        "model,attack,eps,accuracy,n\na,none,0,96,50\na,pgd,0.01,90,50\na,pgd,0.02,90,50\n"
    ),
    "a success rate among the correct ones": (
        "model,attack,eps,accuracy,success rate,n\na,none,0,95.0,,1000\na,pgd,0.1,60.0,36.8,1000\n"
    ),
    "a success rate of the target": (
        "model,attack,eps,accuracy,success rate,n\na,none,0,95.0,,1000\na,targeted pgd,0.1,60.0,5.0,1000\n"
    ),
    "a number of broken images": (
        "model,attack,eps,accuracy,broken,n\na,none,0,95.0,,1000\na,pgd,0.1,60.0,350,1000\n"
    ),
    "an interval of Wilson": long('pgd,0.1,"52.1 (49.0 to 55.2)",1000'),
    "an attack that works": (
        'model,"steps, eps, alpha",accuracy,n\na,none,47.8,1000\na,"20, 0.05, 0.01",30.0,1000\n'
        'a,"20, 0.1, 0.01",10.0,1000\na,"40, 0.2, 0.01",2.0,1000\n'
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_can_be_is_no_sign(tmp_path: Path, name: str) -> None:
    found = looked(tmp_path, SOUND[name])
    assert [one for one in found.values() if one.status == "sign" and one.audit != "size of table"] == []


MEASURED = 'model,"steps, eps, alpha",accuracy,n\na,none,50.2,400\n'
"""Rows of studies/photos-attack-as-published.yaml, as docs/results.md gives them."""
AWAY = (44.5, 45.2, 49.5, 42.8, 40.0)
TOWARD = (3.2, 20.0, 51.7, 2.0, 0.0)
SETTINGS = ("10, 0.1, 0.01", "20, 0.05, 0.01", "100, 0.01, 0.01", "20, 0.1, 0.01", "20, 1, 0.01")


@pytest.mark.parametrize(("figures", "status"), [(AWAY, "sign"), (TOWARD, "no sign")])
def test_the_sign_of_the_step_shows_in_a_measured_table(
    tmp_path: Path, figures: tuple[float, ...], status: str
) -> None:
    rows = "\n".join(f'a,"{settings}",{accuracy},400' for settings, accuracy in zip(SETTINGS, figures))
    assert looked(tmp_path, MEASURED + rows)["early saturation"].status == status


def test_the_assumption_is_said(tmp_path: Path) -> None:
    _, _, text = SIGNS["autoattack above apgd-ce"]
    assert "on the same 1,000 images" in looked(tmp_path, text)["whole above part"].evidence
    _, _, text = SIGNS["ensemble above FGSM, n unknown"]
    assert "if the images are the same" in looked(tmp_path, text)["whole above part"].evidence


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("model,venue,clean,PGD eps=0.1,AA may be unreliable\na,ICML,95.0,40.0,no\n")
    table = read_table(file)
    assert table.notes[1] == "not read: the columns 'venue', 'AA may be unreliable'"
    assert [row.attack for row in table.rows] == ["none", "pgd"]


def label(name: str, **settings: object) -> AttackLabel:
    values = {"eps": None, "steps": None, "restarts": None, "queries": None, "norm": None} | settings
    return AttackLabel(name, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "texts"),
    [
        (
            label("pgd", steps=20),
            ["PGD-20", "PGD20", "PGD^20", "PGD_{20}", "PGD (20 steps)", "20-step PGD", "PGD 20 steps"],
        ),
        (label("pgd", steps=20, restarts=10), ["PGD-20x10", "PGD-20-10", "PGD-20 (10 restarts)"]),
        (label("pgd", steps=40, restarts=3), ["PGD (steps=40, restarts=3)"]),
        (label("pgd", steps=7), ["PGD-7 (α=2/255)", "PGD (7 iterations)"]),
        (label("pgd", eps="8/255"), ["PGD (ε = 8/255)", "PGD eps=8/255"]),
        (label("pgd", norm="l2"), ["PGD-L2", "PGD ℓ2", "L2 PGD"]),
        (label("apgd-ce"), ["APGD-CE"]),
        (label("apgd-ce", steps=100), ["APGD-CE-100"]),
        (
            label("square", queries=5000),
            ["Square (5000 queries)", "Square-5000", "Square 5k", "Square (5,000 queries)"],
        ),
        (label("fgsm"), ["FGSM (%)", "fgsm"]),
    ],
)
def test_spellings_of_an_attack(expected: AttackLabel, texts: list[str]) -> None:
    assert {text: read_label(text) for text in texts} == dict.fromkeys(texts, expected)
