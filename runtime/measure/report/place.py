"""Where a measurement would run now, as JSON: python -m runtime.measure.report.place

A process of its own: it opens the device, and gives it back by ending. A vLLM is started to tell what it runs on.
"""

import json
from dataclasses import asdict

from env.errors import KitError
from env.settings import Settings
from env.sources import exports, load_settings
from runtime.measure.where import Where, here, of
from runtime.model.device import Device, open_device
from runtime.transcriber import open_transcriber


def main() -> None:
    """Print a `Where`, as the last line, and why no device could be opened if none could."""
    settings = load_settings()
    fault = ""
    try:
        found = _found(settings)
    except KitError as error:
        found, fault = here(settings, Device("cpu", str(error))), str(error)
    print(json.dumps({"where": asdict(found), "fault": fault}))


def _found(settings: Settings) -> Where:
    """Raises KitError where no device can be opened, or vLLM does not start."""
    if settings.engine_name == "vllm":
        with open_transcriber(settings) as transcriber:
            return of(transcriber)
    return here(settings, open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile))


if __name__ == "__main__":
    main()
