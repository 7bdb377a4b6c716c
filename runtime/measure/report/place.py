"""Where a measurement would run now, as JSON: python -m runtime.measure.report.place

A process of its own: it opens the device, and gives it back by ending.
"""

import json
from dataclasses import asdict

from env.loading import exports, load_settings
from runtime.device import Device, open_device
from runtime.errors import KitError
from runtime.measure.where import here


def main() -> None:
    """Print a `Where`, as the last line, and why no device could be opened if none could."""
    settings = load_settings()
    fault = ""
    try:
        device = open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    except KitError as error:
        device, fault = Device("cpu", str(error)), str(error)
    print(json.dumps({"where": asdict(here(settings, device)), "fault": fault}))


if __name__ == "__main__":
    main()
