"""One fault at a time in a package that was good: each is named before Vespa would be asked."""

import pytest
from package_faults import FAULTS, SCHEMA
from vespa_bundles import small_bundle

from late_interaction.errors import SettingsError
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.package import build_package, check_package
from vespa_app.settings import AppSettings


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    metadata = MetadataSchema({"kind": FieldType.STRING, "year": FieldType.LONG})
    settings = AppSettings(dim=16, query_rows=8, metadata=metadata, candidates=("centroid", "pooled", "bm25", "exhaustive"))
    return build_package(small_bundle(tmp_path_factory.mktemp("bundles") / "small"), settings)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(package, tmp_path, fault):
    name, old, new, message = FAULTS[fault]
    folder = package.write(tmp_path / "app")
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(SettingsError, match=message) as caught:
        check_package(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [SCHEMA, "schemas/colbert_application.sd", "colbert-vespa.json", ".onnx"])
def test_a_missing_file_is_named(package, tmp_path, name):
    folder = package.write(tmp_path / "app")
    file = folder / name if "." in name[1:] else next((folder / "embedder").glob(f"*{name}"))
    file.unlink()
    with pytest.raises(SettingsError, match=name.rpartition("/")[2]):
        check_package(folder)


def test_what_is_no_package(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SettingsError, match="not an application package"):
            check_package(folder)


def test_a_user_may_add_to_the_schema(package, tmp_path):
    folder = package.write(tmp_path / "app")
    text = (folder / SCHEMA).read_text()
    more = """
    # mine
    rank-profile mine inherits bm25, late_interaction {
        inputs { query(boost) double }
        function boosted() { expression: query(boost) * firstPhase }
        first-phase { expression: boosted }
        match-features: boosted bm25(title)
    }
}
"""
    (folder / SCHEMA).write_text(text.rstrip().removesuffix("}") + more)
    check_package(folder)
