"""Check whether settings make an application that Vespa accepts. Every setting is checked here and nowhere else, in one pass.

A fault is a setting, with its table, and what is wrong with it; the first one is raised, as `setting cluster.groups: is 3`.
Later rules rely on earlier ones, so only the first fault is reported.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from late_interaction.bundle import Bundle
from late_interaction.codebook import BITS, CODEBOOK
from late_interaction.errors import SettingsError
from late_interaction.metadata import FieldType
from late_interaction.one_vector import ENCODINGS as ONE_VECTOR_ENCODINGS
from vespa_app.candidates import STRATEGIES, needed_encoding, strategies_of, strategy_of
from vespa_app.candidates.dense import CELLS, DISTANCES, dense_field
from vespa_app.candidates.joined import JOINABLE
from vespa_app.candidates.pooled import ONE_VECTOR_CELLS
from vespa_app.codecs import CODECS, bundle_codebooks
from vespa_app.running.description import DESCRIPTION_SCHEMA
from vespa_app.running.passage_fields import OWN_FIELDS
from vespa_app.settings import MEAN_VECTOR, AppSettings, CloudSettings, ClusterSettings, DenseSettings
from vespa_app.settings.application_settings import (
    ENCODINGS,
    FUSIONS,
    LAYOUTS,
    LIMITS,
    MODES,
    MOST_WEIGHT,
    SCORES,
    asks_dense,
    parts_of,
)
from vespa_app.settings.names import (
    CHANGES,
    application_fault,
    field_fault,
    host_alias,
    namespace_fault,
    schema_fault,
)
from vespa_app.settings.sections import LIMIT_RANGE, MOST_NODES, setting_error

__all__ = ["check_bundle", "check_new_settings", "check_settings", "read_settings"]

Fault: TypeAlias = tuple[str, str]  # name of a setting, and what is wrong

MOST_KEPT = 10_000_000
MOST_DENSE = 16_384  # dimensions
_DENSE_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
LONGEST_ALLOWANCE_DAYS = 30
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
_TOKEN_VALUE = "vespa_cloud_"  # prefix of values  # noqa: S105
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_settings(path: str | Path) -> AppSettings:
    """Read and check app.toml.

    Args:
        path: the file.

    Raises:
        SettingsError: if the file or a key is not valid; the message names it.
    """
    settings = AppSettings.from_toml(path)
    try:
        check_settings(settings)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return settings


def check_settings(settings: AppSettings, today: datetime.date | None = None) -> None:
    """Check settings.

    Args:
        settings: the settings.
        today: the current day.

    Raises:
        SettingsError: if Vespa, or we, would refuse a setting; the message names it.
    """
    _raise_first(_faults(settings, today or _today()))


def check_new_settings(settings: AppSettings) -> None:
    """Check settings of a package to be generated, like `check_settings`; [allow] must not have a past day.

    Raises:
        SettingsError: if a setting is not valid; the message names it.
    """
    now = _today().isoformat()
    past = (
        (f"allow.{name}", f"{day} is in the past; remove it, or give a later day")
        for name, day in settings.allow.items()
        if day < now
    )
    _raise_first(itertools.chain(_faults(settings, _today()), past))


def check_bundle(bundle: Bundle, settings: AppSettings) -> None:
    """Check that settings fit the bundle.

    Raises:
        SettingsError: if a setting does not fit; the message names it.
    """
    indexes = settings.index_settings.values()
    _raise_first(itertools.chain.from_iterable(_of_index(settings, own, _bundle_faults(bundle, own)) for own in indexes))


def _raise_first(faults: Iterator[Fault]) -> None:
    for name, what in faults:
        raise setting_error(name, what)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.timezone.utc).date()


def _faults(settings: AppSettings, today: datetime.date) -> Iterator[Fault]:
    if fault := application_fault(settings.name):
        yield "name", fault
    if fault := namespace_fault(settings.namespace):
        yield "namespace", fault
    yield from _place_faults(settings, today)
    for own in settings.index_settings.values():
        yield from _of_index(settings, own, _index_faults(own))


def _of_index(settings: AppSettings, own: AppSettings, faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield the faults of a further index with its table; its own name is that of the table."""
    table = "" if own.schema == settings.schema else f"indexes.{own.schema}"
    for name, what in faults:
        yield (f"{table}.{name}" if name != "schema" else table) if table else name, what


def _index_faults(settings: AppSettings) -> Iterator[Fault]:
    if fault := schema_fault(settings.schema):
        yield "schema", fault
    if settings.schema == DESCRIPTION_SCHEMA:
        yield "schema", f"{settings.schema!r}: this name is used by the application's description; choose another"
    for name, (least, most) in LIMITS.items():
        value = getattr(settings, name)
        if type(value) is not int or not least <= value <= most:
            yield name, f"must be from {least} to {most}, got {value!r}"
    yield from _codec_faults(settings)
    if not settings.candidates:
        yield "candidates", f"is empty; known: {', '.join(STRATEGIES)}"
    for position, name in enumerate(settings.candidates):
        yield from _candidate_faults(name)
        if name in settings.candidates[:position]:
            yield "candidates", f"contains {name!r} twice"
    yield from _dense_faults(settings)
    yield from _one_vector_faults(settings)
    yield from _fusion_faults(settings)
    yield from _drop_limit_faults(settings)
    yield from _metadata_faults(settings)
    yield from _layout_faults(settings)
    yield from _encoding_faults(settings)
    yield from _mode_faults(settings)
    if settings.cloud is not None and settings.search_threads > settings.cloud.content_vcpu[0]:
        vcpu = settings.cloud.content_vcpu[0]
        yield "search_threads", f"is {settings.search_threads}, but a content node has cloud.content_vcpu {vcpu:g}; use fewer"


def _choice_faults(setting: str, value: str, known: Collection[str]) -> Iterator[Fault]:
    if value not in known:
        yield setting, f"{value!r} is unknown; known: {', '.join(known)}"


def _candidate_faults(name: str) -> Iterator[Fault]:
    parts = parts_of(name)
    for part in parts:
        yield from _choice_faults("candidates", part, STRATEGIES)
    if len(parts) > 1:
        yield from _only("candidates", f"{name}: + joins no", parts, JOINABLE)
        if len(set(parts)) < len(parts):
            yield "candidates", f"{name!r} joins a strategy with itself"


def _dense_faults(settings: AppSettings) -> Iterator[Fault]:
    for strategy in strategies_of(settings):
        yield from (("candidates", what) for what in strategy.faults(settings))
    for name, own in settings.dense.items():
        key = f"dense.{name}"
        if not _DENSE_NAME.fullmatch(name) or name.endswith("explained"):
            yield key, "the name must be a lower-case letter, then at most 30 of a-z, 0-9 and _, and must not end in explained"
        if not any(asks_dense(candidates) for candidates in settings.candidates):
            yield key, "no candidates use it; add dense or hybrid to setting candidates, or remove it"
        yield from _dense_number_faults(key, own)
        yield from _choice_faults(f"{key}.cells", own.cells, CELLS)
        yield from _choice_faults(f"{key}.distance", own.distance, DISTANCES)
        if own.dim % CELLS[own.cells][1]:
            yield f"{key}.cells", f"bits packs 8 dimensions into a byte, but the vectors have {own.dim}"
        if own.cells in ("int8", "bits") and own.distance == "dotproduct":
            yield (
                f"{key}.cells",
                f"{own.cells} does not keep the length, which distance dotproduct needs; use float or bfloat16",
            )


def _dense_number_faults(key: str, own: DenseSettings) -> Iterator[Fault]:
    ranges = {"dim": (1, MOST_DENSE), "links": LIMITS["hnsw_links"], "explore": LIMITS["hnsw_explore"]}
    for name, (least, most) in ranges.items():
        value = getattr(own, name)
        if type(value) is not int or not least <= value <= most:
            yield f"{key}.{name}", f"must be from {least} to {most}, got {value!r}"


def _one_vector_faults(settings: AppSettings) -> Iterator[Fault]:
    own = settings.one_vector
    yield from _choice_faults("one_vector.encoding", own.encoding, ONE_VECTOR_ENCODINGS)
    yield from _choice_faults("one_vector.cells", own.cells, ONE_VECTOR_CELLS)
    least, most = LIMITS["dim"]
    if not ONE_VECTOR_ENCODINGS[own.encoding].fitted and own.dim not in (0, settings.dim):
        yield "one_vector.dim", f"is {own.dim}, and encoding {own.encoding} has the {settings.dim} of the token vectors"
    elif ONE_VECTOR_ENCODINGS[own.encoding].fitted and not least <= own.dim <= most:
        yield "one_vector.dim", f"must be from {least} to {most}, got {own.dim!r}"
    if own != MEAN_VECTOR and not needed_encoding(settings):
        yield "one_vector", "no candidates ask it: add pooled to setting candidates, or leave the table out"


def _fusion_faults(settings: AppSettings) -> Iterator[Fault]:
    yield from _choice_faults("fusion", settings.fusion, FUSIONS)
    for name, weight in settings.weights.items():
        yield from _choice_faults("weights", name, SCORES)
        if type(weight) not in (int, float) or not 0 <= weight <= MOST_WEIGHT:
            yield f"weights.{name}", f"must be a number from 0 to {MOST_WEIGHT:,.0f}, got {weight!r}"
    if settings.weights and not any(settings.weights.values()):
        yield "weights", "all are 0; remove the table, or give one above 0"
    if settings.weights.get("dense") and not settings.dense and "hybrid" in settings.candidates:
        yield "weights.dense", "there is no dense model; add a table [dense.NAME]"


def _codec_faults(settings: AppSettings) -> Iterator[Fault]:
    yield from _choice_faults("codec", settings.codec, CODECS)
    codec = CODECS[settings.codec]
    if settings.dim % codec.dims_per_cell:
        what = f"{codec.name} packs {codec.dims_per_cell} dimensions into a byte, but the vectors have {settings.dim}"
        yield "codec", what
    if settings.residual_bits not in BITS:
        yield "residual_bits", f"must be 1, 2 or 4, got {settings.residual_bits!r}"
    if settings.thresholds and not codec.takes_thresholds:
        able = ", ".join(name for name, other in CODECS.items() if other.takes_thresholds)
        yield "thresholds", f"applies only to codec {able}, but codec is {settings.codec}"
    if (
        settings.paged and "token" in settings.candidates and codec.distance
    ):  # otherwise its rows' bits are kept in another field
        yield "paged", "candidates token keep an HNSW graph over the vectors, which must then be in memory"


def _drop_limit_faults(settings: AppSettings) -> Iterator[Fault]:
    kept = settings.keep_rank_count
    if type(kept) is not int or (kept and not settings.rerank <= kept <= MOST_KEPT):
        yield "keep_rank_count", f"must be 0 or from rerank ({settings.rerank}) to {MOST_KEPT}, got {kept!r}"
    for name, limits in settings.drop_limits.items():
        if name not in settings.candidates:
            given = ", ".join(settings.candidates)
            yield f"drop_limits.{name}", f"these candidates are not in setting candidates ({given})"
        for phase, limit in limits.items():
            if phases := strategy_of(name).phases:
                yield from _choice_faults(f"drop_limits.{name}", phase, phases)
            else:
                yield f"drop_limits.{name}", "joined candidates have no limits; remove the table"
            if type(limit) not in (int, float) or not math.isfinite(limit):
                yield f"drop_limits.{name}.{phase}", f"must be a number, got {limit!r}"


def _metadata_faults(settings: AppSettings) -> Iterator[Fault]:
    of_parts = [*(part.own_fields for part in STRATEGIES.values()), *(part.own_fields for part in CODECS.values())]
    ours = (*OWN_FIELDS, *map(dense_field, settings.dense), *itertools.chain.from_iterable(of_parts))
    taken = dict.fromkeys(ours, "a field of every application")
    for name in settings.metadata.fields:
        if fault := field_fault(name):
            yield f"metadata.{name}", fault
        if other := taken.get(name.lower()):
            yield f"metadata.{name}", f"the name is used by {other} (case is ignored); rename it"
        taken[name.lower()] = f"metadata field {name!r}"


def _layout_faults(settings: AppSettings) -> Iterator[Fault]:
    yield from _choice_faults("layout", settings.layout, LAYOUTS)
    if settings.layout == "chunks":
        codecs = [name for name, codec in CODECS.items() if codec.embeddable]
        strategies = [name for name, strategy in STRATEGIES.items() if strategy.of_chunks]
        yield from _only("layout", "chunks cannot store codec", (settings.codec,), codecs)
        yield from _only("layout", "chunks cannot have candidates", _singles(settings), strategies)
        if settings.dense:
            yield "layout", "chunks cannot store dense vectors, one per passage; remove [dense], or use passages"


def _encoding_faults(settings: AppSettings) -> Iterator[Fault]:
    yield from _choice_faults("encoding", settings.encoding, ENCODINGS)
    if settings.encoding != "embedder":
        return
    if not settings.embedder:
        yield "encoding", "embedder makes vectors in Vespa, but setting embedder is false"
    if settings.thresholds:
        yield "encoding", "Vespa's embedder cuts bits at 0, but setting thresholds is true"
    codecs = [name for name, codec in CODECS.items() if codec.embeddable]
    yield from _only("encoding", "Vespa's embedder cannot make codec", (settings.codec,), codecs)
    yield from _only("encoding", "embedder leaves no client vectors for candidates", _singles(settings), _without_index())


def _mode_faults(settings: AppSettings) -> Iterator[Fault]:
    yield from _choice_faults("mode", settings.mode, MODES)
    if settings.mode != "streaming":
        if settings.group_field:
            yield "group_field", "applies only to mode streaming; set mode, or remove group_field"
        return
    what = "streaming reads a whole group and has no index for candidates"
    yield from _only("mode", what, _singles(settings), _without_index())
    if settings.metadata.fields.get(settings.group_field) is not FieldType.STRING:
        what = f"{settings.group_field!r} is not a metadata field of type string, which mode streaming needs"
        yield "group_field", what


def _singles(settings: AppSettings) -> list[str]:
    """Return the strategies of the candidates, each by itself."""
    return [part for candidates in settings.candidates for part in parts_of(candidates)]


def _without_index() -> list[str]:
    """Return strategies whose documents carry nothing made from token vectors."""
    return [name for name, strategy in STRATEGIES.items() if not strategy.of_vectors]


def _only(setting: str, what: str, given: Iterable[str], known: Collection[str]) -> Iterator[Fault]:
    for value in given:
        if value not in known:
            yield setting, f"{what} {value!r}; known: {', '.join(known)}"


def _place_faults(settings: AppSettings, today: datetime.date) -> Iterator[Fault]:
    """Yield faults of where an application runs (your own hosts, Vespa Cloud) and of the allowed changes."""
    if settings.cloud is not None and settings.cluster != ClusterSettings():
        yield "cluster", "[cluster] and [cloud] exclude each other; use your own hosts or Vespa Cloud"
    yield from _cluster_faults(settings.cluster)
    if settings.cloud is not None:
        yield from _cloud_faults(settings.cloud)
    for name, day in settings.allow.items():
        if name not in CHANGES:
            yield "allow", f"{name!r} is not a change known to Vespa; known: {', '.join(sorted(CHANGES))}"
        try:
            until = datetime.datetime.strptime(day, "%Y-%m-%d").date()
        except ValueError:
            yield f"allow.{name}", f"must be a day such as 2026-12-24, got {day!r}"
        else:
            if (until - today).days > LONGEST_ALLOWANCE_DAYS:
                yield f"allow.{name}", f"is {day}, but Vespa accepts at most {LONGEST_ALLOWANCE_DAYS} days ahead"


def _cluster_faults(cluster: ClusterSettings) -> Iterator[Fault]:
    for kind in ("config", "container", "content"):
        hosts = getattr(cluster, kind)
        for host in hosts:
            if not _HOST.fullmatch(host):
                yield f"cluster.{kind}", f"{host!r} is not a host name"
        if len(set(hosts)) != len(hosts):
            yield f"cluster.{kind}", "contains a host twice"
    yield from _host_faults(cluster.hosts)
    for name in ("memory_limit", "disk_limit"):
        limit, (least, most) = getattr(cluster, name), LIMIT_RANGE
        if limit and not least <= limit <= most:
            yield f"cluster.{name}", f"must be from {least} to {most}, or 0 for Vespa's own, got {limit:g}"
    if cluster.hosts and not cluster.content:
        yield "cluster.content", "is empty; list the hosts that store the documents"
    if len(cluster.config) % 2 == 0 and cluster.config:
        yield "cluster.config", f"lists {len(cluster.config)} hosts, but config servers need an odd number"
    if cluster.content:
        yield from _group_faults(cluster, len(cluster.content))


def _group_faults(cluster: ClusterSettings, nodes: int) -> Iterator[Fault]:
    if not 1 <= cluster.groups <= nodes or nodes % cluster.groups:
        yield "cluster.groups", f"is {cluster.groups}, but {nodes} content hosts cannot be split into that many equal groups"
    yield from _copy_faults("cluster", cluster.redundancy, cluster.groups, nodes)
    copies = cluster.searchable_copies
    if not 1 <= copies <= cluster.redundancy:
        yield "cluster.searchable_copies", f"must be from 1 to redundancy ({cluster.redundancy}), got {copies}"
    if copies % cluster.groups:
        yield "cluster.searchable_copies", f"is {copies}, but each of {cluster.groups} groups needs equally many"


def _host_faults(hosts: Iterable[str]) -> Iterator[Fault]:
    """Yield faults of host names, which are case-insensitive; each needs its own alias."""
    seen: dict[str, str] = {}
    for host in hosts:
        for name in dict.fromkeys((host.lower(), host_alias(host).lower())):
            if (other := seen.setdefault(name, host)) != host:
                yield "cluster", f"contains {other!r} and {host!r}, which Vespa cannot tell apart; use one name"


def _copy_faults(table: str, redundancy: int, groups: int, nodes: float) -> Iterator[Fault]:
    if not 1 <= redundancy <= nodes:
        yield f"{table}.redundancy", f"must be from 1 to the content nodes ({nodes:g}), got {redundancy}"
    if groups > 1 and (redundancy < groups or redundancy % groups):
        what = f"is {redundancy}, but each of {groups} groups has whole copies; use a multiple of it"
        yield f"{table}.redundancy", what


def _cloud_faults(cloud: CloudSettings) -> Iterator[Fault]:
    for region in cloud.regions:
        if not _REGION.fullmatch(region):
            yield "cloud.regions", f"{region!r} is not a region of Vespa Cloud, such as aws-us-east-1c"
    if len(set(cloud.regions)) != len(cloud.regions):
        yield "cloud.regions", "contains a region twice"
    for name in ("read_tokens", "write_tokens"):
        for token in getattr(cloud, name):
            if not _TOKEN.fullmatch(token) or token.lower().startswith(_TOKEN_VALUE):
                yield f"cloud.{name}", "must be names of tokens (letters, digits, _ and -), never their values"
    for kind in ("container", "content"):
        for what in ("nodes", "vcpu", "memory_gb", "disk_gb"):
            yield from _range_faults(f"cloud.{kind}_{what}", getattr(cloud, f"{kind}_{what}"), whole=what == "nodes")
    if cloud.groups < 1 or any(count % cloud.groups for count in cloud.content_nodes):
        yield "cloud.groups", f"is {cloud.groups}, but cloud.content_nodes cannot be split into that many equal groups"
    yield from _copy_faults("cloud", cloud.redundancy, cloud.groups, cloud.content_nodes[0])
    if cloud.regions and cloud.redundancy < 2:
        yield "cloud.redundancy", "must be at least 2 in production (cloud.regions)"
    if cloud.regions and cloud.container_nodes[0] < 2:
        yield "cloud.container_nodes", "must be at least 2 in production (cloud.regions)"


def _range_faults(name: str, values: tuple[float, ...], *, whole: bool) -> Iterator[Fault]:
    if len(values) not in (1, 2) or list(values) != sorted(values) or values[0] <= 0:
        yield name, f"must be [number] or [least, most], above 0, got {list(values)}"
    if whole and (any(value != int(value) for value in values) or values[-1] > MOST_NODES):
        yield name, f"must be whole numbers up to {MOST_NODES}, got {list(values)}"


def _ready_faults(bundle: Bundle, settings: AppSettings) -> Iterator[Fault]:
    """Yield faults of vectors that are made elsewhere: bits keep only directions, and HNSW compares rows by angle."""
    if settings.embedder and not bundle.encodes:
        yield "embedder", f"{bundle.path} has no model for Vespa's embedder; set embedder = false"
    if bundle.manifest.normalized:
        return
    if settings.codec not in ("float32", "bfloat16"):
        yield "codec", f"is {settings.codec}, but rows of {bundle.path} are not normalised; choose float32 or bfloat16"
    if "token" in _singles(settings):
        yield "candidates", f"token finds rows by angle, but those of {bundle.path} are not normalised; choose others"


def _bundle_faults(bundle: Bundle, settings: AppSettings) -> Iterator[Fault]:
    manifest = bundle.manifest
    if settings.dim != manifest.dim:
        yield "dim", f"is {settings.dim}, but the vectors of {bundle.path} have {manifest.dim}"
    if settings.query_rows < manifest.query.length:
        yield "query_rows", f"is {settings.query_rows}, but {bundle.path} makes {manifest.query.length}"
    if settings.precision and settings.precision not in manifest.models:
        known = ", ".join(manifest.models)
        yield "precision", f"{bundle.path} has no model {settings.precision!r}; it has: {known}"
    yield from _ready_faults(bundle, settings)
    codec = CODECS[settings.codec]
    if codec.needs_codebook or settings.thresholds:
        yield from codec.codebook_faults(settings, bundle_codebooks(bundle))
    yield from _one_vector_bundle_faults(bundle, settings)
    for name, own in settings.dense.items():
        if name not in manifest.dense:
            known = ", ".join(manifest.dense) or "none"
            yield (
                f"dense.{name}",
                f"{bundle.path} has no dense model of that name; it has: {known}; add one with `export --dense`",
            )
        elif own.dim != manifest.dense[name].dim:
            yield f"dense.{name}.dim", f"is {own.dim}, but the vectors of {bundle.path} have {manifest.dense[name].dim}"
    if CODEBOOK not in manifest.codebooks:
        for name in _singles(settings):
            if STRATEGIES[name].needs_codebook:
                what = f"{name} needs a codebook, but {bundle.path} has none"
                yield "candidates", f"{what}; export it with --sample, or choose other candidates"


def _one_vector_bundle_faults(bundle: Bundle, settings: AppSettings) -> Iterator[Fault]:
    own = settings.one_vector
    if not needed_encoding(settings) or not ONE_VECTOR_ENCODINGS[own.encoding].fitted:
        return
    if own.encoding not in bundle.manifest.codebooks:
        what = f"{own.encoding} needs fitted parameters, and {bundle.path} has none: run `colbert-vespa candidates`"
        yield "one_vector.encoding", what
    else:
        found = bundle_codebooks(bundle, codebook=False, thresholds=False, encoding=own.encoding).one_vector
        if found and found.dim != own.dim:
            yield "one_vector.dim", f"is {own.dim}, and the {own.encoding} of {bundle.path} has {found.dim}"
