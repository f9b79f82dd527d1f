"""Tables as spreadsheets of every country write them: read right, or refused with file and line; never read
wrong in silence."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stresslens.core.errors import DataError
from stresslens.core.evidence import CLEAN
from stresslens.robustness.accuracy_tables import read_table

MANY = settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck])
NB, NARROW, THIN = "\u00a0", "\u202f", "\u2009"


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def figures(file: Path) -> list[tuple[str, float, float, int | None, int | None]]:
    return [(r.attack, round(r.eps, 6), round(r.accuracy, 6), r.n, r.steps) for r in read_table(file).rows]


THE_SAME = [
    (CLEAN, 0.0, 0.912, 10000, None),
    ("fgsm", round(8 / 255, 6), 0.501, 10000, None),
    ("pgd", round(8 / 255, 6), 0.405, 10000, 40),
]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            "attack;eps;accuracy;n\nnone;0;91,2;10.000\nFGSM;8/255;50,1;10.000\nPGD-40;8/255;40,5;10.000\n",
            id="semicolons and decimal commas, points between thousands",
        ),
        pytest.param(
            f"attack;eps;accuracy;n\r\nnone;0;91,2{NB}%;10{NB}000\r\n"
            f"FGSM;8{NB}/{NB}255;50,1{NARROW}%;10{NARROW}000\r\nPGD-40;8/255;40,5{THIN}%;10{THIN}000\r\n",
            id="spaces that do not break, lines of Windows",
        ),
        pytest.param(
            '\ufeffattack,eps,accuracy,n\nnone,0,"91,2 %",10000\nFGSM,8/255,"50,1 %",10000\n'
            'PGD-40,8/255,"40,5 %",10000\n',
            id="byte order mark, decimal commas in quotation marks",
        ),
        pytest.param(
            'attack\teps\taccuracy\tn\nnone\t0\t91.2%\t"10,000"\nFGSM\t8/255\t50.1%\t10,000\n'
            "PGD-40\t8/255\t40.5%\t10'000\n",
            id="tabs",
        ),
        pytest.param(
            "sep=;\r\nattack;eps;accuracy;n;\r\nnone;0;91,2;10000;\r\nFGSM;8/255;50,1;10000;\r\n"
            "PGD-40;8/255;40,5;10000;\r\n;;;;\r\n",
            id="the first line of Excel, and a delimiter at each end",
        ),
        pytest.param(
            "attack;eps;accuracy;n\nnone;0;91,2;10000\nFGSM;8/255;50,1;10000\nPGD-40;8/255;40,5;10000\n".encode(
                "utf-16"
            ),
            id="UTF-16",
        ),
        pytest.param(
            "attack;eps;accuracy;n\rnone;0;91,2;10000\rFGSM;8\u2044255;50,1;10000\rPGD-40;8/255;40,5;10000\r",
            id="lines of old Macs, and a fraction slash",
        ),
        pytest.param(
            'attack;eps;"accuracy\nin percent";n\nnone;0;91,2;10000\nFGSM;8/255;50,1;10000\n'
            "PGD-40;8/255;40,5;10000\n",
            id="a column name over two lines",
        ),
        pytest.param(
            "attack;eps (/255);accuracy;n\nnone;0;0,912;10000\nFGSM;8;0,501;10000\n"
            "PGD-40;8/255;0,405;10000\n",
            id="radii in 255ths by the column's name",
        ),
        pytest.param(
            "n;clean;FGSM ε=8/255;PGD-40 ε=8/255\n10000;91,2;50,1;40,5\n", id="a column for each attack"
        ),
        pytest.param(
            "attack | eps | accuracy | n\n--- | :-: | --: | ---\nnone | 0 | 91.2 | 10000\n"
            "FGSM | 8/255 | 50.1 | 10,000\nPGD (40 steps) | 8/255 | 40.5 | 10000\n",
            id="Markdown without pipes at the ends",
        ),
        pytest.param(
            "| attack | eps | accuracy | n | |\n|---|---|---|---|---|\n| none | 0 | 91.2 | 10000 | |\n"
            "| FGSM | 8/255 | 50.1 | 10000 | |\n| PGD-40 | 8/255 | **40.5** | 10000 | |\n",
            id="Markdown with an empty column",
        ),
    ],
)
def test_the_same_table_of_many_countries(tmp_path: Path, content: str | bytes) -> None:
    assert figures(written(tmp_path, content)) == THE_SAME


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("attack;eps;accuracy\nfgsm;0,1;50.1\n", 2, "a point or a comma"),
        ('attack,eps,accuracy\nfgsm,0.1,50.1\npgd,0.1,"40,5"\n', 3, "'40,5' here and '0.1' in line 2"),
        ("attack;eps;accuracy;n\nfgsm;1/4;50;10.000\n", 2, "may have decimals or thousands"),
        ("attack;eps;accuracy;n\nfgsm;1/4;50,1;10,000\n", 2, "may have decimals or thousands"),
        ("attack;eps;accuracy;n\nfgsm;1/4;50;1,00,000\n", 2, "expected a whole number"),
        ("attack;eps;accuracy;n\nfgsm;1/4;50;1,0\n\npgd;1/4;50;1,5\n", 4, "expected a whole number"),
        ("attack,accuracy\nfgsm,91,2\n", 2, "needs quotation marks"),
        ('attack,eps,accuracy,remark\nfgsm,0.1,50,"good\npgd,0.1,40,bad\n', 2, "unexpected end of data"),
        ('attack,eps,accuracy\nfgsm,0.1,"50"1\n', 2, "quotation marks stand around a whole cell"),
        ("attack;eps;accuracy\nfgsm;0,1;1.050,1\n", 2, "expected an accuracy"),
        ("attack;eps;accuracy\nfgsm;3 %;50,1\n", 2, "radius '3%'"),
        ("attack;eps;accuracy\nPGD eps=0,1;;50.1\n", 2, "radius '0,1'"),
        ("attack;eps;accuracy\nfgsm;0,1;−5\n", 2, "expected an accuracy"),
        (b"attack;eps;accuracy\nfgsm;0,1;50\n\xe9;0,1;50\n", 3, "save the table as CSV in UTF-8"),
    ],
)
def test_what_is_unclear_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, line: int, message: str
) -> None:
    with pytest.raises(DataError) as told:
        read_table(written(tmp_path, content))
    assert f"table.csv:{line}: " in str(told.value)
    assert message in str(told.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04\x14\x00", b"\xd0\xcf\x11\xe0\xa1\xb1"])
def test_a_workbook_is_told_as_one(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="save the table as CSV"):
        read_table(written(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "steps", "queries"),
    [
        ("PGD 1,000 steps", 1000, None),
        ("PGD (1.000 steps)", 1000, None),
        ("PGD-40", 40, None),
        ("Square (5.000 queries)", None, 5000),
        ("Square 5,000 queries", None, 5000),
        ("Square (5k queries)", None, 5000),
    ],
)
def test_thousands_in_the_name_of_an_attack(
    tmp_path: Path, name: str, steps: int | None, queries: int | None
) -> None:
    (row,) = read_table(written(tmp_path, f'attack;eps;accuracy\n"{name}";0,1;50,5\n')).rows
    assert (row.steps, row.queries) == (steps, queries)


@pytest.mark.parametrize(
    ("name", "attack", "eps", "steps"),
    [
        ("FGSM (8/255)", "fgsm", 8 / 255, None),
        ("PGD-20 (8 / 255)", "pgd", 8 / 255, 20),
        ("PGD-20 [8/255]", "pgd", 8 / 255, 20),
        ("PGD 8/255", "pgd", 8 / 255, None),
        ("PGD@8/255", "pgd", 8 / 255, None),
        ("PGD (20 steps, 0.03)", "pgd", 0.03, 20),
        ("AutoAttack (L2, 0.5)", "autoattack", 0.5, None),
        ("PGD (8/255, 20 steps)", "pgd", 8 / 255, 20),
    ],
)
def test_a_radius_without_a_sign_is_read_from_the_name(
    tmp_path: Path, name: str, attack: str, eps: float, steps: int | None
) -> None:
    long = written(tmp_path, f'attack;accuracy\nnone;90.5\n"{name}";50.5\n')
    wide = tmp_path / "table.md"
    wide.write_text(f"| model | clean | {name} |\n|---|---|---|\n| a | 90.5 | 50.5 |\n")
    for file in (long, wide):
        table = read_table(file, eps=0.9)
        row = table.rows[1]
        assert (row.attack, row.steps, row.eps) == (attack, steps, pytest.approx(eps))
        assert f"radii without a sign are read from names such as {name!r}" in table.notes


def test_a_column_of_radii_knows_better_than_a_number_in_a_name(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, 'attack;eps;accuracy\n"PGD-20 (0.01)";0.1;50.5\n'))
    assert table.rows[0].eps == 0.1
    assert "without a sign" not in "".join(table.notes)


@pytest.mark.parametrize("name", ["PGD (20)", "C&W (κ=0)", "PGD (alpha = 2/255)", "smoothing (sigma 0.5)"])
def test_other_numbers_in_a_name_are_no_radius(tmp_path: Path, name: str) -> None:
    (row,) = read_table(written(tmp_path, f'attack;accuracy\n"{name}";50.5\n'), eps=0.1).rows
    assert row.eps == 0.1
    assert row.attack.count("(") == row.attack.count(")")


def test_intervals_and_success_rates_with_decimal_commas(tmp_path: Path) -> None:
    text = "attack;eps;accuracy;low;high;success rate\nfgsm;0,1;50,5 ± 1,2;49,1;52,0;40,5 %\n"
    (row,) = read_table(written(tmp_path, text)).rows
    assert row.written == "50.5 ± 1.2 (49.1 to 52.0)"
    assert row.broken == "40.5 %"
    assert row.grain == pytest.approx(0.001)


def test_lines_that_begin_with_a_hash_are_told(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "# made by hand\nmodel,clean\n#1,0.5\nm,0.4\n"))
    assert len(table.rows) == 1
    assert "not read: lines that begin with # (2)" in table.notes


@st.composite
def spellings(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, float, float, int | None, int | None]], bool]:
    """A table, what it says, and whether it can be unclear."""
    seed = random.Random(draw(st.integers(0, 10**6)))
    decimal, thousands = (
        draw(st.sampled_from(".,")),
        draw(st.sampled_from(["", ",", ".", "'", " ", NB, NARROW])),
    )
    percent = draw(st.sampled_from(["", "%", " %", f"{NB}%", f"{NARROW}%"]))
    delimiter = draw(st.sampled_from(";,\t"))
    rows, said = [["Attack", "eps", "Accuracy", "n"]], []
    for _ in range(seed.randint(1, 5)):
        accuracy, n, steps = seed.randint(1, 1000), seed.randint(1, 2 * 10**6), seed.randint(1, 200)
        eps = seed.choice([(f"{k}/255", k / 255) for k in (1, 2, 8)] + [(f"0{decimal}05", 0.05)])
        share = f"{accuracy / 10:.1f}".replace(".", decimal)
        rows.append([f"PGD-{steps}", eps[0], share + percent, f"{n:,}".replace(",", thousands)])
        said.append(("pgd", round(eps[1], 6), round(accuracy / 1000, 6), n, steps))
    if not percent:
        rows[0][2] = "Accuracy [%]"
    out = io.StringIO()
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return out.getvalue().encode(encoding), said, thousands == decimal


def check_spelling(folder: Path, table: tuple[bytes, list[tuple[str, float, float, int, int]], bool]) -> None:
    content, said, unclear = table
    try:
        read = figures(written(folder, content))
    except DataError:
        if not unclear:
            raise
        return
    assert read == said


@MANY
@given(table=spellings())
def test_any_spelling(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[bytes, list[object], bool]
) -> None:
    check_spelling(tmp_path_factory.getbasetemp(), table)  # type: ignore[arg-type]


@pytest.mark.slow
@settings(MANY, max_examples=5000)
@given(table=spellings())
def test_many_spellings(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[bytes, list[object], bool]
) -> None:
    check_spelling(tmp_path_factory.getbasetemp(), table)  # type: ignore[arg-type]
