"""An emulated service that keeps gs://bucket in memory, and adds what it leaves out."""

import contextlib
import http.server
import logging
import re
import socket
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from etils import epath


def tell_generations(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def move_objects(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds `moveTo`, which gives an object another name at once.

    Without it gcsfs asks again for half a minute and then copies.
    """
    from gcp_storage_emulator import settings
    from gcp_storage_emulator.handlers import objects

    def move(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
        request.params["dest_bucket_name"] = request.params["bucket_name"]
        objects.copy(request, response, storage)
        objects.delete(request, response, storage)

    pattern = (
        rf"^{re.escape(settings.API_ENDPOINT)}/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.+)"
        r"/moveTo/o/(?P<dest_object_id>.+)$"
    )
    monkeypatch.setattr(emulator, "HANDLERS", ((pattern, {"POST": move}), *emulator.HANDLERS))


def tell_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers for the service's second interface, which the emulator has not: no folders."""
    from gcsfs.extended_gcsfs import BucketType, ExtendedGcsFileSystem

    async def told(self: Any, bucket: str) -> BucketType:
        return BucketType.NON_HIERARCHICAL

    monkeypatch.setattr(ExtendedGcsFileSystem, "_get_bucket_type", told)


def serve_many(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread for each connection, one request after another.

    The emulator waits for the request of one connection before it looks at the next: a client that
    opens one ahead would stop all others.
    """
    lock, handle = threading.Lock(), emulator.Router.handle

    def one_by_one(router: Any, method: str) -> None:
        with lock:
            handle(router, method)

    monkeypatch.setattr(emulator.Router, "handle", one_by_one)
    threaded = types.SimpleNamespace(HTTPServer=http.server.ThreadingHTTPServer)
    monkeypatch.setattr(emulator, "server", threaded)


@pytest.fixture(scope="module")
def bucket() -> Iterator[epath.Path]:
    """A bucket that is empty when a module's tests begin."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _serve(monkeypatch)


def _serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[epath.Path]:
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="no emulator of a bucket")
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs reads gs://")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    tell_generations(emulator, monkeypatch)
    move_objects(emulator, monkeypatch)
    tell_layout(monkeypatch)
    serve_many(emulator, monkeypatch)
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, f"http://localhost:{port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "x")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # gcsfs would wait for a cloud that is not there
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield epath.Path("gs://bucket")
    server.stop()
