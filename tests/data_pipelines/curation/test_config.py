"""Who plays which role, and what of the config pairs depend on."""

from dataclasses import replace

import pytest

from data_pipelines.curation.config import CurateConfig
from data_pipelines.errors import InputError
from data_pipelines.text_models.endpoint import EndpointConfig

SECTION = EndpointConfig(base_url="http://a/v1", model="small")
CONFIG = CurateConfig(questions="endpoint", judge="endpoint", endpoint=SECTION)


@pytest.mark.parametrize(
    ("judge", "model", "base_url"),
    [
        ("endpoint", "small", "http://a/v1"),
        ("endpoint:large", "large", "http://a/v1"),
        ("endpoint:org/large@https://b:8000/v1", "org/large", "https://b:8000/v1"),
        ("endpoint:large@20240229", "large@20240229", "http://a/v1"),
        ("endpoint:@cf/meta/llama-3", "@cf/meta/llama-3", "http://a/v1"),
        ("endpoint:large@20240229@http://b/v1", "large@20240229", "http://b/v1"),
    ],
)
def test_an_endpoint_is_the_sections_but_for_what_the_role_names(
    judge: str, model: str, base_url: str
) -> None:
    found = replace(CONFIG, judge=judge).endpoint_of("judge")
    assert found == replace(SECTION, model=model, base_url=base_url)
    assert CONFIG.endpoint_of("captioner") is None


@pytest.mark.parametrize("judge", ["endpoint:large@b:8000/v1", "endpoint:large@localhost/v1"])
def test_an_address_without_http_is_no_models_name(judge: str) -> None:
    with pytest.raises(InputError, match=r"curate\.judge is .*must begin with http"):
        replace(CONFIG, judge=judge)


def test_pairs_depend_on_who_is_asked_and_not_on_how() -> None:
    told = CONFIG.made_from()
    how = replace(SECTION, retries=1, price_in=3.0, parallel=1, key_variable="K", timeout=9.0)
    assert replace(CONFIG, endpoint=how).made_from() == told
    others = (
        replace(SECTION, model="large"),
        replace(SECTION, temperature=1.0),
        replace(SECTION, image_size=8),
    )
    for other in others:
        assert replace(CONFIG, endpoint=other).made_from() != told
    nobody = CurateConfig(endpoint=SECTION)
    assert nobody.made_from() == replace(nobody, endpoint=EndpointConfig()).made_from()


@pytest.mark.parametrize(
    ("captioner", "judge", "kept"),
    [("policy", "policy", 1), ("policy", "endpoint", 8), ("endpoint", "endpoint", 1)],
)
def test_videos_that_are_asked_about_in_turn(captioner: str, judge: str, kept: int) -> None:
    config = CurateConfig(captioner=captioner, questions="policy", judge=judge)
    assert config.videos_kept == kept
