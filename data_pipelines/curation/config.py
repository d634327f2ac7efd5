"""How pairs are made: the curate section of a config."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from data_pipelines.curation.responses import NegativeConfig
from data_pipelines.curation.text_rules import TextRules
from data_pipelines.curation.written import check_kinds
from data_pipelines.errors import InputError
from data_pipelines.text_models.endpoint import EndpointConfig

ENDPOINT = "endpoint"
# MODEL@HOST with a port or a path. (A model's name may hold an @ too: "@cf/meta/llama-3".)
NO_SCHEME = re.compile(r"^endpoint:[^@]+@(?!https?://)[^@]*[:/]")
ROLES: dict[str, tuple[str, ...]] = {
    "captioner": ("policy",),
    "questions": ("rules", "time", "file", "policy"),
    "judge": ("rules", "none", "policy"),
}


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """How pairs are made (docs/curation.md says why).

    Attributes:
      captioner: who captions: "policy", the model itself, or an endpoint: "endpoint" as the section
        below has it, "endpoint:MODEL" or "endpoint:MODEL@URL".
      questions: who asks. "rules" reads the captions of synthetic videos; "time" asks of any video
        what is shown when; "policy" or an endpoint writes questions of `kinds` from captions;
        "file" takes those of `questions_file`.
      questions_file: questions with answers, in the form of LLaVA-Video-178K or a plain one.
      given_chosen: with "file", the chosen answer is the "model"'s or the one of the "file".
      judge: who judges: "rules" (only what "rules" asked), "none", "policy" or an endpoint.
      kinds: shares of the kinds of written questions by name; none for the paper's.
      segments: "uniform" ones, or "shots" that begin where the picture changes.
      segment_seconds: of a segment, more or less.
      shot_change: how great a change of the picture begins a shot, 0 to 1.
      segment_frames: shown of a segment.
      dense_frames: shown of a whole video.
      sparse_frames: left of these for the rejected side of an `incomplete` pair.
      negatives: what rejected answers are made from.
      comprehensive_per_video: questions about the whole of a video; with "file", all questions.
      pairs: wanted at most.
      localized_share: of them localized.
      post_filter: False, and neither the judge's verdict nor an ambiguous question drops anything;
        what the texts alone rule out is dropped all the same.
      texts: which answers are ruled out by their texts.
      endpoint: how an endpoint is asked.
      round: which round of self-training this is; recorded in the pair.
      seed: of what is drawn here.
    """

    captioner: str = "policy"
    questions: str = "rules"
    questions_file: str = ""
    given_chosen: Literal["model", "file"] = "model"
    judge: str = "rules"
    kinds: Mapping[str, float] = field(default_factory=dict)
    segments: Literal["uniform", "shots"] = "uniform"
    segment_seconds: float = 8.0
    shot_change: float = 0.15
    segment_frames: int = 8
    dense_frames: int = 32
    sparse_frames: int = 4
    negatives: NegativeConfig = NegativeConfig()
    comprehensive_per_video: int = 4
    pairs: int = 10_000
    localized_share: float = 0.5
    post_filter: bool = True
    texts: TextRules = TextRules()
    endpoint: EndpointConfig = EndpointConfig()
    round: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("segment_frames", "dense_frames", "sparse_frames", "pairs")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"curate.{name} is {getattr(self, name)}; must be 1 or more")
        if not 0 < self.segment_seconds < math.inf:
            raise InputError(f"curate.segment_seconds is {self.segment_seconds}; must be positive")
        for name in ("localized_share", "shot_change"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"curate.{name} is {getattr(self, name)}; must be 0 to 1")
        if self.round < 0 or self.comprehensive_per_video < 0:
            raise InputError("curate.round and curate.comprehensive_per_video must be 0 or more")
        if self.sparse_frames >= self.dense_frames:
            raise InputError(
                f"curate.sparse_frames is {self.sparse_frames}; must be fewer than "
                f"curate.dense_frames, {self.dense_frames}, or both answers are the same"
            )
        check_kinds(self.kinds)
        for role, known in ROLES.items():
            name = getattr(self, role)
            if name not in known and name != ENDPOINT and not name.startswith(f"{ENDPOINT}:"):
                raise InputError(
                    f"curate.{role} is {name!r}; must be one of {', '.join(known)}, "
                    "endpoint, endpoint:MODEL or endpoint:MODEL@URL"
                )
            # Without it the address would be taken for a model's name, and OpenAI's own be asked.
            if NO_SCHEME.search(name):
                raise InputError(f"curate.{role} is {name!r}; its URL must begin with http")
        if self.judge == "rules" and self.questions != "rules":
            raise InputError(
                "curate.judge is 'rules', which knows the answers to questions of 'rules' alone; "
                "set it to 'none', 'policy' or an endpoint"
            )

    def endpoint_of(self, role: str) -> EndpointConfig | None:
        """The endpoint that plays a role; None where it is no endpoint's."""
        kind, _, rest = str(getattr(self, role)).partition(":")
        if kind != ENDPOINT:
            return None
        model, _, url = rest.partition("@http")
        config = self.endpoint
        if url:
            config = replace(config, base_url=f"http{url}")
        return replace(config, model=model) if model else config

    @property
    def videos_kept(self) -> int:
        """Of how many videos the policy is asked in turn before it is asked about one again.

        Where it captions and another role is an endpoint's, whose stages take several videos at
        once.
        """
        several = any(self.endpoint_of(role) for role in ROLES)
        return self.endpoint.videos_at_once if several and self.captioner == "policy" else 1

    def made_from(self) -> dict[str, Any]:
        """All of this that pairs depend on: of endpoints, not how they are reached or paid."""
        told = asdict(self)
        asked = any(self.endpoint_of(role) for role in ROLES)
        told["endpoint"] = self.endpoint.made_with() if asked else {}
        return told
