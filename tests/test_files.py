"""Whole files or none, and one sentence where there can be none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rfaconv.errors import OutputError, UserError
from rfaconv.files import file_hash, printable, replacing, write_text
from rfaconv.locks import folder_lock
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.rundir import claim, read_result, write_result


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EMFILE])
def test_any_os_error_is_a_sentence_and_the_old_file_stays(number: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError) as caught:
        fail()
    text = str(caught.value)
    assert text.startswith(f"'{path}' cannot be written: {os.strerror(number)} (")
    assert "MiB free there" in text
    assert "then run again" in text
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "file" / "x", "Not a directory|File exists"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(OutputError, match=reason):
            write_text(path, "text")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine"), replacing(tmp_path / "x"):
        raise UserError("mine")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_was_killed_is_cleaned_up(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from rfaconv.files import replacing\n"
    code += "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'half'); os.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "runs" / "last.ckpt")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "runs").iterdir())) == 1
    with folder_lock(tmp_path):
        assert list((tmp_path / "runs").iterdir()) == []


def test_text_that_is_no_text(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "caf\udce9")
    assert (tmp_path / "x").read_text("utf-8") == printable("caf\udce9") == "caf\\udce9"


RESULT = RunResult("rfa", 1, {"top1": 0.9}, {"train_loss": [1.0, 0.5]}, 3.0, 2)


def finished(folder: Path) -> Path:
    claim(folder, {"model": "a"})
    (folder / "model.safetensors").write_bytes(b"weights")
    write_result(folder, RESULT)
    return folder


def test_a_result_comes_back(tmp_path: Path) -> None:
    assert read_result(finished(tmp_path)) == RESULT
    assert file_hash(tmp_path / "model.safetensors").startswith("9a12903")


def test_a_result_of_another_configuration_is_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "plan.json").unlink()
    claim(tmp_path, {"model": "b"})
    with pytest.raises(UserError, match="another run's result; delete the folder"):
        read_result(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"conv": "rfa"}'])
def test_a_damaged_result_is_a_sentence(text: str, tmp_path: Path) -> None:
    (finished(tmp_path) / "result.json").write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        read_result(tmp_path)


@pytest.mark.parametrize("content", [b"", None])
def test_a_model_that_was_emptied_or_removed_is_noticed(content: bytes | None, tmp_path: Path) -> None:
    model = finished(tmp_path) / "model.safetensors"
    model.unlink() if content is None else model.write_bytes(content)
    with pytest.raises(UserError, match="not the model that was trained"):
        read_result(tmp_path)
