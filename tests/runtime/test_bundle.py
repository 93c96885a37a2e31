import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from craft_onnx.errors import CheckFailed, InputError
from craft_onnx.runtime import bundle as bundles
from craft_onnx.runtime.bundle import Bundle
from craft_onnx.runtime.manifest import Concepts, without_concepts
from craft_onnx.runtime.model import load


def _bank(identifier, class_id=0):
    return Concepts(identifier, class_id, "relu", None, f"concepts/{identifier}-00")


def _adding(identifier):
    """A change of the manifest and its files."""
    bank = _bank(identifier)

    def change(manifest):
        return dataclasses.replace(manifest, concepts=(*manifest.concepts, bank))

    return change, {f"{bank.folder}/w.npz": identifier.encode()}


def _contents(folder):
    """Path and bytes of every file but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_opens_and_finds_its_graphs(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    assert bundle.path("g", "relu") == (bundle_folder / "g.onnx").resolve()
    assert bundle.path("model").name == "model.onnx"
    assert Bundle.open(str(bundle_folder), verify=False).manifest == bundle.manifest
    with pytest.raises(InputError, match="no graph 'vjp_g'"):
        bundle.path("vjp_g", "relu")
    with pytest.raises(InputError, match=r"no file 'other\.npz'"):
        bundle.file("other.npz")


@pytest.mark.parametrize("file", ["weights.bin", "g.onnx", "model.onnx"])
def test_a_changed_byte_and_a_truncated_file(bundle_folder, file):
    path = bundle_folder / file
    content = path.read_bytes()
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    for damaged in (bytes(changed), content[:-1], content + b"\0", b""):
        path.write_bytes(damaged)
        for opening in (Bundle.open, load):
            with pytest.raises(CheckFailed, match=rf"{file} is truncated or was changed.*Copy the bundle again") as e:
                opening(bundle_folder)
            assert e.value.exit_code == 1
    path.write_bytes(content)
    Bundle.open(bundle_folder)


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file(bundle_folder, verify):
    (bundle_folder / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"lacks weights\.bin.*Copy the bundle again"):
        Bundle.open(bundle_folder, verify)
    (bundle_folder / "weights.bin").mkdir()
    with pytest.raises(InputError, match=r"lacks weights\.bin"):
        Bundle.open(bundle_folder, verify)


def test_what_is_no_bundle(bundle_folder, tmp_path):
    with pytest.raises(InputError, match=r"nowhere is not there.*craft-onnx split"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"g\.onnx is a file, not a bundle"):
        Bundle.open(bundle_folder / "g.onnx")
    with pytest.raises(InputError, match=r"is no bundle: it has no MANIFEST\.json"):
        Bundle.open(tmp_path)


def test_a_manifest_of_another_schema_or_cut_short(bundle_folder):
    path = bundle_folder / "MANIFEST.json"
    text = path.read_text()
    path.write_text(text.replace('"schema": 2', '"schema": 99'))
    with pytest.raises(InputError, match="schema 99, this version reads 1 and 2"):
        Bundle.open(bundle_folder)
    path.write_text(text[:-20])
    with pytest.raises(InputError, match="truncated or damaged"):
        Bundle.open(bundle_folder)


def _rename_in_manifest(folder, old, new):
    """As an attacker would: the manifest names a file elsewhere, with its right hash."""
    fields = json.loads((folder / "MANIFEST.json").read_text())
    fields["files"][new] = hashlib.sha256((folder / new).read_bytes()).hexdigest()
    for graph in fields["graphs"]:
        graph["file"] = new if graph["file"] == old else graph["file"]
    (folder / "MANIFEST.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("absolute", [True, False])
def test_paths_that_leave_the_folder(bundle_folder, absolute):
    outside = bundle_folder.parent / "outside.onnx"
    shutil.copy(bundle_folder / "g.onnx", outside)
    _rename_in_manifest(bundle_folder, "g.onnx", str(outside) if absolute else "../outside.onnx")
    with pytest.raises(InputError, match="no path inside the bundle"):
        Bundle.open(bundle_folder)


@pytest.mark.parametrize("verify", [True, False])
def test_symbolic_links_that_leave_the_folder(bundle_folder, verify):
    outside = bundle_folder.parent / "outside"
    outside.mkdir()
    for name in ("weights.bin", "MANIFEST.json"):
        path = bundle_folder / name
        shutil.move(path, outside / name)
        path.symlink_to(outside / name)
        with pytest.raises(InputError, match=rf"{name}.* leads out of .*cp -rL"):
            Bundle.open(bundle_folder, verify)
        path.unlink()
        shutil.move(outside / name, path)
    (bundle_folder / "weights.bin").unlink()
    (bundle_folder / "weights.bin").symlink_to("weights.bin")
    with pytest.raises(InputError, match=r"lacks weights\.bin"):
        Bundle.open(bundle_folder, verify)


def _kubernetes_volume(folder, mount):
    """What a mounted volume looks like: every name a link to ..data/<name>, ..data a link to a dated folder."""
    dated = mount / "..2026_01_01_00_00_00.12345678"
    mount.mkdir()
    shutil.copytree(folder, dated)
    (mount / "..data").symlink_to(dated.name)
    for path in dated.iterdir():
        (mount / path.name).symlink_to(Path("..data") / path.name)


def test_a_kubernetes_volume(bundle_folder, tmp_path, pictures, oracle):
    change, files = _adding("c1")
    Bundle.open(bundle_folder).update(change, files)
    mount = tmp_path / "mount"
    _kubernetes_volume(bundle_folder, mount)
    model = load(mount)
    np.testing.assert_allclose(model.h(model.g(pictures)), oracle(pictures)[1], rtol=0, atol=1e-5)
    assert model.bundle.file("concepts/c1-00/w.npz").read_bytes() == b"c1"
    assert model.bundle.sweep(older_than=0) == []
    linked = tmp_path / "linked"
    linked.symlink_to(mount)
    assert load(linked).predict(pictures).shape == (21, 5)


def test_links_between_files_of_the_bundle(bundle_folder, pictures):
    """Every file in a subfolder of its own, as some stores lay them out: the weights still lie beside the graph."""
    store = bundle_folder / "store"
    store.mkdir()
    for name in ("g.onnx", "h.onnx", "model.onnx", "weights.bin"):
        shutil.move(bundle_folder / name, store / name)
        (bundle_folder / name).symlink_to(Path("store") / name)
    assert load(bundle_folder).predict(pictures).shape == (21, 5)


def test_commit_adds_files_and_names_their_hashes(bundle_folder, tmp_path):
    bundle = Bundle.open(bundle_folder)
    change, files = _adding("c1")
    other = tmp_path / "picture.png"
    other.write_bytes(b"png")
    bundle.commit(change(bundle.manifest), files | {"concepts/c1-00/crops/0.png": other})
    again = Bundle.open(bundle_folder)
    assert again.manifest == bundle.manifest
    assert again.manifest.concepts == (_bank("c1"),)
    assert again.file("concepts/c1-00/crops/0.png").read_bytes() == b"png"
    assert again.manifest.files["concepts/c1-00/w.npz"] == hashlib.sha256(b"c1").hexdigest()
    assert not list(bundle_folder.rglob(".*.????????"))


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "MANIFEST.json", ".lock", "a\\b", "", "concepts/../../x"])
def test_commit_refuses_unsafe_names(bundle_folder, name):
    bundle = Bundle.open(bundle_folder)
    before = _contents(bundle_folder.parent)
    with pytest.raises(InputError, match="no path inside the bundle"):
        bundle.commit(bundle.manifest, {name: b"x"})
    assert _contents(bundle_folder.parent) == before


def test_commit_does_not_follow_links_out(bundle_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (bundle_folder / "concepts").symlink_to(tmp_path / "elsewhere")
    bundle = Bundle.open(bundle_folder)
    change, _ = _adding("c1")
    with pytest.raises(InputError, match="no path inside the bundle"):
        bundle.commit(change(bundle.manifest), {"concepts/w.npz": b"x"})
    assert not list((tmp_path / "elsewhere").iterdir())


def test_commit_never_changes_a_file(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    before = _contents(bundle_folder)
    with pytest.raises(InputError, match=r"another g\.onnx already"):
        bundle.commit(bundle.manifest, {"g.onnx": b"other"})
    bundle.commit(bundle.manifest, {"g.onnx": before["g.onnx"]})
    assert _contents(bundle_folder) == before


class _Crash(BaseException):
    """Not an Exception: nothing catches it, as nothing catches the end of a process."""


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_crash_during_commit_leaves_the_old_bundle(bundle_folder, monkeypatch, at, moment):
    """At each of the two files and the manifest: before it is written, and before it takes its name."""
    bundle = Bundle.open(bundle_folder)
    change, files = _adding("c1")
    files["concepts/c1-00/crops.npz"] = b"crops"
    calls = []
    target, name = (bundles, "_write") if moment == "before" else (os, "replace")
    real = getattr(target, name)

    def crash(*arguments):
        calls.append(arguments)
        if len(calls) > at:
            raise _Crash
        return real(*arguments)

    before = _contents(bundle_folder)
    monkeypatch.setattr(target, name, crash)
    with pytest.raises(_Crash):
        bundle.commit(change(bundle.manifest), files)
    monkeypatch.undo()
    after = _contents(bundle_folder)
    assert {name: after[name] for name in before} == before
    again = Bundle.open(bundle_folder)
    assert again.manifest.concepts == ()
    again.update(change, files)
    assert Bundle.open(bundle_folder).manifest.concepts == (_bank("c1"),)


HANGS = """
import sys, time
from craft_onnx.runtime import bundle as bundles
def hang(path, content):
    print("locked", flush=True)
    time.sleep(60)
bundles._write = hang
bundles.Bundle.open(sys.argv[1]).update(lambda manifest: manifest, {})
"""


def test_a_killed_process_leaves_no_lock(bundle_folder):
    with subprocess.Popen([sys.executable, "-c", HANGS, str(bundle_folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"locked\n"
        writer.kill()
    change, files = _adding("c1")
    Bundle.open(bundle_folder).update(change, files)
    assert Bundle.open(bundle_folder).manifest.concepts == (_bank("c1"),)


def test_two_who_opened_the_same_bundle(bundle_folder):
    first, second = Bundle.open(bundle_folder), Bundle.open(bundle_folder)
    for bundle, name in ((first, "c1"), (second, "c2")):
        change, files = _adding(name)
        if bundle is first:
            bundle.commit(change(bundle.manifest), files)
            continue
        with pytest.raises(InputError, match=r"was changed meanwhile.* Open it again"):
            bundle.commit(change(bundle.manifest), files)
        bundle.update(change, files)
    assert Bundle.open(bundle_folder).manifest.concepts == (_bank("c1"), _bank("c2"))
    assert second.manifest == Bundle.open(bundle_folder).manifest


def test_many_commits_at_once(bundle_folder):
    def add(name):
        Bundle.open(bundle_folder).update(*_adding(name))

    jobs = [threading.Thread(target=add, args=(f"c{i}",)) for i in range(12)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    concepts = Bundle.open(bundle_folder).manifest.concepts
    assert {bank.id for bank in concepts} == {f"c{i}" for i in range(12)}


def test_a_folder_that_cannot_be_written(bundle_folder, monkeypatch):
    bundle = Bundle.open(bundle_folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = _contents(bundle_folder)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        bundle.commit(bundle.manifest, {"new.onnx": b"x"})
    assert _contents(bundle_folder) == before
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match="cannot be written"):
        bundle.commit(bundle.manifest, {})


def test_sweeping(bundle_folder):
    bundle = Bundle.open(bundle_folder)
    bundle.update(*_adding("c1"))
    bundle.update(*_adding("c2"))
    (bundle_folder / "h_old.onnx").write_bytes(b"garbage")
    unfinished = bundle_folder / ".MANIFEST.json.abcd1234"
    unfinished.mkdir()
    (unfinished / "MANIFEST.json").write_text("{")
    (bundle_folder / "README.txt").write_text("the user's own")
    long_ago = time.time() - 7200
    for path in bundle_folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    (bundle_folder / "new.onnx").write_bytes(b"of a commit under way")
    bundle.update(lambda manifest: without_concepts(manifest, "c1"), {})
    assert bundle.manifest.concepts == (_bank("c2"),)
    assert sorted(bundle.sweep()) == [".MANIFEST.json.abcd1234/MANIFEST.json", "h_old.onnx"]
    assert not unfinished.exists()
    assert (bundle_folder / "concepts/c1-00/w.npz").exists()  # its age counts from when it was dropped
    assert sorted(bundle.sweep(older_than=0)) == ["concepts/c1-00/w.npz", "new.onnx"]
    assert not (bundle_folder / "concepts/c1-00").exists()
    assert Bundle.open(bundle_folder).manifest == bundle.manifest
    assert (bundle_folder / "README.txt").exists()
    assert bundle.sweep(older_than=0) == []
