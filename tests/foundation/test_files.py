import pytest

from late_interaction.files import atomic_write, safe_join, staged_folder


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "file"
    atomic_write(target, b"old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b", "", "a\\b", "a//b", "./a", "a\0b"])
def test_unsafe_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="unsafe"):
        safe_join(tmp_path, name)


def test_a_failed_stage_keeps_what_was_there(tmp_path):
    target = tmp_path / "folder"
    with staged_folder(target) as staging:
        (staging / "a").write_text("1")
    with pytest.raises(RuntimeError), staged_folder(target) as staging:
        (staging / "b").write_text("2")
        raise RuntimeError
    assert [item.name for item in target.iterdir()] == ["a"]
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_a_stage_replaces_the_whole_folder(tmp_path):
    target = tmp_path / "folder"
    for name in "ab":
        with staged_folder(target) as staging:
            (staging / name).write_text(name)
    assert [item.name for item in target.iterdir()] == ["b"]
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]
