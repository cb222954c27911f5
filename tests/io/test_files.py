"""Files written by several threads at once."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from foveate.io.files import remove_temporary, writable_file, write_bytes
from tests.interpreters import Interpreter


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


def test_what_a_link_leads_to_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


def test_a_pipe_is_written_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_bytes(writable_file(pipe), b"figures")
        assert read.result(20) == b"figures"
    assert pipe.is_fifo()


def test_a_table_that_is_printed_and_figures_that_are_written_do_not_mix(python: Interpreter) -> None:
    done = python.run(  # whose output goes to a file
        "from pathlib import Path\nfrom foveate.io.files import write_bytes\n"
        "print('table')\nwrite_bytes(Path('/dev/stdout'), b'figures\\n')\nprint('end')\n"
    )
    assert (done.returncode, done.stdout) == (0, "table\nfigures\nend\n"), done.stderr


def test_devices_are_written_and_stay_devices(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("/dev/stdout", "/dev/null"):
        write_bytes(writable_file(Path(name)), b"figures", rehearsal=True)
        write_bytes(Path(name), b"figures\n")
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/stdout").is_symlink()
    assert capfd.readouterr().out == "figures\n"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = Path.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replaced(self: Path, target: Path) -> Path:
        done.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_bytes(tmp_path / "x", b"content")
    assert done == ["file", "name", "folder"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_file_systems_that_flush_no_folders_are_excused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synced(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", synced)
    if number == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(number)):
            write_bytes(tmp_path / "x", b"content")
    else:
        write_bytes(tmp_path / "x", b"content")
    assert (tmp_path / "x").read_bytes() == b"content"


def test_what_cannot_be_cleaned_up_does_not_hide_the_file_that_could_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a folder")
    with pytest.raises(OSError, match="Not a directory") as raised:
        write_bytes(tmp_path / "notes.txt" / "where.png", b"content")
    assert raised.value.filename == str(tmp_path / "notes.txt" / "where.png")
