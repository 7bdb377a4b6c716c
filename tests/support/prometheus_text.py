"""What /metrics says."""

import httpx
from prometheus_client.parser import text_string_to_metric_families as plain
from serving import PATIENCE

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(url: str) -> Samples:
    """Every sample by its name and labels."""
    text = httpx.get(f"{url}/metrics", timeout=PATIENCE).raise_for_status().text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in plain(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """One sample, None if there is none."""
    return samples.get((name, frozenset(labels.items())))
