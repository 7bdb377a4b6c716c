"""A file is written whole or not at all."""

import stat
from pathlib import Path

import pytest

from env.errors import KitError
from runtime.files import write_whole


def test_written_with_its_folders(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b.txt", "好\n")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "好\n"
    assert stat.S_IMODE((tmp_path / "a" / "b.txt").stat().st_mode) & 0o044


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "b.txt"
    write_whole(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(target, "new \ud800")
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KitError, match="cannot be written"):
        write_whole(tmp_path / "file" / "b.txt", "text")
