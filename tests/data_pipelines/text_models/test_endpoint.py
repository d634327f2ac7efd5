"""An endpoint that is busy, slow or cut off; its key, its cost, and what is kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from data_pipelines.text_models.endpoint import Endpoint, EndpointConfig
from tests.data_pipelines.text_models.loopback import serve

pytest.importorskip("openai")
CONFIG = EndpointConfig(model="small", timeout=0.7, parallel=3, price_in=100.0, price_out=1000.0)
PROMPTS = [f"say {number}" for number in range(8)]


def reply(prompt: str) -> str:
    return prompt.removeprefix("say ")


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "slow"])
def test_every_answer_comes_all_the_same(fault: int | str, tmp_path: Path) -> None:
    with serve(reply, faults=[fault, "", "", ""]) as server:
        endpoint = Endpoint(replace(CONFIG, base_url=server.url), tmp_path)
        assert endpoint.complete(PROMPTS) == [reply(prompt) for prompt in PROMPTS]
        assert server.requests > len(PROMPTS)


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    with serve(reply) as server:
        config = replace(CONFIG, base_url=server.url)
        first = Endpoint(config, tmp_path)
        assert first.complete([*PROMPTS, *PROMPTS]) == [reply(p) for p in PROMPTS] * 2
        assert server.requests == len(PROMPTS)
        assert (first.sent, first.received) == (80, 16)
        assert first.cost == pytest.approx(80 * 1e-4 + 16 * 1e-3)
        again = Endpoint(config, tmp_path)
        assert again.complete(PROMPTS[::-1]) == [reply(p) for p in PROMPTS[::-1]]
        assert server.requests == len(PROMPTS) and again.cost == 0
        other = Endpoint(replace(config, model="large"), tmp_path)
        other.complete(PROMPTS[:1])
        assert server.requests == len(PROMPTS) + 1


@pytest.mark.parametrize("fault", [401, 404, 500, "garbage", "cut"])
def test_what_came_is_kept_when_it_fails_for_good(fault: int | str, tmp_path: Path) -> None:
    with serve(reply) as server:
        config = replace(CONFIG, base_url=server.url, retries=0, parallel=1)
        Endpoint(config, tmp_path).complete(PROMPTS[:3])
    with serve(reply, faults=[fault]) as broken:
        # The same address to the cache: it is part of what an answer is kept by.
        endpoint = Endpoint(config, tmp_path)
        endpoint._client.base_url = broken.url
        with pytest.raises(InputError, match=r"then run again: what was answered is kept"):
            endpoint.complete(PROMPTS)
        assert broken.requests <= 2  # one may have begun before the first had failed
        assert endpoint.complete(PROMPTS[:3]) == ["0", "1", "2"]


def test_the_key_is_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serve(reply, faults=["", 401]) as server:
        config = replace(CONFIG, base_url=server.url, key_variable="MY_KEY", parallel=1)
        endpoint = Endpoint(config, tmp_path)
        with pytest.raises(InputError) as caught:
            endpoint.complete(PROMPTS)
        assert set(server.keys) == {"Bearer sk-secret"}
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    said = capfd.readouterr()
    assert written and "sk-secret" not in written + str(caught.value) + said.out + said.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ""}, "curate.endpoint.model is empty"),
        ({"parallel": 0}, "curate.endpoint.parallel is 0; give 1 or more"),
        ({"base_url": "http://me:hunter2@host/v1"}, "give it by the environment"),
    ],
)
def test_mistakes(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Endpoint(replace(CONFIG, **changes), tmp_path)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
