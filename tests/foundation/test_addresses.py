"""What an address is, a path, or neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from colbert_vespa.rag import RAGPretrainedModel
from colbert_vespa.store import DocumentStore
from feeder import FeedOptions, start_feed
from feeder.copying import backup_index, copy_index
from late_interaction.addresses import VespaUrl, as_path, locate, vespa_url
from late_interaction.bundle import Bundle
from late_interaction.errors import UsageError
from query import AsyncClient, Client

NEITHER = [
    "localhost:8080", "localhost", "localhost#passage", "127.0.0.1", "[::1]:8080", "::1", "host:8080/x", "http:/host",
    "http:host", "http:\\\\host", "vespa://host", "file:///x", "ftp://host", " http://host", "http://host ", "http://host\n",
    "http://", "http:///x", "http://h:x", "http://h:0", "http://h:99999", "http://a b", "http://h/path", "http://h?q",
    "http://h%41", "https://#passage", "//host:8080", "", " ", "\t", "a\0b", "~no-such-user", "--resume", "-",
]  # fmt: skip


@pytest.mark.parametrize("text", NEITHER)
def test_what_is_neither_an_address_nor_a_path_is_refused_with_the_options_name(text):
    with pytest.raises(UsageError, match="^--to: "):
        locate(text, "--to")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("http://host:8080", VespaUrl("http://host:8080")),
        ("HTTP://Host:8080/", VespaUrl("http://host:8080")),
        ("https://host#passage", VespaUrl("https://host", "passage")),
        ("https://host/#Passage", VespaUrl("https://host", "Passage")),
        ("http://[::1]:8080", VespaUrl("http://[::1]:8080")),
        (".", Path()),
        ("index", Path("index")),
        ("a folder/of mine", Path("a folder/of mine")),
        ("data/10:30", Path("data/10:30")),
        ("~", Path.home()),
        ("~/index", Path.home() / "index"),
    ],
)
def test_what_is_an_address_or_a_path(text, place):
    assert locate(text) == place
    assert locate(place) == place
    assert locate(str(place)) == place


def test_a_folder_with_a_doubtful_name_is_written_with_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("localhost:8080", "http:", "localhost", "-x", "~x"):
        place = locate(f"./{name}")
        assert place == tmp_path / name
        assert locate(str(place)) == place


def test_messages_say_how_to_write_either():
    with pytest.raises(UsageError, match="write http://localhost:8080 for Vespa, or ./localhost:8080 for a folder"):
        locate("localhost:8080")
    with pytest.raises(UsageError, match="is a URL"):
        as_path("http://host")
    with pytest.raises(UsageError, match="is not the address"):
        vespa_url("folder")


@pytest.mark.parametrize("text", ["me:hunter2@host", " http://me:hunter2@host", "http:/me:hunter2@host"])
def test_a_password_is_never_shown(text):
    for read in (locate, as_path, vespa_url):
        try:
            read(text)
        except UsageError as error:
            assert "hunter2" not in str(error)


@pytest.mark.parametrize("text", ["localhost:8080", "", "http:/host", " http://host"])
def test_every_way_in_refuses_what_is_neither(text, tmp_path, monkeypatch, minilm_bundle):
    monkeypatch.chdir(tmp_path)
    ways = [
        lambda: Client(text),
        lambda: AsyncClient(text).__enter__() if hasattr(AsyncClient, "__enter__") else Client(text),
        lambda: start_feed([], FeedOptions(to=text, journal=tmp_path / "journal")).__enter__(),
        lambda: DocumentStore(text, minilm_bundle),
        lambda: copy_index(text, "index"),
        lambda: backup_index(text, tmp_path / "backup"),
        lambda: RAGPretrainedModel.from_index(text),
        lambda: RAGPretrainedModel.from_pretrained(minilm_bundle.path, address=text),
    ]
    for way in ways:
        with pytest.raises(UsageError):
            way()
    assert not list(tmp_path.iterdir())


def test_an_empty_text_is_not_the_current_folder(minilm_bundle, monkeypatch):
    monkeypatch.chdir(minilm_bundle.path)
    assert Bundle.open(".").sha256 == minilm_bundle.sha256
    with pytest.raises(UsageError, match="empty"):
        Bundle.open("")
