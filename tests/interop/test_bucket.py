"""Checkpoints in a bucket: read, imported and exported there, against an emulated service."""

from pathlib import Path

import pytest
from etils import epath

from data_pipelines.artefacts import names_in
from tests.cli.test_import_export import assert_bit_equal, content, refused, write_source
from tpo_jax.api import load
from tpo_jax.cli.main import main


@pytest.mark.slow
def test_import_and_export_in_a_bucket(
    bucket: epath.Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = write_source(tmp_path / "source", content(), dtype="bfloat16")
    source, imported, exported = bucket / "source", bucket / "imported", bucket / "deep/exported"
    source.mkdir(parents=True, exist_ok=True)
    for path in local.iterdir():
        epath.Path(path).copy(source / path.name)
    assert main(["import", str(source), str(imported)]) == 0
    assert main(["export", str(exported), f"--checkpoint={imported}"]) == 0
    back = tmp_path / "back"
    back.mkdir()
    for file in exported.iterdir():
        file.copy(back / file.name)
    assert_bit_equal(back, local)
    assert not (exported / "UNFINISHED").exists() and (exported / "manifest.json").exists()
    # Every verb opens what lies in a bucket.
    fingerprints = {load(str(folder)).fingerprint for folder in (local, source, imported)}
    assert len(fingerprints) == 1

    assert "exists already" in refused(capsys, "import", source, imported)
    (source / "model.safetensors").write_bytes(b"cut")
    line = refused(capsys, "import", source, bucket / "again")
    assert "gs://bucket/source/model.safetensors: not a whole" in line
    assert not (bucket / "again").exists()


def test_what_is_anybodys_in_a_bucket_stays(
    bucket: epath.Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source", content())
    (bucket / "mine").mkdir(parents=True, exist_ok=True)
    (bucket / "mine/notes.txt").write_text("keep me")
    assert "exists already" in refused(capsys, "import", source, bucket / "mine")
    assert (bucket / "mine/notes.txt").read_text() == "keep me"


def test_names_are_those_of_now(bucket: epath.Path, tmp_path: Path) -> None:
    """Others write there while this process looks: what it saw before does not count."""
    import gcsfs

    another = gcsfs.GCSFileSystem(skip_instance_cache=True)
    assert names_in(bucket / "told") == set()
    for name in ("a.json", "b.json"):
        another.pipe(f"bucket/told/{name}", b"x")
        assert name in names_in(bucket / "told")
    assert names_in(bucket / "told") == {"a.json", "b.json"}
    assert names_in(tmp_path / "none") == set() and names_in(tmp_path.parent) >= {tmp_path.name}
