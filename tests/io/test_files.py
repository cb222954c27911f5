"""Files written by several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from foveate.io.files import remove_temporary, write_bytes


def test_threads_that_write_files_with_alike_names_do_not_mix_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{'long' * 30}-{index % 5}" for index in range(60)]  # and several of them the same file
    contents = [f"{path.name} ".encode() * 5000 for path in paths]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_bytes, paths, contents))
    for path, content in zip(paths, contents, strict=True):
        assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 5


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Path] = []
    monkeypatch.setattr(Path, "replace", lambda self, target: left.append(self))
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    write_bytes(tmp_path / "last.ckpt", b"half")
    monkeypatch.undo()
    assert left[0].exists()
    remove_temporary(tmp_path)
    assert not list(tmp_path.iterdir())
