"""Tokens and addresses: what is sent, what is refused, and that nothing secret is shown."""

from pathlib import Path

import httpx
import pytest

from feeder import FeedOptions, start_feed
from late_interaction.errors import UsageError
from query import Client
from vespa_app.deploying.targets import check_named, choose_urls
from vespa_app.running.credentials import token_header
from vespa_app.running.http import connect, parse_address

LOCAL = httpx.URL("http://localhost:8080")
SECRET = "vespa_cloud_topsecret"


@pytest.fixture
def token_file(monkeypatch, tmp_path):
    file = tmp_path / "token"
    monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(file))
    return file


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_is_the_one_line_of_its_file(token_file, end):
    token_file.write_bytes(f"{SECRET}{end}".encode())
    assert token_header(LOCAL) == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    "content",
    [
        f"{SECRET}\n{SECRET}\n".encode(), f"{SECRET}\n\n".encode(), f"{SECRET}ä".encode(), f"{SECRET}\x01".encode(), b"", b"\n",
        b" \n", f"{SECRET} more".encode(), b"\xff\xfe" + SECRET.encode("utf-16"), f"{SECRET}\r{SECRET}".encode(),
    ],
)  # fmt: skip
def test_a_token_file_of_another_form_is_named_and_its_content_is_not_shown(token_file, content):
    token_file.write_bytes(content)
    with pytest.raises(UsageError, match="COLBERT_VESPA_TOKEN_FILE") as caught:
        connect("http://localhost:8080")
    assert str(token_file) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_file_that_is_not_there(token_file):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        token_header(LOCAL)


def test_a_token_travels_encrypted_or_not_at_all(token_file):
    token_file.write_text(SECRET)
    for safe in ("https://example.com", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080"):
        assert token_header(httpx.URL(safe))
    for host in ("example.com", "localhost.example.com", "127.0.0.2", "10.0.0.1"):
        with pytest.raises(UsageError, match=f"^{host}: a token .* https only"):
            connect(f"http://{host}:8080")


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host", "http://user:hun/ter2@host", "https://hunter2@host:8080#passage", "http://u:hunter2 @h"]
)
def test_an_address_with_a_password_is_refused_and_not_shown(url):
    for refuse in (
        lambda: connect(url),
        lambda: choose_urls(url, None),
        lambda: choose_urls("docker", url),
        lambda: Client(url),
        lambda: start_feed([], FeedOptions(to=url, journal=Path("journal"))).__enter__(),
    ):
        with pytest.raises(UsageError, match="must not contain @") as caught:
            refuse()
        assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://", "foo", "http://h:x", "http://h:99999", "http://h:0", "http://a b", "ftp://host", ""]
)
def test_what_is_no_address(url):
    with pytest.raises(UsageError, match="is not the address|is empty"):
        parse_address(url)


def test_options_that_are_no_address_are_named():
    with pytest.raises(UsageError, match="^--target: 'http://' is not the address"):
        choose_urls("http://", None)
    with pytest.raises(UsageError, match="^--query-url: 'foo' is not the address"):
        choose_urls("docker", "foo")
    assert choose_urls("http://h:19071/", None) == ("http://h:19071", "http://h:8080")


def test_the_port_of_the_container_is_not_guessed_beside_an_unusual_one():
    with pytest.raises(UsageError, match="--target http://h:19 .* --query-url"):
        check_named("http://h:19", None)
    check_named("http://h:19071", None)
    check_named("docker", None)
    assert choose_urls("http://h:19", "http://h:18/") == ("http://h:19", "http://h:18")
