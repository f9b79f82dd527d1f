"""What an exported folder needs to become a container that serves it: a Dockerfile, the versions of all
packages, and stresslens itself as a wheel."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable

from stresslens.config import registry
from stresslens.config.own_plugins import own_plugins
from stresslens.core.extras import extra, needed_extra
from stresslens.core.run_folder import ModelCard, RunFolder
from stresslens.core.version import __version__

PACKAGE = "stresslens"
WHEEL = f"{PACKAGE}-{__version__}-py3-none-any.whl"
TAG = b"Wheel-Version: 1.0\nGenerator: stresslens\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
DOCKERFILE = """\
# docker build -t {name} . && docker run -p 127.0.0.1:8000:8000 {name}
# curl --data-binary @image.png -H 'Content-Type: image/png' localhost:8000/predict
#
# With -e STRESSLENS_TOKEN=… each request needs that token. requirements.txt has the versions of the
# machine that exported the model. pip's settings are build arguments, for example the index of torch's
# builds for processors alone: --build-arg PIP_EXTRA_INDEX_URL=…
FROM python:{python}-slim
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /model
COPY requirements.txt {wheel} ./
RUN pip install --no-cache-dir -r requirements.txt && pip install --no-cache-dir --no-deps {wheel}
COPY . .
RUN useradd --no-create-home server
USER server
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD python -c \\
  "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=5)"
CMD ["stresslens", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"{trust}]
"""


def docker_files(folder: RunFolder, card: ModelCard) -> dict[str, bytes]:
    """The files by their names, beside those of a safetensors export of a run. The container executes the
    run's own plug-ins. Raises ConfigError where the packages of the service are not installed, whose
    versions are needed."""
    variant = re.sub(r"[^a-z0-9]+", "-", folder.path.resolve().parent.name.lower()).strip("-") or "model"
    own = own_plugins(card.model)
    plugin = None if own else registry.plugin("models", registry.name_and_options("models", card.model)[0])
    needed = None if plugin is None else needed_extra(plugin)
    python = ".".join(map(str, sys.version_info[:2]))
    return {
        "Dockerfile": DOCKERFILE.format(
            name=variant, python=python, wheel=WHEEL, trust=', "--trust"' if own else ""
        ).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in installed_versions(needed)).encode(),
        WHEEL: _wheel(),
    }


def installed_versions(*extras: str | None) -> list[str]:
    """`package==version` for all that the service and these extras import, as installed here, sorted. The
    part of a version that names a build (+cpu) is left out, since registries have others."""
    with extra("serve", "an export for docker"):
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(PACKAGE, each or "") for each in ("", "serve", *extras)]
    while todo:
        name, of_extra = todo.pop()
        if (name, of_extra) in seen:
            continue
        seen.add((name, of_extra))
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another system, or of a build that is not needed
            continue
        found[name] = installed.version.partition("+")[0]
        for text in installed.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": of_extra}):
                todo += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return sorted(f"{name}=={version}" for name, version in found.items() if name != PACKAGE)


def _wheel() -> bytes:
    """This package as a wheel (PEP 427), from its installed files."""
    info, contents = f"{PACKAGE}-{__version__}.dist-info", dict(_below(files(PACKAGE), PACKAGE))
    installed = metadata.distribution(PACKAGE)
    contents[f"{info}/METADATA"] = str(installed.read_text("METADATA")).encode()
    contents[f"{info}/entry_points.txt"] = str(installed.read_text("entry_points.txt")).encode()
    contents[f"{info}/WHEEL"] = TAG
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.writerow([name, f"sha256={digest}", len(content)])
    rows.writerow([f"{info}/RECORD", "", ""])
    contents[f"{info}/RECORD"] = record.getvalue().encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _below(folder: Traversable, place: str) -> list[tuple[str, bytes]]:
    found = []
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        name = f"{place}/{each.name}"
        if each.is_dir():
            found += _below(each, name) if each.name != "__pycache__" else []
        else:
            found.append((name, each.read_bytes()))
    return found
