"""A model behind an endpoint that speaks OpenAI's chat form: vLLM, SGLang, OpenAI and others.

The key comes from the environment, goes to the server and nowhere else: it is in no config,
artefact, cache or message.
"""

import base64
import io
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from data_pipelines.artefacts import fingerprint
from data_pipelines.curation.ledger import Ledger
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.text_models.text_model import TextPrompt

FOREVER_WRONG = (400, 401, 403, 404, 422)  # asking again does not help
LONGEST_WAIT = 60.0
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What models that reason put around their thoughts, where the server leaves these in.
THOUGHT, THOUGHT_ENDS = "<think>", "</think>"


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """How an endpoint is asked.

    Attributes:
      base_url: up to and with "/v1"; empty for OpenAI's own; a role may name another.
      model: as the server calls it; a role may name another.
      key_variable: the environment variable that holds the key. Not OPENAI_API_KEY by itself: that
        would send it to whatever server `base_url` names.
      temperature: of every text.
      max_tokens: of every text.
      timeout: seconds until a request counts as lost.
      retries: after a busy or failing server, before the run stops.
      backoff: seconds before the first retry; doubled for each after it.
      parallel: requests under way at once.
      requests_per_minute: at most, over all of them; 0 for no bound.
      videos_at_once: whose prompts are gathered before they are sent.
      image_size: longest side of a frame that is sent, in pixels; 0 for as stored.
      price_in: money a million prompt tokens.
      price_out: money a million tokens said.
    """

    base_url: str = ""
    model: str = ""
    key_variable: str = "TPO_ENDPOINT_KEY"
    temperature: float = 0.0
    max_tokens: int = 512
    timeout: float = 120.0
    retries: int = 6
    backoff: float = 1.0
    parallel: int = 8
    requests_per_minute: float = 0.0
    videos_at_once: int = 8
    image_size: int = 0
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "parallel", "videos_at_once"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"curate.endpoint.{name} is {getattr(self, name)}; must be 1 or more"
                )
        if not self.timeout > 0:
            raise InputError(f"curate.endpoint.timeout is {self.timeout}; must be positive")
        for name in ("temperature", "retries", "backoff", "requests_per_minute", "image_size"):
            if not getattr(self, name) >= 0:
                raise InputError(f"curate.endpoint.{name} is {getattr(self, name)}; must be 0 up")
        if not VARIABLE.fullmatch(self.key_variable):
            # Not told what it is: it may well be the key.
            raise InputError(
                "curate.endpoint.key_variable is no name of an environment variable; put the key "
                "into one, and that one's name here"
            )

    def made_with(self) -> dict[str, Any]:
        """What a text depends on, beside the prompt: not how it is sent or paid."""
        names = ("base_url", "model", "temperature", "max_tokens", "image_size")
        return {name: getattr(self, name) for name in names}


@dataclass
class Usage:
    """What was asked of an endpoint and what it counted."""

    requests: int = 0
    failures: int = 0
    from_cache: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **counts: int) -> None:
        """Add to the counts of these names."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)


class Endpoint:
    """A `TextModel` behind an endpoint, with its answers kept on disk by what was asked."""

    def __init__(self, config: EndpointConfig, cache: Path, store: FrameStore | None = None):
        """Args: how to ask, the file of answers (made if absent), and where frames are read.

        Raises:
          InputError: the `openai` package is not there, or no model is named.
        """
        if not config.model:
            raise InputError(
                "curate.endpoint.model is empty; name the model to ask, there or in the role as "
                "endpoint:MODEL@URL"
            )
        if "@" in config.base_url:
            raise InputError(
                "curate.endpoint.base_url holds a password or key; give it by the environment, in "
                f"${config.key_variable}"
            )
        self.config = config
        self.name = f"{config.model}@{config.base_url or 'api.openai.com'}"
        self.videos_at_once = config.videos_at_once
        self.usage = Usage()
        self.identity = fingerprint(config.made_with())
        self._store = store
        self._key = os.environ.get(config.key_variable, "")
        self._client = _open_client(config, self._key)
        cache.parent.mkdir(parents=True, exist_ok=True)
        self._cache = Ledger(cache)
        self._lock = threading.Lock()
        self._next_start = 0.0

    @property
    def cost(self) -> float:
        """Money for what this run asked, by the prices of the config."""
        config, usage = self.config, self.usage
        return (usage.tokens_in * config.price_in + usage.tokens_out * config.price_out) / 1e6

    def complete(self, prompts: Sequence[TextPrompt]) -> list[str]:
        """A text for each prompt, in order; what was answered before is not asked again.

        Raises:
          InputError: the endpoint refuses, or still fails after the last try. All that it did
            answer is in the cache.
        """
        keys = [self._content_key(prompt) for prompt in prompts]
        asked = dict(zip(keys, prompts, strict=True))  # equal prompts are one request
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.config.parallel)
        try:
            told = {key: pool.submit(self._answer, key, asked[key], stop) for key in asked}
            return [told[key].result() for key in keys]
        finally:
            # After an error, requests under way may end and be kept; nothing more is sent.
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _content_key(self, prompt: TextPrompt) -> str:
        frames = self._store.fingerprint if prompt.positions and self._store else ""
        return fingerprint(
            {"by": self.config.made_with(), "frames": frames, "asked": prompt.to_json()}
        )

    def _answer(self, key: str, prompt: TextPrompt, stop: threading.Event) -> str:
        with self._lock:
            if key in self._cache:
                self.usage.add(from_cache=1)
                return str(self._cache[key]["text"])
        messages = [{"role": "user", "content": self._content(prompt)}]
        for number in range(self.config.retries + 1):
            self._wait_for_turn(stop)
            if stop.is_set():
                return ""  # nobody reads it: another request has failed for good
            self.usage.add(requests=1)
            try:
                entry = self._send(messages)
            except Exception as error:  # whatever a network or a server does
                self.usage.add(failures=1)
                refusal = self._refusal(error, last=number >= self.config.retries)
                if refusal is not None:
                    stop.set()
                    raise refusal from None
                stop.wait(self._pause(error, number))
                continue
            with self._lock:
                self._cache.add(key, entry)
            self.usage.add(tokens_in=entry["tokens_in"], tokens_out=entry["tokens_out"])
            return str(entry["text"])
        raise AssertionError("the last try raises")

    def _send(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        reply = self._client.chat.completions.create(
            model=self.config.model,
            messages=messages,
            temperature=self.config.temperature,
            max_tokens=self.config.max_tokens,
        )
        choices = getattr(reply, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        if message is None:
            raise ValueError("the reply holds no message")
        # No text is an answer too, of a model that will not say, or ran out of tokens: it would
        # come again, and must not keep the rest from being asked.
        text = said_of(str(getattr(message, "content", None) or ""))
        usage = getattr(reply, "usage", None)
        return {
            "text": text,
            "tokens_in": int(getattr(usage, "prompt_tokens", 0) or 0),
            "tokens_out": int(getattr(usage, "completion_tokens", 0) or 0),
        }

    def _content(self, prompt: TextPrompt) -> str | list[dict[str, Any]]:
        if not prompt.positions:
            return prompt.text
        if self._store is None:
            raise InputError(f"{self.name}: is asked about frames, but was given no frame store")
        frames_FHWC = self._store.frames(prompt.video_id, prompt.positions)
        urls = [jpeg_url(frame, self.config.image_size) for frame in frames_FHWC]
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}} for url in urls
        ]
        return [*parts, {"type": "text", "text": prompt.text}]

    def _wait_for_turn(self, stop: threading.Event) -> None:
        if not self.config.requests_per_minute:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 60.0 / self.config.requests_per_minute
        stop.wait(max(0.0, start - time.monotonic()))

    def _refusal(self, error: Exception, last: bool) -> InputError | None:
        """What to raise, where another try is not to be made."""
        status = getattr(error, "status_code", None)
        told = self._without_key(f"{type(error).__name__}: {error}".replace("\n", " ")[:300])
        if status in FOREVER_WRONG:
            mend = f"check curate.endpoint, and the key in ${self.config.key_variable}"
            return InputError(f"{self.name}: refuses ({told}); {mend}")
        if last:
            return InputError(
                f"{self.name}: failed {self.config.retries + 1} times, at last with {told}; what "
                "was answered is kept, so run again when it is back"
            )
        return None

    def _pause(self, error: Exception, number: int) -> float:
        """Seconds, as the server asks for, else by the rule; spread, lest all come back at once."""
        headers = getattr(getattr(error, "response", None), "headers", {})
        try:
            asked_for = float(headers.get("retry-after", ""))
        except ValueError:
            asked_for = 0.0
        doubled = self.config.backoff * 2**number * random.uniform(0.75, 1.25)
        return min(max(asked_for, doubled), LONGEST_WAIT)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def said_of(text: str) -> str:
    """A reply without the thoughts before it; nothing of one that never came to an end of them."""
    said = text.rpartition(THOUGHT_ENDS)[2].strip()
    return "" if said.startswith(THOUGHT) else said


def jpeg_url(frame_HWC: Any, longest: int = 0) -> str:
    """A frame, uint8 [H, W, 3], as a data URL; `longest` side in pixels at most, 0 as it is."""
    image = Image.fromarray(frame_HWC)
    if longest:
        image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _open_client(config: EndpointConfig, key: str) -> Any:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise InputError(
            "an endpoint is asked through the openai package, which is not installed; "
            "pip install 'tpo_jax[endpoint]'"
        ) from error
    # Without a key the server may still answer: one of your own needs none. Tries are counted here.
    return OpenAI(
        api_key=key or "none",
        base_url=config.base_url or "https://api.openai.com/v1",
        timeout=config.timeout,
        max_retries=0,
    )
