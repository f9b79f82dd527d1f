"""Robustness in a run's page: distributions by hand, pictures from the sheet, and the page's budget."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from attacked import RADII, attack, certify, corrupt, pictures
from folders import write_json, write_run, write_study
from pages import RUN, page_of
from PIL import Image

from stresslens.core.run_folder import RunFolder
from stresslens.report.load import read_run
from stresslens.report.run_robustness import BYTES, STEPS, run_robustness_sections
from stresslens.robustness.example_file import AttackedImage
from stresslens.robustness.example_images import save_adversarial_examples

KEY = "linf-fast-0a1b2c3d"


def attacked_run(root: Path, **options: object) -> Path:
    run = write_run(root, "cnn", 0)
    attack(run, **options)  # type: ignore[arg-type]
    return run


def arrays_of(run: Path, key: str = KEY) -> dict[str, np.ndarray]:
    with np.load(run / "robustness" / key / "result.npz") as arrays:
        return dict(arrays)


def test_the_section_is_there_and_in_its_place(tmp_path: Path) -> None:
    run = attacked_run(tmp_path)
    corrupt(run)
    certify(run)
    html, page = page_of(run)
    places = RUN.split()
    places.insert(places.index("classes"), "robustness")
    assert page.sections == places
    for said in (
        "An audit of the attacks found a serious sign: gradients.",
        "Checked, with no sign: evaluation mode.",
        "Not checked: transfer (no surrogate was given).",
        "Attempts, in order: fgsm, pgd 20, apgd ce.",
        "Cost: 123\u202f456 images forward and 98\u202f765 gradients, 12.5 s, 3.5 s for the audits.",
        "The first images of the test split that were broken",
        "Contrast",
        "Smoothing, L2 (sigma 0.25)",
    ):
        assert said in page.text, said
    assert len(html) < 400_000


def test_radii_and_iterates_by_hand(tmp_path: Path) -> None:
    run = attacked_run(tmp_path)
    (section,) = run_robustness_sections(read_run(RunFolder(run)))
    arrays = arrays_of(run)
    smallest = arrays["smallest"]
    assert [bar.what for bar in section.radii] == ["unattacked", "0.02", "0.04", "0.06", "0.08", "0.1"]
    assert [bar.n for bar in section.radii] == [int((smallest == eps).sum()) for eps in RADII]
    for bar, eps in zip(section.radii[1:], RADII[1:]):
        assert list(bar.parts) == [int(((smallest == eps) & (arrays["by"] == k)).sum()) for k in range(3)]
        assert sum(bar.parts) == bar.n
    assert section.survivors == np.isinf(smallest).sum()
    assert sum(bar.n for bar in section.radii) + section.survivors == 200
    broken = (smallest > 0) & np.isfinite(smallest)
    assert sum(bar.n for bar in section.steps) == broken.sum()
    assert max(bar.share for bar in section.steps) == max(bar.share for bar in section.radii) == 1


@pytest.mark.parametrize("steps", [[1], [1, 2, 3], [5, 5, 6], [20_000, 3], [0, 0], [10_000]])
def test_bins_of_iterates_hold_every_image(tmp_path: Path, steps: list[int]) -> None:
    run = attacked_run(tmp_path)
    arrays = arrays_of(run)
    random = np.random.default_rng(0)
    arrays["steps"] = random.choice(steps, 200)
    np.savez(run / "robustness" / KEY / "result.npz", **arrays)
    (section,) = run_robustness_sections(read_run(RunFolder(run)))
    broken = (arrays["smallest"] > 0) & np.isfinite(arrays["smallest"])
    assert sum(bar.n for bar in section.steps) == broken.sum()
    assert section.steps[-1].n > 0
    assert len(section.steps) <= len(STEPS) + 1


def test_pictures_are_the_parts_of_the_sheet(tmp_path: Path) -> None:
    run = attacked_run(tmp_path, side=8)
    html, page = page_of(run)
    entries = json.loads((run / "robustness" / KEY / "examples" / "examples.json").read_text())
    for entry in entries:
        for part in ("original", "change", "adversarial"):
            left, top, width, height = entry[part]
            assert f"--x:{left};--y:{top};--pw:{width};--ph:{height}" in html
    assert page.text.count("change × ") == len(entries) == 24
    assert html.count("data:image/png") == 2
    first = entries[0]
    assert f"→ {first['prediction']} ({100 * first['confidence']:.0f} %)" in page.text
    assert f"ε = {first['eps']:g}" in page.text


def test_one_image_at_each_radius_is_a_row_of_its_own(tmp_path: Path) -> None:
    run = attacked_run(tmp_path)
    original = np.repeat(pictures(1, 8, 1), 3, axis=0)
    common = {
        "kind": "ladder",
        "index": 0,
        "truth": 0,
        "clean_prediction": 0,
        "clean_confidence": 0.9,
        "attack": "fgsm",
    }
    facts = [
        AttackedImage.model_validate(common | {"eps": eps, "prediction": k, "confidence": 0.5})
        for k, eps in enumerate((0.3, 0.1, 0.2))
    ]
    save_adversarial_examples(
        run / "robustness" / KEY / "examples", original, np.clip(original + 0.1, 0, 1), facts
    )
    _, page = page_of(run)
    text = " ".join(page.text.split())
    assert (
        "The first image of the test split at each radius, fgsm unattacked 0 (90 %) ε = 0.1 → 1 (50 %) "
        "ε = 0.2"
    ) in text
    assert "From left to right" not in text


@pytest.mark.breadth(4)
@pytest.mark.parametrize("kind", ["ladder", "spread"])
@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0.1001, "size 0.1001, outside the ball"),
        (0.2, "size 0.2, outside the ball"),
        (0.1, ""),
        (float(np.float32(0.1)), ""),
        (0.099, ""),
        (0.05, "size 0.05"),
        (None, ""),
    ],
)
def test_a_picture_from_outside_the_ball_is_called_so(
    tmp_path: Path, kind: str, size: float | None, said: str
) -> None:
    run = attacked_run(tmp_path)
    fact = {
        "kind": kind,
        "index": 0,
        "truth": 0,
        "clean_prediction": 0,
        "clean_confidence": 0.9,
        "attack": "pgd",
        "eps": 0.1,
    }
    fact |= {"prediction": 1, "confidence": 0.5, "size": size}
    original = pictures(1, 8, 1)
    save_adversarial_examples(
        run / "robustness" / KEY / "examples",
        original,
        np.clip(original + 0.1, 0, 1),
        [AttackedImage.model_validate(fact)],
    )
    text = page_of(run)[1].text
    assert re.findall(r"size [\d.]+(?:, outside the ball)?", text) == ([said] if said else [])


def test_large_sheets_stay_in_the_budget_and_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path, "cnn", 0, pictures=240, side=64, channels=3)
    random = np.random.default_rng(0)
    for k in range(4):
        folder = attack(run, key=f"linf-fast-{k}", side=8)
        Image.fromarray(random.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(
            folder / "examples" / "pictures.png"
        )
    found = run_robustness_sections(read_run(RunFolder(run)))
    shown = [section.pictures for section in found if section.pictures]
    assert sum(len(rule) for each in shown for rule in each.sheets) <= BYTES + 1000
    assert sum(each.left_out for each in shown) == 24 * sum(not each.sheets for each in shown) > 0
    html, page = page_of(run)
    assert len(html.encode()) < 2_000_000
    assert "24 more are not shown" in page.text
    rules = re.findall(r"\.(sheet\d+)\{", html)
    assert len(set(rules)) == len(rules)


def test_pictures_come_from_their_own_folder_only(tmp_path: Path) -> None:
    run = attacked_run(tmp_path)
    file = run / "robustness" / KEY / "examples" / "examples.json"
    entries = json.loads(file.read_text())
    (run / "secret.png").write_bytes((file.parent / "pictures.png").read_bytes())
    for name in ("../../../secret.png", str(run / "secret.png"), "missing.png", "\0"):
        write_json(file, [entry | {"file": name} for entry in entries])
        html, page = page_of(run)
        assert html.count("data:image/png") == 1
        assert "24 more are not shown" in page.text
    file.write_text("[{")
    assert "more are not shown" not in page_of(run)[1].text


def test_results_without_arrays_show_their_curve(tmp_path: Path) -> None:
    run = attacked_run(tmp_path)
    (run / "robustness" / KEY / "result.npz").unlink()
    (section,) = run_robustness_sections(read_run(RunFolder(run)))
    assert (section.survivors, section.steps) == (None, [])
    assert section.attempts[-3:] == ["fgsm", "pgd 20", "apgd ce"]
    assert "survived every radius" not in page_of(run)[1].text


def test_the_page_is_made_again_when_a_result_changes(tmp_path: Path) -> None:
    from stresslens.report.page import write_report

    study = write_study(tmp_path, ["a", "b"])
    attack(study / "run0" / "seed-0")
    write_report(study)
    pages = [study / f"run{k}" / "seed-0" / "report.html" for k in (0, 1)]
    before = [page.stat().st_mtime_ns for page in pages]
    write_report(study, anew=False)
    assert [page.stat().st_mtime_ns for page in pages] == before
    attack(study / "run1" / "seed-0")
    write_report(study, anew=False)
    assert pages[0].stat().st_mtime_ns == before[0]
    assert pages[1].stat().st_mtime_ns > before[1]
