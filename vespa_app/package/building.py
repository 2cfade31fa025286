"""Build an application package: bundle and settings in, files out."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.codebook import CODEBOOK
from late_interaction.files import atomic_write, copy_file, files_below, make_folders, replace_folder, safe_join
from late_interaction.metadata import MetadataSchema
from late_interaction.one_vector import MEAN, chosen_encoding, one_vector
from vespa_app.candidates import needed_encoding
from vespa_app.candidates.effort import KnownEfforts, MeasuredEffort
from vespa_app.codecs import CODECS, bundle_codebooks, codebook_sha256
from vespa_app.package.cd_tests import cd_tests
from vespa_app.package.checks import check_files
from vespa_app.package.constants import constant_path, tensor_file
from vespa_app.package.embedder import embedder_component, embedder_differences
from vespa_app.package.explain import README, explain_package
from vespa_app.package.schema import schema_text
from vespa_app.package.services import deployment_xml, hosts_xml, overrides_xml, services_xml
from vespa_app.package.settings_checks import check_bundle, check_new_settings
from vespa_app.running import Description
from vespa_app.running.description import DESCRIPTION_FILE, DESCRIPTION_SCHEMA, description_schema
from vespa_app.running.layouts import embedder_of
from vespa_app.settings import AppSettings, DenseSettings, OneVectorSettings
from vespa_app.settings.application_settings import MAX_HITS, SCORES, asks_dense

SETTINGS_FILE = "app.toml"
QUERY_PROFILE = "search/query-profiles/default.xml"
_OWN_FILES = re.compile(
    r"(services|hosts|deployment|validation-overrides)\.xml|app\.toml|colbert-vespa\.json|README\.md|schemas/\w+\.sd"
    r"|search/query-profiles/default\.xml|codebooks/\w+\.tbf|embedder/\w+\.(onnx|tokenizer\.json)"
    r"|tests/(system-test|staging-setup|staging-test)/[\w-]+\.json"
)  # limit of a package

__all__ = [
    "Package",
    "build_package",
    "complete",
    "default_settings",
    "embedder_components",
    "is_package_folder",
]


@dataclass(frozen=True)
class Package:
    """An application package.

    Attributes:
        files: path inside the package -> its bytes, or the file to copy.
        description: what the application reports about itself.
    """

    files: Mapping[str, bytes | Path]
    description: Description

    def explained(self, query_url: str | None = None) -> Package:
        """Return the package plus a README.md on the purpose of each file, field and rank profile.

        Args:
            query_url: URL in its commands; by default where the settings say that it runs.
        """
        texts = {name: content for name, content in self.files.items() if name.startswith("schemas/")}
        schemas = {Path(name).stem: _text(content) for name, content in texts.items()}
        text = explain_package(self.files, schemas, self.description, query_url)
        return Package({**self.files, README: text.encode()}, self.description)

    def write(self, folder: str | Path) -> Path:
        """Write the package as `folder`, replacing an older one of ours; never half-written.

        Args:
            folder: the folder.

        Returns:
            the folder.

        Raises:
            UsageError: if anything else exists there, or the older one has files that no package of ours has.
        """
        target = Path(folder)
        with replace_folder(target, owned=is_package_folder) as staging:
            for name, content in self.files.items():
                file = safe_join(staging, name)
                if isinstance(content, Path):
                    copy_file(content, file)
                else:
                    make_folders(file.parent)
                    atomic_write(file, content)
            check_files(staging, self.description)
        return target


def is_package_folder(folder: Path) -> bool:
    """Tell whether `folder` is a package of ours, known by its description, and nothing else, so that it may be replaced."""
    try:
        described = json.loads((folder / DESCRIPTION_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    names = list(files_below(folder))
    return isinstance(described, dict) and "bundle_sha256" in described and all(_OWN_FILES.fullmatch(name) for name in names)


def _text(content: bytes | Path) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


def default_settings(
    bundle: Bundle,
    metadata: MetadataSchema,
    *,
    codec: str | None = None,
    candidates: tuple[str, ...] = (),
    recall: float | None = None,
) -> AppSettings:
    """Return settings that suit the bundle.

    Candidates are `centroid` if it has a codebook, else `pooled`; with dense models also `dense` and `hybrid`, which fuses
    all scores. `build_package` checks the result.

    Args:
        bundle: the bundle.
        metadata: metadata fields.
        codec: the codec; None to choose one.
        candidates: the candidates; None to choose them.
        recall: share of the exact top 10 that the first of the candidates should find; it determines effort, and the codec
            if none is given (vespa_app.candidates.effort). Without it, the codec is that of AppSettings, and the effort that
            of the bundle's own measurement, if it has one of these candidates, or else that of AppSettings.

    Raises:
        SettingsError: if the goal was never reached.
    """
    books = bundle_codebooks(bundle)
    more = ("dense", "hybrid") if bundle.manifest.dense else ()
    measured = bundle.manifest.candidates
    first = measured.strategy if measured else "centroid" if CODEBOOK in bundle.manifest.codebooks else "pooled"
    names = tuple(candidates) or (first, "bm25", *more, "exhaustive")
    dense = {
        name: DenseSettings(part.dim, distance="prenormalized-angular" if part.normalized else "dotproduct")
        for name, part in bundle.manifest.dense.items()
        if any(map(asks_dense, names))
    }
    bits, efforts = books.residual.bits if books.residual else None, KnownEfforts.of(names[0], bundle)
    if codec is None:
        codec = AppSettings.codec if recall is None else efforts.codec_for(recall, bundle.manifest.dim, bits)
    known = CODECS.get(codec)
    effort = MeasuredEffort(0) if recall is None else efforts.effort_for(recall, codec, bits or AppSettings.residual_bits)
    if measured and recall is None and names[0] == measured.strategy:
        effort = MeasuredEffort(measured.recall, measured.probes or effort.probes, measured.rerank)
    settings = AppSettings(
        dim=bundle.manifest.dim,
        probes=effort.probes,
        rerank=effort.rerank,
        residual_bits=bits if bits and known and known.needs_codebook else AppSettings.residual_bits,
        thresholds=known is not None and known.takes_thresholds and books.thresholds is not None,
        query_rows=bundle.manifest.query.length,
        embedder=bundle.encodes,
        metadata=metadata,
        codec=codec,
        candidates=names,
        dense=dense,
        weights=dict.fromkeys(SCORES, 1.0) if dense and "hybrid" in names else {},
    )
    return dataclasses.replace(settings, one_vector=_one_vector(bundle, settings))


def _one_vector(bundle: Bundle, settings: AppSettings) -> OneVectorSettings:
    """Return the one vector's settings. int8 cells find as much as floats (performance/notes.md)."""
    encoding = chosen_encoding(bundle) if needed_encoding(settings) else ""
    if encoding in ("", MEAN):
        return settings.one_vector
    return OneVectorSettings(encoding, one_vector(bundle, encoding).dim, "int8")


def build_package(bundle: Bundle, settings: AppSettings) -> Package:
    """Return everything Vespa needs, in memory except for the model.

    Args:
        bundle: the bundle.
        settings: settings of the application.

    Raises:
        SettingsError: if settings and bundle do not fit, or Vespa would refuse the result.
    """
    check_new_settings(settings)
    check_bundle(bundle, settings)
    indexes = settings.index_settings
    embedder = embedder_of(bundle.sha256, settings)
    differences = embedder_differences(bundle) if settings.embedder else ()
    codebook = codebook_sha256(bundle)
    main, *further = (Description(index_settings, bundle.sha256, codebook, differences) for index_settings in indexes.values())
    main = dataclasses.replace(main, beside=tuple(further))
    files: dict[str, bytes | Path] = {}
    for name, index_settings in indexes.items():
        files[f"schemas/{name}.sd"] = schema_text(index_settings, embedder.id).encode()
        files |= _constants(bundle, index_settings)
    if settings.embedder:
        files[embedder.model] = bundle.model_path(settings.precision or bundle.default_precision)
        files[embedder.tokenizer] = bundle.file("tokenizer.json")
    modes = {name: index_settings.mode for name, index_settings in indexes.items()}
    if settings.cloud is not None:
        codec = CODECS[settings.codec]
        wanted = codec.needs_codebook or settings.thresholds
        encoding = needed_encoding(settings)
        books = bundle_codebooks(bundle, codebook=wanted, thresholds=settings.thresholds, encoding=encoding)
        files |= {name: text.encode() for name, text in cd_tests(main, books).items()}
    return complete(files, main, modes, embedder_components(bundle, settings), settings)


def complete(
    files: Mapping[str, bytes | Path],
    main: Description,
    modes: Mapping[str, str],
    components: Iterable[ET.Element],
    settings: AppSettings,
) -> Package:
    """Add to the `files` of the indexes what an application has once: services, description, where it runs.

    Vespa discourages indexed and streaming documents in one cluster, so the description has the same mode. settings: as
    given.
    """
    threads = max(index.settings.search_threads for index in main.all)
    services = services_xml(settings, {**modes, DESCRIPTION_SCHEMA: settings.mode}, threads, components)
    texts = {
        "services.xml": services,
        f"schemas/{DESCRIPTION_SCHEMA}.sd": description_schema(),
        QUERY_PROFILE: _query_profile(),
        DESCRIPTION_FILE: json.dumps(main.to_json(), indent=1, sort_keys=True) + "\n",
        SETTINGS_FILE: settings.to_toml(),
    }
    if settings.cluster.content:
        texts["hosts.xml"] = hosts_xml(settings.cluster)
    if settings.cloud is not None and settings.cloud.regions:
        texts["deployment.xml"] = deployment_xml(settings.cloud)
    if settings.allow:
        texts["validation-overrides.xml"] = overrides_xml(settings.allow)
    return Package({**files, **{name: text.encode() for name, text in texts.items()}}, main)


def _constants(bundle: Bundle, settings: AppSettings) -> dict[str, bytes | Path]:
    codec = CODECS[settings.codec]
    types = codec.constants(settings)
    values = codec.constant_values(settings, bundle_codebooks(bundle)) if types else {}
    return {constant_path(settings.schema, name): tensor_file(type_, values[name]) for name, type_ in types.items()}


def embedder_components(bundle: Bundle, settings: AppSettings) -> list[ET.Element]:
    """Return one embedder for all indexes of the bundle: a package carries a model once."""
    return [embedder_component(bundle, embedder_of(bundle.sha256, settings))] if settings.embedder else []


def _query_profile() -> str:
    return f"""\
<query-profile id="default">
    <field name="maxHits">{MAX_HITS}</field>
    <field name="maxOffset">{MAX_HITS}</field>
</query-profile>
"""
