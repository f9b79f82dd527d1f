"""`stresslens doctor`: shows what this machine can do."""

from __future__ import annotations

from stresslens.cli.options import Json
from stresslens.cli.terminal import print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Show what this machine can do.

    It prints versions, processor, device, precision, free disk, and the folders for data and caches.
    """
    import shutil

    import torch

    from stresslens.core.cache_folder import cache_problem, cache_root
    from stresslens.core.data import data_root
    from stresslens.core.devices import pick_device
    from stresslens.core.run_folder import environment
    from stresslens.core.torchvision_compat import torchvision

    facts = environment({}).as_json()
    facts.pop("command")
    facts["device"] = pick_device("auto")
    facts["threads"] = torch.get_num_threads()
    facts["bfloat16 in hardware"] = (
        bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        if facts["device"] == "cpu"
        else torch.cuda.is_bf16_supported()
    )
    facts["torchvision imports"] = bool(torchvision().__version__)
    facts["data folder"] = str(data_root())
    pictures = cache_root() / "pictures"
    facts["decoded images, GB"] = round(
        sum(f.stat().st_size for f in pictures.rglob("*") if f.is_file()) / 1e9, 1
    )
    problem = cache_problem()
    facts["cache folder"] = f"{cache_root()} {problem}" if problem else str(cache_root())
    existing = next(folder for folder in (cache_root(), *cache_root().parents) if folder.exists())
    facts["free disk, GB"] = round(shutil.disk_usage(existing).free / 1e9, 1)
    if as_json:
        print_json(facts)
        return
    rows = [
        [key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)]
        for key, value in facts.items()
    ]
    print_table(["fact", "here"], rows, "doctor")
