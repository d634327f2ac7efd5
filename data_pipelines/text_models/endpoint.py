"""A model behind an OpenAI-compatible endpoint: vLLM, SGLang, OpenAI and others.

Answers are kept on disk by what was asked, so nothing is paid for twice. The key comes from an
environment variable; it is never printed and never written.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from data_pipelines.artefacts import write_json
from data_pipelines.errors import InputError

NO_KEY = "none"  # the client wants some key, local servers want none


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """Who is asked, and how.

    Attributes:
      base_url: up to and with "/v1"; empty for OpenAI's own.
      model: its name there.
      key_variable: the environment variable that holds the key.
      parallel: requests at once.
      timeout: seconds that a request may take.
      retries: after a busy or failing server, with growing pauses.
      max_tokens: of an answer.
      price_in: of a million tokens sent, in whatever money; for the sum that is told.
      price_out: of a million tokens received.
    """

    base_url: str = ""
    model: str = ""
    key_variable: str = "OPENAI_API_KEY"
    parallel: int = 8
    timeout: float = 60.0
    retries: int = 6
    max_tokens: int = 512
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("retries", 0), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"curate.endpoint.{name} is {getattr(self, name)}; give {least} or more"
                )


class Endpoint:
    """A `TextModel` over HTTP; greedy, so that an answer can be kept."""

    def __init__(self, config: EndpointConfig, cache: Path):
        """Raises InputError when the client is not installed or the config names no model."""
        if not config.model:
            raise InputError("curate.endpoint.model is empty; name the model to ask")
        if "@" in config.base_url:
            raise InputError(
                "curate.endpoint.base_url holds a password or key; give it by the environment, in "
                f"${config.key_variable}"
            )
        try:
            import openai
        except ImportError as error:
            raise InputError(
                "the openai client is not installed: pip install 'tpo_jax[endpoint]'"
            ) from error
        self._errors = openai.OpenAIError
        self._client = openai.OpenAI(
            api_key=os.environ.get(config.key_variable) or NO_KEY,
            base_url=config.base_url or None,
            timeout=config.timeout,
            max_retries=config.retries,
        )
        self._config = config
        self._cache = cache
        self._lock = Lock()
        self.name = f"{config.model}@{config.base_url or 'api.openai.com'}"
        self.sent = self.received = 0  # tokens, as the server counts them; cached answers cost none

    @property
    def cost(self) -> float:
        """Of what this object has asked, by the config's prices."""
        return (self.sent * self._config.price_in + self.received * self._config.price_out) / 1e6

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """An answer to each prompt, in order, several asked at once.

        Raises:
          InputError: the endpoint refuses or cannot be reached, retries done. Answers that came are
            kept for the next try.
        """
        with ThreadPoolExecutor(self._config.parallel) as pool:
            asked = list(dict.fromkeys(prompts))
            try:
                said = dict(zip(asked, pool.map(self._complete, asked), strict=True))
            except InputError:
                pool.shutdown(cancel_futures=True)  # what has not begun is not asked
                raise
        return [said[prompt] for prompt in prompts]

    def _complete(self, prompt: str) -> str:
        asked: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0.0,
            "max_tokens": self._config.max_tokens,
        }
        key = hashlib.sha256(json.dumps([self.name, asked]).encode()).hexdigest()
        kept = self._cache / key[:2] / f"{key}.json"
        if kept.exists():
            return str(json.loads(kept.read_text("utf-8"))["said"])
        try:
            told = self._client.chat.completions.create(**asked)
            said = told.choices[0].message.content or ""
        except (self._errors, ValueError, IndexError, TypeError, AttributeError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.name}: {type(error).__name__}: {why}; see curate.endpoint and "
                f"${self._config.key_variable}, then run again: what was answered is kept"
            ) from error
        with self._lock:
            if told.usage is not None:
                self.sent += told.usage.prompt_tokens
                self.received += told.usage.completion_tokens
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"model": self.name, "asked": prompt, "said": said})
        return said
