"""A small server on this machine that speaks as OpenAI-compatible ones do, and fails as they do."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Any

SLOW = 1.5  # seconds; longer than the tests' clients wait


@dataclass
class Loopback:
    """What it is asked, and how often it was asked anything."""

    url: str
    prompts: list[str] = field(default_factory=list)  # that were answered
    keys: list[str] = field(default_factory=list)
    requests: int = 0
    frames: list[str] = field(default_factory=list)  # their URLs


@contextmanager
def serve(
    reply: Callable[[str], str],
    faults: Sequence[Any] = ("",),
    port: int = 0,
    slow: float = SLOW,
) -> Iterator[Loopback]:
    """Answers with `reply(prompt)`, but for the faults that come round: a status, "slow" (after so
    many seconds), "cut", "garbage"; "" is none."""
    lock, coming = threading.Lock(), cycle(faults)
    told = Loopback(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                fault = next(coming)
                told.requests += 1
                told.keys.append(self.headers.get("Authorization", ""))
            if fault == "cut":
                self.connection.close()
                return
            if fault == "slow":
                time.sleep(slow)
            content = asked["messages"][0]["content"]
            if isinstance(content, list):  # frames, then the text
                *frames, text = content
                with lock:
                    told.frames += [part["image_url"]["url"] for part in frames]
                content = text["text"]
            prompt = content
            said = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": asked["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": reply(prompt)},
                    }
                ],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
            }
            body = b"<html>" if fault == "garbage" else json.dumps(said).encode()
            try:
                self.send_response(fault if isinstance(fault, int) else 200)
                if isinstance(fault, int):
                    self.send_header("Retry-After", "0.01")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                return  # the client waits no longer
            if not fault:
                with lock:
                    told.prompts.append(prompt)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
