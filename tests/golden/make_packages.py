"""Writes tests/golden/packages: the text files of packages of the main shapes. Run after a change that is meant, and read the
diff:

    cd tests && ../.venv/bin/python -m golden.make_packages
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from vespa_bundles import small_bundle

from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.package import Package, build_package
from vespa_app.settings import AppSettings

__all__ = ["CASES", "PACKAGES", "golden_package", "texts"]

PACKAGES = Path(__file__).resolve().parent / "packages"
_METADATA = MetadataSchema(
    {
        "kind": FieldType.STRING,
        "public": FieldType.BOOL,
        "ratio": FieldType.DOUBLE,
        "tags": FieldType.STRINGS,
        "year": FieldType.LONG,
    }
)
CASES = {
    "plain": AppSettings(dim=16, query_rows=8, embedder=False),
    "centroid": AppSettings(dim=16, query_rows=8, metadata=_METADATA, candidates=("centroid", "pooled", "bm25", "exhaustive")),
    "binary": AppSettings(dim=128, query_rows=32, codec="binary", candidates=("pooled",), schema="notes", search_threads=1),
}


def golden_package(name: str, scratch: Path) -> Package:
    settings = CASES[name]
    return build_package(small_bundle(scratch / name, dim=settings.dim, trained=name == "centroid"), settings)


def texts(package: Package) -> dict[str, str]:
    """The checksum of the bundle is not part of what is pinned: it changes with the bundle's format."""
    sha256 = package.description["bundle_sha256"]
    found = {name: content.decode() for name, content in package.files.items() if isinstance(content, bytes)}
    return {name: text.replace(sha256, "(checksum)") for name, text in found.items()}


if __name__ == "__main__":
    shutil.rmtree(PACKAGES, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            for name, text in texts(golden_package(case, Path(folder))).items():
                file = PACKAGES / case / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
