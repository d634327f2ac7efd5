"""Checkpoints in a bucket: read, imported and exported there, against an emulated service."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from data_pipelines.artefacts import names_in
from tests.cli.test_import_export import assert_bit_equal, content, refused, write_source
from tpo_jax.api import load
from tpo_jax.cli.main import main

emulator = pytest.importorskip("gcp_storage_emulator.server", reason="no emulator of a bucket")
pytest.importorskip("gcsfs", reason="gcsfs reads gs://")


def tell_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the header that the service answers with and the emulator leaves out.

    TensorStore writes a file anew only if it still has the generation that was read.
    """
    from gcp_storage_emulator.exceptions import NotFound

    def with_generation(handler: Any) -> Any:
        def get(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> Any:
            place = request.params["bucket_name"], request.params["object_id"]
            with contextlib.suppress(NotFound):
                response["x-goog-generation"] = storage.get_file_obj(*place)["generation"]
            return handler(request, response, storage, *args, **kwargs)

        return get

    for pattern, methods in emulator.HANDLERS:
        if "object_id" in pattern and "GET" in methods:
            monkeypatch.setitem(methods, "GET", with_generation(methods["GET"]))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[epath.Path]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    tell_generations(monkeypatch)
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, f"http://localhost:{port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "x")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # gcsfs would wait for a cloud that is not there
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()
    yield epath.Path("gs://bucket")
    server.stop()


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
