import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ready import ready_bundle

from late_interaction.errors import SettingsError
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app import default_settings
from vespa_app.candidates import STRATEGIES
from vespa_app.codecs import CODECS
from vespa_app.package import check_settings, read_settings
from vespa_app.package.schema_reader import read_blocks
from vespa_app.package.settings_checks import check_bundle
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings, DenseSettings

GOOD = AppSettings(dim=16, query_rows=8, metadata=MetadataSchema({"kind": FieldType.STRING, "tags": FieldType.STRINGS}))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    st.builds(
        AppSettings,
        dim=st.integers(1, 4096),
        query_rows=st.integers(1, 100),
        metadata=st.dictionaries(TEXTS, st.sampled_from(FieldType), max_size=4).map(MetadataSchema),
        name=TEXTS,
        schema=TEXTS,
        codec=st.sampled_from(list(CODECS)),
        candidates=st.lists(st.sampled_from(list(STRATEGIES)), unique=True).map(tuple),
        embedder=st.booleans(),
        layout=TEXTS,
        dense=st.dictionaries(TEXTS, st.builds(DenseSettings, dim=st.integers(1, 99), cells=TEXTS), max_size=2),
        weights=st.dictionaries(TEXTS, st.floats(0, 9), max_size=2),
        fusion=TEXTS,
        drop_limits=st.dictionaries(TEXTS, st.dictionaries(TEXTS, st.floats(-9, 9), max_size=2), max_size=2),
        cluster=st.builds(ClusterSettings, content=st.lists(TEXTS, max_size=3).map(tuple), groups=st.integers(1, 3)),
        cloud=st.none() | st.builds(CloudSettings, content_vcpu=st.lists(st.floats(0.5, 64), max_size=2).map(tuple)),
        indexes=st.dictionaries(
            TEXTS, st.fixed_dictionaries({"codec": TEXTS, "metadata": st.just({"a b": "long"})}), max_size=2
        ),
        allow=st.dictionaries(TEXTS, TEXTS, max_size=2),
    )
)
def test_toml_round_trip(tmp_path_factory, settings):
    file = tmp_path_factory.mktemp("toml") / "app.toml"
    file.write_bytes(settings.to_toml().encode())
    assert AppSettings.from_toml(file) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dim = 16\nquery_rows = 8\ncodecs = 'binary'", "setting codecs: is unknown"),
        ("dim = 16", "setting query_rows: is missing"),
        ("candidates = ['pooled']", "setting dim: is missing; .*colbert-vespa app BUNDLE -o APP"),
        ("dim = '16'\nquery_rows = 8", "setting dim: must be int"),
        ("dim = true\nquery_rows = 8", "setting dim: must be int"),
        ("dim = 16\nquery_rows = 8\ncandidates = 'bm25'", "setting candidates: must be a list, got str"),
        ("dim = 16\nquery_rows = 8\n[metadata]\nyear = 'date'", "metadata type unknown"),
        ("dim = 16\nquery_rows = 8\n[metadata]\nyear = 5", "setting metadata: must be a table"),
        ("dim = = 16", "not valid TOML"),
        ("dim = 16\nquery_rows = 8\n[cluster]\nhosts = ['a']", "setting cluster.hosts: is unknown"),
        ("dim = 16\nquery_rows = 8\n[cluster]\ngroups = '2'", "setting cluster.groups: must be int"),
        ("dim = 16\nquery_rows = 8\n[cluster]\ncontent = [1]", "setting cluster.content\\[0\\]: must be str, got int"),
        ("dim = 16\nquery_rows = 8\n[cloud]\ncontent_nodes = 2", "setting cloud.content_nodes: must be a list, got int"),
        ("dim = 16\nquery_rows = 8\ncluster = 1", "setting cluster: must be a table"),
        ("dim = 16\nquery_rows = 8\nindexes = 1", "setting indexes: must be a table"),
    ],
)
def test_toml_that_is_refused(tmp_path, text, message):
    (tmp_path / "app.toml").write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        AppSettings.from_toml(tmp_path / "app.toml")
    assert str(tmp_path / "app.toml") in str(caught.value)


def test_toml_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        AppSettings.from_toml(tmp_path / "absent.toml")


def with_metadata(*names):
    return {"metadata": MetadataSchema(dict.fromkeys(names, FieldType.STRING))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "zip"}, "codec: 'zip' is unknown; known: float32, bfloat16, binary"),
        ({"candidates": ()}, "candidates: is empty"),
        ({"candidates": ("bm25", "magic")}, "candidates: 'magic' is unknown"),
        ({"candidates": ("bm25", "bm25")}, "'bm25' twice"),
        ({"codec": "binary", "dim": 20}, "packs 8 dimensions into a byte, but the vectors have 20"),
        ({"dim": 0}, "dim: must be from 1"),
        ({"dim": 10_000}, "dim: must be from 1 to 4096"),
        ({"rerank": 0}, "rerank: must be"),
        ({"search_threads": 0}, "search_threads: must be"),
        ({"rerank": 1.5}, "rerank: must be"),
        ({"name": "My App"}, "setting name: 'My App'"),
        ({"schema": "Passage"}, "setting schema: 'Passage'"),
        ({"schema": "string"}, "reserved by Vespa"),
        *(({"schema": name}, f"setting schema: '{name}': the name is reserved") for name in ("content", "id", "not", "now")),
        ({"paged": True, "candidates": ("token",)}, "setting paged: candidates token keep an HNSW graph"),
        ({"schema": "colbert_application"}, "used by the application's description"),
        ({"namespace": "a:b"}, "setting namespace: 'a:b'"),
        (with_metadata("and"), "setting metadata.and: the name is reserved"),
        (with_metadata("Index"), "setting metadata.Index: the name is reserved"),
        (with_metadata("documentid"), "reserved"),
        (with_metadata("with-dash"), "ASCII letter"),
        (with_metadata("_hidden"), "ASCII letter"),
        (with_metadata("größe"), "ASCII letter"),
        (with_metadata("a} field b"), "ASCII letter"),
        (with_metadata("text"), "used by a field of every application"),
        (with_metadata("Title"), "used by a field of every application"),
        (with_metadata("pooled"), "used by"),
        (with_metadata("year", "Year"), "used by metadata field 'year'"),
        ({"layout": "pages"}, "layout: 'pages' is unknown; known: passages, chunks"),
        ({"encoding": "embedder", "candidates": ("pooled",)}, "embedder leaves no client vectors for candidates 'pooled'"),
        ({"encoding": "embedder", "candidates": ("bm25",), "embedder": False}, "setting embedder is false"),
        (
            {"encoding": "embedder", "candidates": ("bm25",), "codec": "binary", "thresholds": True},
            "Vespa's embedder cuts bits at 0, but setting thresholds is true",
        ),
        ({"encoding": "embedder", "candidates": ("bm25",), "codec": "residual"}, "embedder cannot make codec 'residual'"),
        ({"layout": "chunks", "codec": "residual"}, "chunks cannot store codec 'residual'"),
        ({"layout": "chunks", "candidates": ("token",)}, "chunks cannot have candidates 'token'"),
        ({"mode": "streaming", "candidates": ("pooled",)}, "has no index for candidates 'pooled'"),
        ({"mode": "streaming", "candidates": ("bm25",)}, "group_field: '' is not a metadata field"),
        ({"mode": "streaming", "candidates": ("bm25",), "group_field": "tags"}, "group_field: 'tags' is not a metadata field"),
        ({"group_field": "kind"}, "group_field: applies only to mode streaming"),
        ({"indexes": {"notes": {"dim": 8}}}, "setting indexes.notes.dim: is unknown"),
        ({"indexes": {"notes": {"codec": 1}}}, "setting indexes.notes.codec: must be str"),
        ({"indexes": {"notes": {"codec": "zip"}}}, "^setting indexes.notes.codec: 'zip' is unknown"),
        ({"indexes": {"Notes": {}}}, "^setting indexes.Notes: 'Notes'"),
        ({"indexes": {"passage": {}}}, "indexes.passage: the name is used"),
    ],
)
def test_settings_that_are_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        check_settings(dataclasses.replace(GOOD, **change))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("codec = 1", "setting indexes.notes.codec: must be str"),
        ("codec = 'zip'", "setting indexes.notes.codec: 'zip' is unknown"),
        ("colour = 1", "setting indexes.notes.colour: is unknown"),
    ],
)
def test_an_error_in_a_further_index_names_its_table_and_the_file(tmp_path, table, message):
    file = tmp_path / "app.toml"
    file.write_text(f"dim = 16\nquery_rows = 8\n[indexes.notes]\n{table}\n")
    with pytest.raises(SettingsError) as caught:
        read_settings(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    file.write_text("dim = 16\nquery_rows = 8\n[indexes.notes]\ncodec = 'binary'\n")
    assert read_settings(file).index_settings["notes"].codec == "binary"


def test_good_settings_pass():
    check_settings(dataclasses.replace(GOOD, paged=True, candidates=("token",), codec="residual"))
    check_settings(GOOD)
    check_settings(dataclasses.replace(GOOD, **with_metadata("version", "url", "type", "language", "order", "select", "date")))


LIMITED = AppSettings(
    dim=16,
    query_rows=8,
    candidates=tuple(STRATEGIES),
    dense={"dense": DenseSettings(24)},
    keep_rank_count=2000,
    drop_limits={
        **{name: {"first": 0.25, "second": 3} for name in STRATEGIES if name != "exhaustive"},
        "hybrid": {"first": 0.25, "second": 3.5, "global": 0.01},
        "exhaustive": {"first": -1},
    },
)


def test_drop_limits_and_kept_counts_stand_in_the_phases_they_are_of():
    check_settings(LIMITED)
    for name, strategy in STRATEGIES.items():
        phases = {
            block.head: block for profile in read_blocks(strategy.profile(LIMITED), name).blocks for block in profile.blocks
        }
        limits = {"first": "first-phase", "second": "second-phase", "global": "global-phase"}
        for phase, limit in LIMITED.drop_limits[name].items():
            assert float(phases[limits[phase]].value("rank-score-drop-limit")) == limit
        assert phases["first-phase"].value("total-keep-rank-count") == "2000"
    plain = STRATEGIES["centroid"].profile(dataclasses.replace(LIMITED, drop_limits={}, keep_rank_count=0))
    assert "rank-score-drop-limit" not in plain and "keep-rank-count" not in plain


def test_a_further_index_inherits_the_limits_of_the_candidates_it_has():
    settings = dataclasses.replace(LIMITED, indexes={"notes": {"candidates": ["bm25"]}})
    check_settings(settings)
    assert settings.index_settings["notes"].drop_limits == {"bm25": {"first": 0.25, "second": 3}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_rank_count": 100}, "keep_rank_count: must be 0 or from rerank"),
        ({"keep_rank_count": -1}, "keep_rank_count: must be"),
        ({"drop_limits": {"bm26": {"first": 1}}}, "drop_limits.bm26: these candidates are not in setting candidates"),
        ({"drop_limits": {"bm25": {"global": 1}}}, "drop_limits.bm25: 'global' is unknown; known: first, second"),
        ({"drop_limits": {"exhaustive": {"second": 1}}}, "drop_limits.exhaustive: 'second' is unknown; known: first"),
        (
            {"candidates": ("bm25+centroid", "dense"), "drop_limits": {"bm25+centroid": {"second": 1}}},
            "drop_limits.bm25\\+centroid: joined candidates have no limits",
        ),
        ({"drop_limits": {"bm25": {"first": "1"}}}, "drop_limits.bm25.first: must be a number"),
        ({"drop_limits": {"bm25": {"first": float("nan")}}}, "drop_limits.bm25.first: must be a number"),
    ],
)
def test_limits_that_make_no_sense(change, message):
    with pytest.raises(SettingsError, match=message):
        check_settings(dataclasses.replace(LIMITED, **change))


def test_a_bundle_without_a_model_says_what_it_cannot_be_for(tmp_path):
    bundle = ready_bundle(tmp_path / "bundle")
    assert check_bundle(bundle, default_settings(bundle, MetadataSchema({}))) is None
    with pytest.raises(SettingsError, match="setting embedder: .* has no model for Vespa's embedder"):
        check_bundle(bundle, AppSettings(dim=16, query_rows=32))
    raw = ready_bundle(tmp_path / "raw", normalized=False)
    fitting = default_settings(raw, MetadataSchema({}))
    assert check_bundle(raw, fitting) is None
    for wrong, what in (({"codec": "binary"}, "codec: is binary"), ({"candidates": ("token",)}, "candidates: token finds")):
        with pytest.raises(SettingsError, match=f"setting {what}"):
            check_bundle(raw, dataclasses.replace(fitting, **wrong))
