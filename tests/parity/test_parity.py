"""`parity` on a real bundle: torch, graphs, a local index; the reports."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints

from colbert_vespa.evaluation.parity.comparison import Case, Comparison
from colbert_vespa.evaluation.parity.encoders import compare_encoders
from colbert_vespa.evaluation.parity.report import html_page, junit_xml
from colbert_vespa.evaluation.parity.run import ParityReport
from colbert_vespa.evaluation.parity.texts import Texts
from colbert_vespa.evaluation.parity.thresholds import checks_of
from exporter import ExportOptions, export
from late_interaction import graphs
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, CPU, DEVICES, Device
from late_interaction.errors import CheckpointError, DeviceError
from query import AsyncClient, Client

QUERIES = {"one": "what is late interaction?", "two": "a rule, of punctuation"}
DOCUMENTS = {f"d{n}": text for n, text in enumerate(checkpoints.TEXTS)} | {"dots": "Well, well. (Really?) Yes!"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A Stanford checkpoint with the bundle of its own rules and of Vespa's."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = checkpoints.stanford(folder / "checkpoint")
    export(checkpoint, folder / "trained", ExportOptions(quantize=("int8",), least_quantized=0.5))
    export(checkpoint, folder / "vespa", ExportOptions(rules="vespa"))
    return folder


def test_torch_and_graphs(exported):
    found = compare_encoders(
        Bundle.open(exported / "trained"), str(exported / "checkpoint"), Texts(QUERIES, DOCUMENTS), 5, lambda _text: None
    )
    torch, quantized = found
    assert (torch.name, quantized.name) == ("encoder torch : fp32", "quantization fp32 : int8")
    assert torch.measured["ids_equal"] == 1.0 and torch.measured["worst_cosine"] > 0.99999
    assert all(check.passed for check in checks_of(torch, {}))
    assert quantized.measured["mean_cosine"] < 0.99999
    assert {case.reason for case in quantized.cases} == {"quantization int8"}
    assert quantized.cases[0].what.split()[0] in ("query", "document")


def test_a_device_is_compared_with_the_processor_within_what_an_export_allows(exported, monkeypatch):
    """A made-up one, which computes on the processor."""
    provider = {"providers": ("CPUExecutionProvider",), "options": lambda _load: {}, "memory": "cpu", "helpers": ()}
    monkeypatch.setitem(DEVICES, "cuda", replace(DEVICES["cuda"], precisions=("int8", "fp32"), **provider))
    bundle, texts, said = Bundle.open(exported / "trained"), Texts(QUERIES, DOCUMENTS), []
    for device in (Device("cuda", 1), AUTO):
        small, same = [c for c in compare_encoders(bundle, None, texts, 5, said.append, device) if c.layer == "device"]
        name = "cuda:1" if device.number else "cuda"
        assert (small.name, same.name) == (f"device fp32 : int8 on {name}", f"device fp32 : fp32 on {name}")
        assert same.measured["worst_cosine"] > 0.99999 and all(check.passed for check in checks_of(same, {}))
        assert {check.measure: check.threshold for check in checks_of(small, {})}["mean_cosine"] == 0.99
    assert not [c for c in compare_encoders(bundle, None, texts, 5, said.append, CPU) if c.layer == "device"]


def test_a_device_that_does_not_start_is_told_by_auto_and_an_error_by_name(exported, monkeypatch):
    monkeypatch.setitem(DEVICES, "cuda", replace(DEVICES["cuda"], providers=("CPUExecutionProvider",)))
    bundle, texts, said = Bundle.open(exported / "vespa"), Texts(QUERIES, DOCUMENTS), []
    opened = graphs.open_graph

    def open_graph(path, threads, device, **more):
        if device.name == "cuda":
            raise DeviceError("device cuda does not start")
        return opened(path, threads, device, **more)

    monkeypatch.setattr(graphs, "open_graph", open_graph)
    assert not compare_encoders(bundle, None, texts, 5, said.append, AUTO)
    assert said[-1] == "device cuda does not start; it is not compared"
    with pytest.raises(DeviceError):
        compare_encoders(bundle, None, texts, 5, said.append, Device("cuda"))


def test_vespas_rules_are_named_where_ids_differ(exported):
    found = compare_encoders(
        Bundle.open(exported / "vespa"), str(exported / "checkpoint"), Texts(QUERIES, DOCUMENTS), 5, lambda _text: None
    )
    rules = next(c for c in found if c.layer == "rules")
    reasons = {case.what: case.reason for case in rules.cases}
    assert 0 < rules.measured["ids_equal"] < 1
    assert reasons["document dots"] == "punctuation rule: Vespa drops it before encoding"
    encoder = next(c for c in found if c.layer == "encoder")
    assert encoder.measured["ids_equal"] == 1.0  # under the trained rules


def test_a_plain_encoder_has_no_projection_to_compare(tiny_bundle, tmp_path):
    checkpoint = checkpoints.plain(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="omit --checkpoint"):
        compare_encoders(tiny_bundle, str(checkpoint), Texts(QUERIES, DOCUMENTS), 5, lambda _text: None)


def test_the_command_compares_a_local_index(cli, sample_index, sample_collection, minilm_bundle, tmp_path):
    asked = (
        "parity", "--bundle", str(minilm_bundle.path), "--from", str(sample_index), "--collection", str(sample_collection),
        "--sample", "10", "--query-sample", "6", "--json",
        "--junit", str(tmp_path / "r.xml"), "--html", str(tmp_path / "r.html"),
    )  # fmt: skip
    report = json.loads(cli(*asked).stdout.splitlines()[-1])
    assert report["passed"] and report["guilty"] == [] and (report["queries"], report["documents"]) == (6, 10)
    assert [c["layer"] for c in report["comparisons"]] == ["codec", "ranking", "candidates", "answers"]
    codec, ranking, *_ = report["comparisons"]
    assert codec["codec"] == "residual4" and 0.98 < codec["measured"]["mean_cosine"] < 0.9999
    assert ranking["measured"]["score_error"] < 1e-3
    assert ElementTree.parse(tmp_path / "r.xml").getroot().get("failures") == "0"
    assert "all thresholds are reached" in (tmp_path / "r.html").read_text()
    failed = json.loads(cli(*asked, "--threshold", "codec.mean_cosine=0.9999", code=1).stdout.splitlines()[-1])
    assert (failed["passed"], failed["guilty"]) == (False, ["codec"])
    assert int(ElementTree.parse(tmp_path / "r.xml").getroot().get("failures")) == 1


def test_reports_escape_what_comes_from_outside():
    hostile = '<script>alert("x")</script>\x00&'
    comparison = Comparison("ranking", "a", hostile, {"tau": 0.1}, (Case(hostile, "tau", 0.1, hostile),))
    report = ParityReport(hostile, 1, 1, (comparison,), tuple(checks_of(comparison, {})), (hostile,))
    assert report.guilty == ("ranking",)
    page = html_page(report)
    assert "<script" not in page and "&lt;script&gt;" in page
    root = ElementTree.fromstring(junit_xml(report))
    failure = root.find("testsuite/testcase/failure")
    assert (root.get("failures"), failure.get("message").startswith("ranking a : <script>")) == ("1", True)
    assert '<script>alert("x")</script>?&' in failure.text


def test_stored_vectors_by_id(sample_index):
    with Client(str(sample_index)) as client:
        ids = [hit.passage_id for hit in client.search("parse an option", 3).hits]
        found = client.vectors([*ids, "nobody#0", ids[0]])
        assert list(found) == ids and client.vectors([]) == {}
        assert all(D.shape[1] == client.bundle.manifest.dim for D in found.values())


async def _stored(address):
    async with AsyncClient(address) as client:
        hit = (await client.search("parse an option", 1)).hits[0]
        return await client.vectors([hit.passage_id])


def test_stored_vectors_of_the_async_client(sample_index):
    import asyncio

    assert [len(D.shape) for D in asyncio.run(_stored(str(sample_index))).values()] == [2]
