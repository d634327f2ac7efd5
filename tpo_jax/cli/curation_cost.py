"""What curation takes at most, from the lengths of the stored videos and the model's shapes."""

from dataclasses import dataclass

from data_pipelines.curation.config import CurateConfig
from data_pipelines.curation.segments import uniform_segments
from data_pipelines.frames import FrameStore
from data_pipelines.video_info import VideoInfo
from tpo_jax.generation.engine import ROWS
from tpo_jax.models.video_lmm import VideoLMMConfig
from tpo_jax.planning.estimate import ACHIEVABLE_FLOPS, ACHIEVABLE_HBM
from tpo_jax.planning.flops import Flops, RowDims, layer_products, row_flops
from tpo_jax.planning.hardware import Chip

TEXT_TOKENS = 64  # of a prompt beside its video
WRITING_TOKENS = 256  # of a prompt to a writer or judge beside its captions
FRAME_TOKENS = 800  # that an endpoint counts for one frame; servers differ
BF16 = 2
ROLE_OF = {"captions": "captioner", "questions": "questions", "verdicts": "judge"}


@dataclass(frozen=True, kw_only=True)
class CurationCost:
    """At most: filters end the way of some candidates earlier. Second tries are not counted.

    Attributes:
      videos: in the store.
      calls: by stage, of whoever does it.
      visual_tokens: encoded; each frame once a video.
      prefill_tokens: of all video prefixes, each once a frame set and stage.
      chip_hours: of one chip, for what the policy says itself; modelled.
      endpoint_calls: of `calls`, those that go to an endpoint.
      endpoint_cost: money by the prices of the config; None where no price is given.
    """

    videos: int
    calls: dict[str, int]
    visual_tokens: int
    prefill_tokens: int
    chip_hours: float
    endpoint_calls: int
    endpoint_cost: float | None


def curation_cost(
    config: CurateConfig,
    store: FrameStore,
    model: VideoLMMConfig,
    *,
    answer_tokens: int,
    chip: Chip,
) -> CurationCost:
    """Count what a run of `tpo curate` with this config over this store would ask for.

    Segments by shots are counted as uniform ones. Each answer counts as `answer_tokens` long.
    Prefill is bound by compute, at the share of the peak that `tpo plan` counts on; saying by
    reading the decoder's weights once for every token of up to ROWS answers at once.
    """
    infos = [store.info(video) for video in store.videos]
    by_file = config.questions == "file"
    segments = [
        0 if by_file else len(uniform_segments(info.duration, config.segment_seconds))
        for info in infos
    ]
    localized = sum(segments) if config.localized_share > 0 else 0
    # Questions of a file are all about the whole video, whatever the mix asks for.
    whole = config.comprehensive_per_video if config.localized_share < 1 or by_file else 0
    candidates = localized + whole * len(infos)
    text_judge = config.judge not in ("rules", "none")
    captioned = not by_file and (config.questions != "time" or text_judge)
    calls = {
        "captions": sum(segments) if captioned else 0,
        "questions": candidates if config.questions not in ("rules", "time", "file") else 0,
        "answers": 2 * candidates,
        "verdicts": candidates if text_judge else 0,
    }
    if by_file and config.given_chosen == "file":
        calls["answers"] = candidates
    endpoints = {stage for stage, role in ROLE_OF.items() if config.endpoint_of(role) is not None}
    by_policy = {stage: 0 if stage in endpoints else count for stage, count in calls.items()}

    per_frame = model.tokens_per_frame
    sets = _frame_sets(config, infos, by_policy["captions"], localized, whole)
    stored = sum(len(info.times_F) for info in infos)
    none: frozenset[str] = frozenset()
    encoding = row_flops(model, RowDims(prompt=1, answer=1, frames=stored), trained=none)
    seconds = sum(
        encoding.forward[part] / (ACHIEVABLE_FLOPS[part] * chip.flops)
        for part in ("tower", "projector")
    )
    written = by_policy["questions"] + by_policy["verdicts"]
    read = WRITING_TOKENS + max(segments, default=0) * answer_tokens
    prompts = [(frames * per_frame + TEXT_TOKENS, count) for frames, count, _ in sets]
    for tokens, count in [*prompts, (read, written)]:
        row = RowDims(prompt=tokens, answer=1, answers=1, frames=0)
        seconds += count * _compute(row_flops(model, row, trained=none), chip)
    language = model.language
    weights = BF16 * (
        language.layers * sum(layer_products(language).values()) / 2
        + language.width * language.vocab_rows
    )
    # Answers on one frame set share its slots, and so do texts about one video.
    rounds = sum(count * -(-asked // ROWS) for _, count, asked in sets) + -(-written // ROWS)
    seconds += rounds * answer_tokens * weights / (ACHIEVABLE_HBM * chip.hbm_bytes_per_s)
    by_endpoint = {stage: calls[stage] for stage in ROLE_OF if stage in endpoints}
    return CurationCost(
        videos=len(infos),
        calls=calls,
        visual_tokens=stored * per_frame,
        prefill_tokens=sum(frames * count for frames, count, _ in sets) * per_frame,
        chip_hours=seconds / 3600,
        endpoint_calls=sum(by_endpoint.values()),
        endpoint_cost=_endpoint_cost(config, by_endpoint, segments),
    )


def _frame_sets(
    config: CurateConfig, infos: list[VideoInfo], captions: int, localized: int, whole: int
) -> list[tuple[int, int, int]]:
    """What the policy is shown: (frames of a set, how many such sets, answers on each)."""
    shown, negatives = config.segment_frames, config.negatives
    # Captions are wanted before there are questions: what they showed is prefilled anew.
    sets = [(shown, captions, 1), (shown, 2 * localized, 1)]
    if not whole:
        return sets
    names = {name for name, share in negatives.comprehensive.items() if share > 0}
    # Frames that are drawn are others for every question.
    drawn = names != {"incomplete"} or negatives.sparse_pick == "random"
    for info in infos:
        dense = min(config.dense_frames, len(info.times_F))
        few = config.sparse_frames
        if negatives.sparse_ratio is not None:
            few = max(1, round(negatives.sparse_ratio * dense))
        rejected = min(few, dense) if names == {"incomplete"} else dense
        if not (config.questions == "file" and config.given_chosen == "file"):
            sets.append((dense, 1, whole))
        sets.append((rejected, whole, 1) if drawn else (rejected, 1, whole))
    return sets


def _compute(flops: Flops, chip: Chip) -> float:
    return sum(done / (ACHIEVABLE_FLOPS[part] * chip.flops) for part, done in flops.forward.items())


def _endpoint_cost(
    config: CurateConfig, calls: dict[str, int], segments: list[int]
) -> float | None:
    """Every reply as long as `endpoint.max_tokens`, every prompt with captions of that length."""
    prices = config.endpoint
    if not calls or not (prices.price_in or prices.price_out):
        return None
    most = prices.max_tokens
    captions = max(segments, default=0)
    read = {
        "captions": TEXT_TOKENS + config.segment_frames * FRAME_TOKENS,
        "questions": WRITING_TOKENS + captions * most,
        "verdicts": WRITING_TOKENS + (captions + 3) * most,
    }
    sent = sum(count * read[stage] for stage, count in calls.items())
    return (sent * prices.price_in + sum(calls.values()) * most * prices.price_out) / 1e6


def told_cost(cost: CurationCost, topology: str) -> list[str]:
    """The cost in lines."""
    stages = ", ".join(f"{count:,} {stage}" for stage, count in cost.calls.items() if count)
    lines = [
        f"{cost.videos:,} videos; calls at most: {stages}",
        f"{cost.visual_tokens:,} visual tokens encoded, {cost.prefill_tokens:,} prefilled",
        f"about {cost.chip_hours:.2g} chip-hours on {topology}, modelled, not measured, as if "
        "chips shared the work without waiting for each other",
    ]
    if cost.calls["questions"] or cost.calls["verdicts"]:
        lines.append(
            "a question or verdict that cannot be read is asked for once more, beside this"
        )
    if cost.endpoint_calls:
        money = "no prices in config.curate.endpoint"
        if cost.endpoint_cost is not None:
            money = f"{cost.endpoint_cost:.2f} at most by the prices of config.curate.endpoint"
        lines.append(f"{cost.endpoint_calls:,} of the calls go to an endpoint: {money}")
    return lines
