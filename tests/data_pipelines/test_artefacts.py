"""What every artefact on disk promises."""

import json
from pathlib import Path

import pytest

from data_pipelines import artefacts
from data_pipelines.errors import InputError


def test_fingerprint_depends_on_content_only() -> None:
    one = artefacts.fingerprint({"a": 1, "b": {"c": [1, 2]}})
    assert one == artefacts.fingerprint({"b": {"c": (1, 2)}, "a": 1})
    assert len(one) == 16
    assert one != artefacts.fingerprint({"a": 1, "b": {"c": [2, 1]}})
    with pytest.raises(ValueError):
        artefacts.fingerprint({"a": float("nan")})


def test_write_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    artefacts.write_json(path, {"b": 1, "a": "é"})
    assert json.loads(path.read_text("utf-8")) == {"b": 1, "a": "é"}
    with pytest.raises(UnicodeEncodeError):
        artefacts.write_text(path, "\ud800")
    assert json.loads(path.read_text("utf-8")) == {"b": 1, "a": "é"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("resume", [False, True])
def test_building_renames_only_what_is_whole(tmp_path: Path, resume: bool) -> None:
    final = tmp_path / "deep" / "thing"
    with pytest.raises(RuntimeError), artefacts.building(final, resume=resume) as folder:
        (folder / "first").touch()
        raise RuntimeError
    assert not final.exists()
    assert folder.exists() == resume
    with artefacts.building(final, resume=resume) as folder:
        assert (folder / "first").exists() == resume
        (folder / "second").touch()
    assert (final / "second").exists() and not folder.exists()
    with (
        pytest.raises(InputError, match=r"thing: exists already"),
        artefacts.building(final, resume=resume),
    ):
        pass


def test_building_without_resume_ignores_a_killed_build(tmp_path: Path) -> None:
    (tmp_path / "thing.partial").mkdir()
    (tmp_path / "thing.partial" / "stale").touch()
    with artefacts.building(tmp_path / "thing"):
        pass
    assert list((tmp_path / "thing").iterdir()) == []


def test_manifest_round_trip(tmp_path: Path) -> None:
    artefacts.write_manifest(tmp_path, "frames", {"fps": 1.0}, videos=["a"])
    manifest = artefacts.read_manifest(tmp_path, "frames")
    assert manifest == {
        "kind": "frames",
        "format": artefacts.FORMAT_VERSION,
        "fingerprint": artefacts.fingerprint({"fps": 1.0}),
        "made_from": {"fps": 1.0},
        "content": artefacts.fingerprint({"videos": ["a"]}),
        "videos": ["a"],
    }


def test_manifest_is_refused_with_a_reason(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            artefacts.read_manifest(tmp_path / "x", "frames")
        assert "\n" not in str(caught.value) and str(tmp_path / "x") in str(caught.value)

    refused("no finished 'frames' artefact here; check the path")
    (tmp_path / "x.partial").mkdir()
    refused("was not finished; run that stage again")
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / "manifest.json"
    path.write_text("{")
    refused("cannot be read")
    path.write_text("[]")
    refused("not a manifest")
    artefacts.write_manifest(tmp_path / "x", "pairs", {})
    refused("holds 'pairs', expected 'frames'")
    artefacts.write_manifest(tmp_path / "x", "frames", {"fps": 1})
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | {"format": artefacts.FORMAT_VERSION + 1}))
    refused("upgrade")
    path.write_text(json.dumps(good | {"made_from": {"fps": 2}}))
    refused("changed by hand")


def test_check_made_from_names_every_difference() -> None:
    found = {"a": {"x": 1, "y": [1, 2]}, "gone": True, "same": "s"}
    expected = {"a": {"x": 2, "y": (1, 2)}, "new": None, "same": "s"}
    artefacts.check_made_from("p", found, found, "mend")
    with pytest.raises(InputError) as caught:
        artefacts.check_made_from("p", found, expected, "build it again")
    assert str(caught.value) == (
        "p: made from other settings (a.x: found 1, expected 2; gone: found true, expected "
        "nothing; new: found nothing, expected null); build it again"
    )
    with pytest.raises(InputError) as caught:
        artefacts.check_made_from("p", {"v": [0] * 90}, {"v": [0] * 89}, "m")
    assert len(str(caught.value)) < 300
