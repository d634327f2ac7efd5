"""An endpoint that is busy, slow or cut off; its key, its cost, and what is kept."""

import base64
import io
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.frame_build import build_store
from data_pipelines.frames import FrameStore
from data_pipelines.images import ImagePolicy
from data_pipelines.sampling import FramePolicy
from data_pipelines.synthetic import write_videos
from data_pipelines.text_models.endpoint import Endpoint, EndpointConfig, jpeg_url
from data_pipelines.text_models.text_model import TextPrompt
from tests.data_pipelines.text_models.loopback import serve

pytest.importorskip("openai")
CONFIG = EndpointConfig(
    model="small", timeout=0.7, parallel=3, backoff=0.01, price_in=100.0, price_out=1000.0
)
PROMPTS = [TextPrompt(video_id="ab", text=f"say {number}") for number in range(8)]
SAID = [str(number) for number in range(8)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    root = tmp_path_factory.mktemp("store")
    write_videos(root / "videos", root / "truth.json", count=1, events=(3, 3), seed=1)
    build_store(
        sorted((root / "videos").iterdir()),
        root / "frames",
        frame_policy=FramePolicy(max_frames=8),
        image_policy=ImagePolicy(size=28),
    )
    return FrameStore.open(root / "frames")


def reply(prompt: str) -> str:
    return prompt.removeprefix("say ")


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "slow", "garbage"])
def test_every_answer_comes_all_the_same(fault: int | str, tmp_path: Path) -> None:
    with serve(reply, faults=[fault, "", "", ""]) as server:
        endpoint = Endpoint(replace(CONFIG, base_url=server.url), tmp_path / "cache.jsonl")
        assert endpoint.complete(PROMPTS) == SAID
        assert server.requests > len(PROMPTS)


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    with serve(reply) as server:
        config = replace(CONFIG, base_url=server.url)
        first = Endpoint(config, tmp_path / "cache.jsonl")
        assert first.complete([*PROMPTS, *PROMPTS]) == SAID * 2
        assert server.requests == len(PROMPTS)
        assert (first.usage.tokens_in, first.usage.tokens_out) == (80, 16)
        assert first.cost == pytest.approx(80 * 1e-4 + 16 * 1e-3)
        again = Endpoint(config, tmp_path / "cache.jsonl")
        assert again.complete(PROMPTS[::-1]) == SAID[::-1]
        assert server.requests == len(PROMPTS) and again.cost == 0
        assert again.usage.from_cache == len(PROMPTS)
        other = Endpoint(replace(config, model="large"), tmp_path / "cache.jsonl")
        other.complete(PROMPTS[:1])
        assert server.requests == len(PROMPTS) + 1


@pytest.mark.parametrize("fault", [401, 404, 500, "garbage", "cut"])
def test_what_came_is_kept_when_it_fails_for_good(fault: int | str, tmp_path: Path) -> None:
    with serve(reply) as server:
        config = replace(CONFIG, base_url=server.url, retries=0, parallel=1)
        Endpoint(config, tmp_path / "cache.jsonl").complete(PROMPTS[:3])
    with serve(reply, faults=[fault]) as broken:
        # The same address to the cache: it is part of what an answer is kept by.
        endpoint = Endpoint(config, tmp_path / "cache.jsonl")
        endpoint._client.base_url = broken.url
        with pytest.raises(InputError, match=r"refuses|what was answered is kept"):
            endpoint.complete(PROMPTS)
        assert broken.requests == 1
        assert endpoint.complete(PROMPTS[:3]) == ["0", "1", "2"]


def test_the_key_is_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serve(reply, faults=["", 401]) as server:
        config = replace(CONFIG, base_url=server.url, key_variable="MY_KEY", parallel=1)
        endpoint = Endpoint(config, tmp_path / "cache.jsonl")
        with pytest.raises(InputError) as caught:
            endpoint.complete(PROMPTS)
        assert set(server.keys) == {"Bearer sk-secret"}
    written = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    said = capfd.readouterr()
    assert written and "sk-secret" not in written + str(caught.value) + said.out + said.err


@pytest.mark.parametrize("content", [None, "", " \n", "<think>{ I wonder"])
def test_a_reply_without_text_stops_nothing(content: str | None, tmp_path: Path) -> None:
    """It would come again; whoever reads it finds it unreadable."""
    told = lambda prompt: content if prompt == PROMPTS[1].text else reply(prompt)  # noqa: E731
    with serve(told) as server:  # type: ignore[arg-type]
        config = replace(CONFIG, base_url=server.url)
        for _ in range(2):
            endpoint = Endpoint(config, tmp_path / "cache.jsonl")
            assert endpoint.complete(PROMPTS[:3]) == ["0", "", "2"]
        assert server.requests == 3


def test_thoughts_are_left_out(tmp_path: Path) -> None:
    with serve(lambda prompt: f"<think>None? {{}}</think>\n\n{reply(prompt)} ") as server:
        endpoint = Endpoint(replace(CONFIG, base_url=server.url), tmp_path / "cache.jsonl")
        assert endpoint.complete(PROMPTS[:2]) == ["0", "1"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ""}, "curate.endpoint.model is empty"),
        ({"parallel": 0}, "curate.endpoint.parallel is 0; must be 1 or more"),
        ({"base_url": "http://me:hunter2@host/v1"}, "give it by the environment"),
        ({"key_variable": "sk-hunter2"}, "key_variable is no name of an environment variable"),
    ],
)
def test_mistakes(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Endpoint(replace(CONFIG, **changes), tmp_path / "cache.jsonl")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


def test_frames_are_sent_as_jpegs(store: FrameStore, tmp_path: Path) -> None:
    video = store.videos[0]
    prompt = TextPrompt(video_id=video, text="say it", positions=(2, 0))
    with serve(reply) as server:
        endpoint = Endpoint(replace(CONFIG, base_url=server.url), tmp_path / "c.jsonl", store)
        assert endpoint.complete([prompt, prompt]) == ["it", "it"]
        other = replace(prompt, positions=(1,))
        assert endpoint.complete([other]) == ["it"] and server.requests == 2
    assert len(server.frames) == 3
    for url, frame in zip(server.frames, store.frames(video, [2, 0, 1]), strict=True):
        head, _, data = url.partition(",")
        assert head == "data:image/jpeg;base64"
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), float)
        assert seen.shape == frame.shape and abs(seen - frame).mean() < 12
    small = jpeg_url(store.frames(video, [0])[0], 8).partition(",")[2]
    assert max(Image.open(io.BytesIO(base64.b64decode(small))).size) == 8


def test_no_faster_than_asked(tmp_path: Path) -> None:
    with serve(reply) as server:
        config = replace(CONFIG, base_url=server.url, requests_per_minute=600.0)
        start = time.monotonic()
        Endpoint(config, tmp_path / "c.jsonl").complete(PROMPTS[:5])
        assert time.monotonic() - start >= 4 * 0.1


def test_a_missing_client_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"tpo_jax\[endpoint\]"):
        Endpoint(CONFIG, tmp_path / "c.jsonl")
