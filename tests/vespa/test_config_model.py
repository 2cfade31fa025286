"""Our packages and our checks against Vespa's own config model, ranking and feed code (Java, one JVM)."""

import dataclasses
import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from golden.make_packages import CASES, golden_package
from package_faults import FAULTS, SCHEMA
from vespa_bundles import DENSE, WITHOUT_DENSE, dense_for, small_bundle, small_codebook

from exporter.codebooks import add_codebook
from late_interaction.documents import Passage
from late_interaction.kmeans import unit_rows
from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.candidates import STRATEGIES
from vespa_app.candidates.base import tensor_hex
from vespa_app.codecs import CODECS, VECTORS, Codebooks, bundle_codebooks
from vespa_app.package import build_package, default_settings
from vespa_app.running.documents import document_fields
from vespa_app.running.layouts import embedder_of
from vespa_app.settings import AppSettings
from vespa_app.settings.names import RESERVED_BY_SCHEMAS, schema_fault

pytestmark = pytest.mark.oracle

METADATA = MetadataSchema(
    {
        "kind": FieldType.STRING,
        "year": FieldType.LONG,
        "ratio": FieldType.DOUBLE,
        "on": FieldType.BOOL,
        "tags": FieldType.STRINGS,
        "small": FieldType.INT,
        "single": FieldType.FLOAT,
        "at": FieldType.TIMESTAMP,
        "place": FieldType.POSITION,
        "smalls": FieldType.INTS,
        "larges": FieldType.LONGS,
        "singles": FieldType.FLOATS,
        "doubles": FieldType.DOUBLES,
        "times": FieldType.TIMESTAMPS,
    }
)
# what Vespa's model lets pass, or says only on the node; our checks do not
UNSEEN = {
    "no expression", "bm25 of no text", "bm25 of nothing", "closeness of nothing", "not an attribute",
    "match feature", "metadata of another type", "another codec", "too many threads", "unknown function", "undeclared input",
    "description", "description: no JSON", "description: setting",
}  # fmt: skip


BOOKS = Codebooks(codebook=small_codebook(16))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "real", onnx=True, dense=DENSE)


def settings_for(codec="bfloat16", candidates=tuple(STRATEGIES), **more):
    dense = dense_for(candidates)
    return AppSettings(dim=16, query_rows=8, metadata=METADATA, codec=codec, candidates=candidates, dense=dense, **more)


@pytest.fixture(scope="module")
def apps(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("apps")
    return {codec: build_package(bundle, settings_for(codec, embedder=False)).write(folder / codec) for codec in CODECS}


def warnings(reply):
    """The log, but for remarks about the machine that the test runs on: its programs, and names of hosts that are made up."""
    remarks = ("vespa-verify-ranksetup", "Unable to lookup IP")
    return [line for line in reply["log"] if not line.startswith("FINE") and not any(remark in line for remark in remarks)]


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_with_all_candidates_and_each_alone(vespa_oracle, bundle, tmp_path, codec):
    for candidates in (tuple(STRATEGIES), *((name,) for name in STRATEGIES)):
        settings = settings_for(codec, candidates, embedder=len(candidates) > 1)
        reply = vespa_oracle.validate(build_package(bundle, settings).write(tmp_path / "app"))
        assert reply["ok"], reply
        assert warnings(reply) == []
        assert set(candidates) < set(reply["schemas"]["content/passage"])
        assert any("ColBertEmbedder" in component for component in reply["components"]) == settings.embedder


@pytest.mark.parametrize("case", [case for case, settings in CASES.items() if not settings.embedder])
def test_golden_packages(vespa_oracle, tmp_path, case):
    reply = vespa_oracle.validate(golden_package(case, tmp_path).write(tmp_path / "app"))
    assert reply["ok"], reply
    assert warnings(reply) == []


def test_vespa_cloud_takes_it_in_the_dev_zone(vespa_oracle, bundle, tmp_path):
    folder = build_package(bundle, settings_for()).write(tmp_path / "app")
    (folder / "security").mkdir()
    (folder / "security" / "clients.pem").write_bytes(certificate())
    reply = vespa_oracle.validate(folder, "cloud-dev")
    assert reply["ok"], reply
    assert warnings(reply) == []


def test_drop_limits_of_every_phase(vespa_oracle, bundle, tmp_path):
    limits = {name: {"first": 0.25, "second": 3.0} for name in STRATEGIES if name != "exhaustive"}
    limits |= {"hybrid": {"first": 0.25, "second": 3.0, "global": 0.01}, "exhaustive": {"first": -1.0}}
    settings = settings_for(keep_rank_count=2000, drop_limits=limits, embedder=False)
    reply = vespa_oracle.validate(build_package(bundle, settings).write(tmp_path / "app"))
    assert reply["ok"], reply
    assert warnings(reply) == []


def test_adding_a_metadata_field_asks_for_nothing(vespa_oracle, bundle, tmp_path):
    old = build_package(bundle, AppSettings(dim=16, query_rows=8)).write(tmp_path / "old")
    fields = MetadataSchema({name: type_ for name, type_ in METADATA.fields.items() if type_ is not FieldType.POSITION})
    new = build_package(bundle, AppSettings(dim=16, query_rows=8, metadata=fields)).write(tmp_path / "new")
    reply = vespa_oracle.validate(new, previous=old)
    assert reply["ok"], reply
    assert reply["actions"] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_our_checks_refuse(vespa_oracle, bundle, tmp_path, fault):
    name, old, new, _ = FAULTS[fault]
    metadata = MetadataSchema({"kind": FieldType.STRING, "year": FieldType.LONG})
    settings = AppSettings(dim=16, query_rows=8, metadata=metadata, candidates=WITHOUT_DENSE)
    folder = build_package(bundle, settings).write(tmp_path / "app")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(old, new, 1))
    reply = vespa_oracle.validate(folder)
    if fault in UNSEEN:
        assert reply["ok"], reply
    else:
        assert not reply["ok"]


def test_reserved_names_are_those_that_vespa_refuses(vespa_oracle, bundle, tmp_path):
    metadata = MetadataSchema({"kind": FieldType.STRING})
    settings = AppSettings(dim=16, query_rows=8, metadata=metadata, embedder=False)
    folder = build_package(bundle, settings).write(tmp_path / "app")
    text = (folder / SCHEMA).read_text()
    taken = []
    for name in sorted(RESERVED_BY_SCHEMAS | {"version", "url", "type", "language", "select", "order", "date", "rank", "uri"}):
        changed = text.replace("field kind type", f"field {name} type").replace("summary kind {}", f"summary {name} {{}}")
        (folder / SCHEMA).write_text(changed)
        if vespa_oracle.validate(folder)["ok"]:
            taken.append(name)
    # a field matchfeatures would be deployed, and be confused with the match features of a hit
    assert taken == ["date", "language", "matchfeatures", "order", "rank", "select", "type", "uri", "url", "version"]


def test_names_that_vespa_refuses_for_schemas_are_refused_by_us_first(vespa_oracle, bundle, tmp_path):
    """By Vespa's ReservedDocumentTypeNameValidator, and by its selections."""
    folder = build_package(bundle, AppSettings(dim=16, query_rows=8, embedder=False)).write(tmp_path / "app")
    text, services = (folder / SCHEMA).read_text(), (folder / "services.xml").read_text()
    for name in ("and", "false", "id", "not", "null", "or", "true", "position", "document"):
        (folder / SCHEMA).write_text(text.replace("schema passage", f"schema {name}").replace("nt passage", f"nt {name}"))
        (folder / SCHEMA).rename(folder / f"schemas/{name}.sd")
        (folder / "services.xml").write_text(services.replace('"passage"', f'"{name}"'))
        assert not vespa_oracle.validate(folder)["ok"], name
        (folder / f"schemas/{name}.sd").unlink()
        assert "reserved by Vespa" in schema_fault(name)


@pytest.mark.parametrize("codec", CODECS)
def test_max_sim_means_what_numpy_says(vespa_oracle, apps, codec):
    random = np.random.default_rng(3)
    Q, D = random.standard_normal((4, 16)).astype(np.float32), random.standard_normal((7, 16)).astype(np.float32)
    values = CODECS[codec].encode(D, BOOKS)
    stored = CODECS[codec].decode(values, BOOKS)
    settings = settings_for(codec)
    types = {VECTORS: CODECS[codec].field_type(settings), **CODECS[codec].more_fields(settings)}
    reply = vespa_oracle.ask(
        "profile",
        app=str(apps[codec]),
        schema="passage",
        profile="exhaustive",
        function="max_sim",
        inputs={
            "query(qt)": {"type": "tensor<float>(qt{}, x[16])", "value": tensor_hex(Q)},
            **{f"attribute({name})": {"type": types[name], "value": value} for name, value in values.items()},
        },
    )
    assert reply["ok"], reply
    assert reply["result"] == pytest.approx(float((Q @ stored.T).max(axis=1).sum()), abs=1e-5)


@pytest.mark.parametrize("bits", [1, 2])
def test_residuals_of_an_exported_bundle_decode_as_the_local_codec(vespa_oracle, tmp_path, bits):
    """`export --bits`: what the package's profile makes of fed documents, against the local engine's decoding."""
    random = np.random.default_rng(bits)
    sample = [unit_rows(random.standard_normal((20, 16)).astype(np.float32)) for _ in range(60)]
    texts = [str(number) + " world" * 16 for number in range(60)]
    encoder = SimpleNamespace(encode_documents=lambda texts, _: [sample[int(text.split()[0])] for text in texts])
    bundle = add_codebook(small_bundle(tmp_path / "bundle"), texts, encoder, bits=bits, centroids=16)
    book = bundle_codebooks(bundle).codebook
    settings = default_settings(bundle, MetadataSchema({}), codec="residual", candidates=("exhaustive",))
    settings = dataclasses.replace(settings, embedder=False)
    app = build_package(bundle, settings).write(tmp_path / "app")
    Q, D = random.standard_normal((4, 16)).astype(np.float32), sample[0][:7]
    codec = CODECS["residual"]
    types = {VECTORS: codec.field_type(settings), **codec.more_fields(settings)}
    inputs = {
        f"attribute({name})": {"type": types[name], "value": value} for name, value in codec.encode(D, Codebooks(book)).items()
    }
    inputs["query(qt)"] = {"type": "tensor<float>(qt{}, x[16])", "value": tensor_hex(Q)}
    reply = vespa_oracle.ask(
        "profile", app=str(app), schema="passage", profile="exhaustive", function="max_sim", inputs=inputs
    )  # fmt: skip
    assert reply["ok"], reply
    stored = book.decode(*book.encode(D))
    assert reply["result"] == pytest.approx(float((Q @ stored.T).max(axis=1).sum()), abs=1e-5)


@pytest.mark.parametrize("codec", CODECS)
def test_documents_are_read_as_they_were_meant(vespa_oracle, apps, codec):
    D = np.random.default_rng(4).standard_normal((12, 16)).astype(np.float32)
    metadata = {"kind": 'a"\\\n\u00e9\U0001f600', "year": -(2**62), "ratio": 0.1, "on": False, "tags": ["x", ""]}
    metadata |= {"small": -7, "single": 0.5, "at": "2026-12-24T18:00:00Z", "place": {"lat": 63.4305, "lng": -10.3951}}
    lists = {"smalls": [-7, 2**31 - 1], "larges": [2**62], "singles": [0.5], "doubles": [0.1, -1e300], "times": [1000]}
    metadata |= lists
    passage = Passage("d/1#0", "d/1", "Title", "text", metadata)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    dense = {"dense": np.eye(1, 24, 5, dtype=np.float32)[0]}
    fields = document_fields([passage], [D], settings_for(codec), BOOKS, dense=dense)
    reply = vespa_oracle.ask("feed", app=str(apps[codec]), op={"fields": fields}, id="id:colbert:passage::d/1#0", method="PUT")
    assert reply["ok"], reply
    assert reply["fullyApplied"]
    read = reply["document"]["fields"]
    assert read.pop("at") == 1798135200000
    assert read.pop("place") == {"lat": 63.4305, "lng": -10.3951}
    assert {name: read[name] for name in metadata if name in read} == {
        name: value for name, value in metadata.items() if name not in ("at", "place")
    }
    assert read["present"] == sorted([*metadata, "tags="])
    if codec != "residual":  # whose bit planes come back cell by cell; the node's tests read them
        stored = CODECS[codec].decode(CODECS[codec].encode(D, BOOKS), BOOKS)
        assert np.array_equal(CODECS[codec].decode({VECTORS: blocks(read["vectors"])}, BOOKS), stored)
    assert read["centroids"] == fields["centroids"]
    assert len(read["pooled"]["cells"]) == 16
    assert [cell["value"] for cell in read["dense"]["cells"]] == dense["dense"].tolist()


def test_vespas_embedder_gets_the_bundles_ids(vespa_oracle, bundle, tmp_path):
    """[CLS] [Q] hello world [SEP] and [MASK] up to the query's length, each looked up in the small graph's table."""
    from onnx import load, numpy_helper

    table = numpy_helper.to_array(load(str(bundle.model_path("fp32"))).graph.initializer[0])
    app = build_package(bundle, settings_for()).write(tmp_path / "app")
    embedder = embedder_of(bundle.sha256, settings_for()).id
    type_ = "tensor<float>(qt{},x[16])"
    reply = vespa_oracle.ask("embed", app=str(app), embedder=embedder, destination="query(qt)", text="hello world", type=type_)
    assert reply["ok"], reply
    rows = table[[4, 1, 7, 8, 5, 6, 6, 6]]
    want = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    got = reply["result"]["blocks"]
    assert np.allclose([got[str(row)] for row in range(8)], want, atol=1e-6)


def blocks(tensor):
    """The Java writer gives every cell with its address."""
    rows: dict[str, dict[int, float]] = {}
    for cell in tensor["cells"]:
        rows.setdefault(cell["address"]["dt"], {})[int(cell["address"]["x"])] = cell["value"]
    return {"blocks": {label: [row[x] for x in sorted(row)] for label, row in rows.items()}}


def certificate() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_the_class_path_is_pinned():
    assert "8.700.24" in (Path(__file__).parent / "oracle" / "pom.xml").read_text()
