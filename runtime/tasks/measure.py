"""How well it does: load."""

from invoke import Context, task

from env.loading import load_settings
from runtime.errors import UsageError
from runtime.tasks.foreseeing import foreseeing


@task(
    help={
        "clients": "how many ask at once",
        "clips": "how many clips of 1 to 20 s, two or more",
        "rounds": "how often all clips are transcribed one at a time, then by the clients",
    }
)
@foreseeing
def load(_: Context, clients: int = 16, clips: int = 64, rounds: int = 3) -> None:
    """Compare many clients at once with one clip at a time, in this process: audio per second and waiting times."""
    from runtime.measure import load as measure
    from runtime.ops.present import console, table
    from runtime.progress import progress, waiting
    from runtime.transcriber import open_transcriber

    for flag, value, least in (("--clients", clients, 1), ("--clips", clips, 2), ("--rounds", rounds, 1)):
        if value < least:
            raise UsageError(flag, f"{value}, expected {least} or more")
    settings = load_settings()
    out = console()
    shown = table("Round", "Clients", "Audio s/s", "p50 ms", "p95 ms", "Ratio")
    with waiting(f"Loading {settings.model}") as loaded, open_transcriber(settings) as transcriber:
        loaded()
        out.print(f"On {transcriber.device.name} ({transcriber.device.description()}). {transcriber.device.reason}")
        out.print(f"{settings.model}, {settings.dtype}, at most {settings.max_batch} utterances together")
        sounds = measure.clips(transcriber, clips)
        with progress("Measuring", rounds, unit="rounds") as bar:
            for number, found in enumerate(measure.run(transcriber, sounds, clients=clients, rounds=rounds), 1):
                for done, ratio in ((found.alone, ""), (found.together, f"{found.ratio:.2f}")):
                    shown.add_row(
                        str(number),
                        str(done.clients),
                        f"{done.throughput:.1f}",
                        f"{1000 * done.percentile(50):.0f}",
                        f"{1000 * done.percentile(95):.0f}",
                        ratio,
                    )
                bar.advance(1)
    out.print(shown)
