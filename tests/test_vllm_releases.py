"""Which vLLM fits: the same answer for the engine, the doctor and the documents."""

import pytest

from runtime.vllm_releases import Fit, fit


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.18.0", "tested"),
        ("0.18.0+empty", "tested"),
        ("0.18.1", "untested"),
        ("0.23.0", "untested"),
        ("0.17.1", "too old"),
        ("0.9.2+cu128", "too old"),
        ("0.1.dev1+g0123abc", "untested"),
        ("", "untested"),
        ("of my own", "untested"),
    ],
)
def test_a_release_is_tested_untested_or_too_old(version: str, expected: Fit) -> None:
    assert fit(version) == expected
