import os

import pytest

from craft_onnx.errors import InputError
from craft_onnx.files import check_new_folder, new_file, new_folder, sha256


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_file(tmp_path / "a") as path:
        path.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_file(tmp_path / "a") as path:
        path.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "whole"


def test_existing_output_stays_without_force(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(InputError, match="exists already"), new_file(tmp_path / "a"):
        pass
    with new_file(tmp_path / "a", force=True) as path:
        assert (tmp_path / "a").read_text() == "old"
        path.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_folder_is_replaced_only_on_success(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "MANIFEST.json").write_text('{"versions": {"craft_onnx": "1"}}')
    with pytest.raises(RuntimeError), new_folder(tmp_path / "deep" / "out", force=True) as folder:
        raise RuntimeError
    assert [p.name for p in (tmp_path / "deep" / "out").iterdir()] == ["MANIFEST.json"]
    with new_folder(tmp_path / "deep" / "out", force=True) as folder:
        (folder / "two").write_text("2")
    assert [p.name for p in (tmp_path / "deep" / "out").iterdir()] == ["two"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["photo.png", "index.html", "MANIFEST.json"])
def test_folders_of_others_are_never_replaced(tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(InputError, match="holds other things"), new_folder(folder, force=True):
        pass
    assert (folder / name).read_text() == "{}"
    (folder / name).unlink()
    with new_folder(folder, force=True) as staged:
        (staged / "new").touch()
    assert [p.name for p in folder.iterdir()] == ["new"]


def test_the_folder_one_stands_in_can_be_an_output(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(".", force=True) as staged:
        (staged / "new").touch()
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["new"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_devices_and_pipes_are_never_replaced(tmp_path):
    """As root, one could replace /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not replaced"), new_file(tmp_path / "pipe", force=True):
        pass
    assert (tmp_path / "pipe").is_fifo()


def test_parents_made_for_nothing_are_removed(tmp_path):
    with pytest.raises(RuntimeError), new_file(tmp_path / "deep" / "deeper" / "a"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    check_new_folder(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), new_file(tmp_path / "file" / "out"):
        pass


def test_sha256_of_the_empty_file(tmp_path):
    (tmp_path / "e").touch()
    assert sha256(tmp_path / "e") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
