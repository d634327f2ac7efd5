"""Who captions, asks and judges in curation, as the config says."""

from pathlib import Path

from data_pipelines.artefacts import fingerprint
from data_pipelines.curation.candidates import AnyQuestions, TextQuestions
from data_pipelines.curation.config import ROLES
from data_pipelines.curation.given import read_given
from data_pipelines.curation.judge import Judge, NoJudge, RuleJudge
from data_pipelines.curation.pipeline import TextJudge
from data_pipelines.curation.questions import RuleQuestions, TimeQuestions
from data_pipelines.errors import InputError
from data_pipelines.frames import FrameStore
from data_pipelines.text_models.endpoint import Endpoint
from data_pipelines.text_models.text_model import PolicyText, TextModel
from tpo_jax.cli.settings import RunConfig


class Players:
    """Those of one run."""

    def __init__(self, settings: RunConfig, store: FrameStore, policy: PolicyText, host: int = 0):
        """Args: the config, the frames that are asked about, the model as writer of texts, and
        which of several hosts asks: each keeps what endpoints said to it.
        """
        self._config = settings.curate
        self._store = store
        self._policy = policy
        self._work = settings.folder("curation")
        self._host = f".host_{host}" if host else ""
        self._endpoints: dict[str, Endpoint] = {}

    def text_model(self, role: str) -> TextModel:
        """Who plays a role: the policy or an endpoint; one object an endpoint, for its cache."""
        assert role in ROLES
        config = self._config.endpoint_of(role)
        if config is None:
            return self._policy
        # Another price or number of retries asks nothing again.
        asked = fingerprint(config.made_with())
        if asked not in self._endpoints:
            cache = self._work / f"endpoint-{asked}{self._host}.jsonl"
            self._endpoints[asked] = Endpoint(config, cache, self._store)
        return self._endpoints[asked]

    def maker(self) -> AnyQuestions:
        """Who asks. InputError for a file that is none."""
        asker = self._config.questions
        if asker == "rules":
            return RuleQuestions()
        if asker == "time":
            return TimeQuestions()
        if asker == "file":
            if not self._config.questions_file:
                raise InputError(
                    "curate.questions is 'file' but curate.questions_file is empty; name the file "
                    "of questions, or set curate.questions to 'policy' or an endpoint"
                )
            return read_given(Path(self._config.questions_file), self._store)
        return TextQuestions(model=self.text_model("questions"))

    def judge(self) -> Judge | TextJudge:
        """Who judges."""
        if self._config.judge == "rules":
            return RuleJudge()
        if self._config.judge == "none":
            return NoJudge()
        return TextJudge(model=self.text_model("judge"))

    def told(self) -> list[str]:
        """A line on what each endpoint was asked in this run, and what that cost."""
        lines = []
        for endpoint in self._endpoints.values():
            usage = endpoint.usage
            lines.append(
                f"{endpoint.name}: {usage.requests} requests ({usage.failures} failed), "
                f"{usage.from_cache} answers from the cache, {usage.tokens_in} tokens in, "
                f"{usage.tokens_out} out, cost {endpoint.cost:.4f}"
            )
        return lines
