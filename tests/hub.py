"""The Hugging Face hub as it is found without a network: its cache."""

from __future__ import annotations

from pathlib import Path

import pytest


def hub_cache(home: Path, monkeypatch: pytest.MonkeyPatch, repository: str) -> Path:
    """Where huggingface_hub, without a network, looks for the files of a repository."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = home / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    return folder / "snapshots" / "0123"
