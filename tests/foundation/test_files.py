import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from late_interaction import files
from late_interaction.errors import UsageError
from late_interaction.files import (
    atomic_write,
    check_folder,
    check_output_file,
    check_own_output,
    check_writable,
    claim_folder,
    is_claimed,
    nothing_owned,
    remove_abandoned,
    remove_folder,
    replace_folder,
    safe_join,
)


def is_ours(folder):
    return (folder / "ours").is_file()


def names(folder):
    return sorted(item.name for item in folder.iterdir())


@pytest.fixture
def private():
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "file"
    atomic_write(target, b"old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_modes_follow_the_umask_or_what_was_there(tmp_path, private):
    atomic_write(tmp_path / "file", b"")
    with replace_folder(tmp_path / "folder", owned=is_ours) as staging:
        (staging / "ours").touch()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    os.umask(0o022)
    atomic_write(tmp_path / "file", b"again")
    with replace_folder(tmp_path / "folder", owned=is_ours):
        pass
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    atomic_write(tmp_path / "public", b"")
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


def test_errors_name_the_path_that_was_given(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "x.html", tmp_path / "file" / "x.html", tmp_path):
        for write in (lambda path: atomic_write(path, b""), check_output_file):
            with pytest.raises(OSError) as raised:
                write(path)
            assert raised.value.filename == str(path)
    for write in (lambda path: replace_folder(path, owned=is_ours).__enter__(), lambda path: check_folder(path, owned=is_ours)):
        with pytest.raises(OSError) as raised:
            write(tmp_path / "file" / "x")
        assert raised.value.filename == str(tmp_path / "file" / "x")


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder-link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("made")
    for link in ("folder-link", "dangling"):
        with replace_folder(tmp_path / link, owned=nothing_owned) as staging:
            (staging / "ours").touch()
        assert (tmp_path / link).is_symlink() and names(tmp_path / link) == ["ours"]
    assert names(tmp_path) == ["dangling", "file", "folder", "folder-link", "link", "made"]


def test_a_device_is_written_to_and_stays():
    atomic_write(files.Path("/dev/null"), b"data")
    assert files.Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b", "", "a\\b", "a//b", "./a", "a\0b"])
def test_unsafe_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="unsafe"):
        safe_join(tmp_path, name)


def test_a_failed_stage_keeps_what_was_there(tmp_path):
    target = tmp_path / "folder"
    with replace_folder(target, owned=is_ours) as staging:
        (staging / "ours").write_text("1")
    with pytest.raises(RuntimeError), replace_folder(target, owned=is_ours) as staging:
        (staging / "b").write_text("2")
        raise RuntimeError
    assert names(target) == ["ours"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_of_ours_is_replaced_whole(tmp_path):
    target = tmp_path / "folder"
    for name in "ab":
        with replace_folder(target, owned=is_ours) as staging:
            (staging / "ours").touch()
            (staging / name).write_text(name)
    assert names(target) == ["b", "ours"]
    assert names(tmp_path) == ["folder"]


def test_what_is_not_ours_is_refused_by_name_before_the_work(tmp_path, monkeypatch):
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    (work / ".git" / "HEAD").write_text("ref")
    (tmp_path / "link").symlink_to("work")
    (tmp_path / "file").write_text("text")
    monkeypatch.chdir(work)
    for target, reason in (
        (work, "did not write"), (tmp_path / "link", "did not write"), (tmp_path / "file", "is a file"),
        (files.Path("."), "did not write"), (files.Path(".."), "did not write"), (files.Path("/"), "did not write"),
    ):  # fmt: skip
        for begin in (
            lambda path: replace_folder(path, owned=is_ours).__enter__(),
            lambda path: check_folder(path, owned=is_ours),
        ):
            with pytest.raises(UsageError, match=f"^{target} .*{reason}"):
                begin(target)
        if target != tmp_path / "file":
            with pytest.raises(UsageError, match="not removed"):
                remove_folder(target, owned=is_ours)
    assert (work / ".git" / "HEAD").read_text() == "ref" and (tmp_path / "file").read_text() == "text"
    assert names(tmp_path) == ["file", "link", "work"]


def test_what_came_while_the_folder_was_built_is_not_replaced(tmp_path):
    with pytest.raises(UsageError, match="did not write"), replace_folder(tmp_path / "f", owned=is_ours) as staging:
        (staging / "ours").touch()
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "mine").write_text("mine")
    assert names(tmp_path / "f") == ["mine"] and names(tmp_path) == ["f"]


def test_the_old_folder_is_back_where_the_second_rename_fails(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    with replace_folder(target, owned=is_ours) as staging:
        (staging / "ours").write_text("old")
    replace = os.replace

    def failing(source, destination):
        if ".staging-" in str(source):
            raise OSError(errno.EIO, "Input/output error", str(source))
        replace(source, destination)

    with pytest.raises(OSError) as raised, replace_folder(target, owned=is_ours) as staging:
        (staging / "ours").write_text("new")
        monkeypatch.setattr(files.os, "replace", failing)
    assert raised.value.filename == str(target)
    assert (target / "ours").read_text() == "old" and names(tmp_path) == ["folder"]


STAGING = """
import pathlib, sys
from late_interaction.files import replace_folder
with replace_folder(pathlib.Path(sys.argv[1]), owned=lambda folder: True) as staging:
    (staging / "ours").touch()
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_what_another_process_builds_stays_until_it_is_killed(tmp_path):
    target = tmp_path / "folder"
    with subprocess.Popen(
        [sys.executable, "-c", STAGING, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ready\n"
        [staging] = names(tmp_path)
        remove_abandoned(target)
        with replace_folder(tmp_path / "other", owned=nothing_owned):
            pass
        assert names(tmp_path) == [staging, "other"]
        other.kill()
    (tmp_path / ".folder.staging-mine").mkdir()  # a name that we do not give
    remove_abandoned(target)
    assert names(tmp_path) == [".folder.staging-mine", "other"]


def test_what_a_killed_replacement_has_put_aside_comes_back(tmp_path):
    old = tmp_path / ".folder.old-0123456789abcdef"
    old.mkdir()
    (old / "ours").write_text("old")
    remove_abandoned(tmp_path / "folder")
    assert names(tmp_path / "folder") == ["ours"]
    old.mkdir()
    remove_abandoned(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


def test_an_output_is_written_over_where_it_was_ours(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "ours").write_text("# Made by `colbert-vespa")
    (tmp_path / "empty").touch()
    for name in ("ours", "empty", "none"):
        check_own_output(tmp_path / name, "colbert-vespa")
    with pytest.raises(UsageError, match="mine was not written by this command"):
        check_own_output(tmp_path / "mine", "colbert-vespa")


def test_a_folder_is_claimed_for_one_kind_of_work(tmp_path):
    claim_folder(tmp_path / "a" / "b", "demo")
    (tmp_path / "a" / "b" / "more").touch()
    claim_folder(tmp_path / "a" / "b", "demo")
    assert is_claimed(tmp_path / "a" / "b", "demo") and not is_claimed(tmp_path, "demo")
    for folder, kind in (
        (tmp_path / "a" / "b", "vector cache"),
        (tmp_path / "a", "demo"),
        (tmp_path / "a" / "b" / "more", "demo"),
    ):
        with pytest.raises(UsageError, match=f"{folder} is not a {kind} folder"):
            claim_folder(folder, kind)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
def test_a_file_system_that_takes_no_files_is_found_before_the_work():
    for path in (Path("/proc/x.html"), Path("/proc/x/y.html")):
        with pytest.raises(OSError, match="folder /proc"):
            check_writable(path.parent)
