"""The demo model's held-out set, which comes with the kit: runtime/demo/heldout, with its card."""

from dataclasses import replace

from env.settings import DEMO
from runtime.demo import HELD_OUT_SET
from runtime.measure.accuracy import DataSet
from runtime.measure.accuracy.reading import read


def data_set() -> DataSet:
    """Speech of espeak-ng that training never had; the speaker is a voice of it. The texts are plain: as the model
    writes them, and as its card was scored."""
    return replace(read(HELD_OUT_SET), name="demo model, held-out", layout=DEMO, plain=True)
