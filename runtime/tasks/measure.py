"""How well it does: bench, load, soak."""

import os
from contextlib import ExitStack
from pathlib import Path

from invoke import Context, Exit, task

from env.errors import UsageError
from env.sources import load_settings, under_project
from runtime.tasks.errors import handle_errors

LONE_CLIP_REPEATS = 100  # that a lone clip is transcribed each way


@task(
    help={
        "parts": "what to measure, with commas between: loading, latency, throughput, memory, long, closed, open, "
        "engines, vllm; default: all",
        "runs": "how often each is measured; default: 20",
        "warmups": "runs before, which do not count; default: 3",
        "clip": "audio to hear; default: the official clip of 4.2 s, or a bundled one of about its length",
        "batches": "utterances decoded together; default: 1,2,4,8,16,32,64, until memory ends",
        "lengths": "seconds of audio whose peak memory is measured; default: 5,10,30,60,120",
        "minutes": "minutes of long audio; default: 1,10,60",
        "clients": "clients that ask a server at once and wait; default: 1,2,4,8,16,32,64,128",
        "rates": "requests per second that a server is sent, waiting for none; default: around what it can answer",
        "requests": "requests of each number of clients and each rate; default: 64",
        "url": "a running server to ask, with the key in OPENAI_API_KEY if it wants one: parts closed and open only",
        "baseline": "bench.json of an earlier run, or seed, the first validation's figures: printed beside, as ratios",
        "fail-if-slower": "exit code 1 where a figure is worse than the baseline's by more, and beyond noise: 10%",
        "output": "directory for bench.json, bench.md and the plots; default: bench in ASR_OUT_DIR",
        "quick": "few runs, and without the parts engines and vllm, for a look; the other flags still count",
    }
)
@handle_errors
def bench(
    _: Context,
    parts: str = "",
    runs: str = "",
    warmups: str = "",
    clip: str = "",
    batches: str = "",
    lengths: str = "",
    minutes: str = "",
    clients: str = "",
    rates: str = "",
    requests: str = "",
    url: str = "",
    baseline: str = "",
    fail_if_slower: str = "",
    output: str = "",
    quick: bool = False,
) -> None:
    """Measure latency, throughput, memory and a server under load: tables, JSON, plots, against a baseline."""
    from runtime.measure.bench import run
    from runtime.measure.bench.run import carry_out

    typed = {"parts": parts, "runs": runs, "warmups": warmups, "clip": clip, "batches": batches, "lengths": lengths}
    typed |= {"minutes": minutes, "clients": clients, "rates": rates, "requests": requests, "url": url}
    settings = load_settings()
    directory = Path(output) if output else under_project(settings.out_dir) / "bench"
    plan = run.plan(typed, settings, quick=quick)
    order = run.order(plan, directory, baseline=baseline, fail_if_slower=fail_if_slower)
    failure = carry_out(order, settings)
    if failure:
        raise Exit(f"bench: {failure.reason}", code=failure.code)


@task(
    help={
        "clients": "how many ask at once",
        "clips": "how many clips of 1 to 20 s, two or more",
        "rounds": "how often all clips are transcribed one at a time, then by the clients",
    }
)
@handle_errors
def load(_: Context, clients: int = 16, clips: int = 64, rounds: int = 3) -> None:
    """Compare many clients over HTTP with one clip at a time without: audio per second, waiting times."""
    from runtime.measure import load_generator as measure
    from runtime.measure import synthetic_audio
    from runtime.measure.load_generator import serving
    from runtime.progress import progress_bar
    from runtime.tables import console, table
    from runtime.transcriber import transcriber_with_progress

    least = (("--clients", clients, 1), ("--clips", clips, 2), ("--rounds", rounds, 1))
    for flag, value, lowest in least:
        if value < lowest:
            raise UsageError(flag, f"{value}, expected {lowest} or more")
    settings = load_settings()
    out = console()
    shown = table("Round", "Clients", "Audio s/s", "p50 ms", "p95 ms", "Ratio")
    with transcriber_with_progress(settings) as transcriber:
        out.print(f"On {transcriber.device.name} ({transcriber.device.description()}). {transcriber.device.reason}")
        together = transcriber.engine.status().most_together
        out.print(f"{settings.model}, {settings.dtype}, {settings.engine_name}, at most {together} utterances together")
        sounds = synthetic_audio.recordings(synthetic_audio.lengths(clips))
        (lone,) = synthetic_audio.recordings([measure.LONE])
        with serving(transcriber) as server, progress_bar("Measuring", rounds + 1, unit="rounds") as bar:
            added = measure.overhead(transcriber, server, lone, times=LONE_CLIP_REPEATS)
            bar.advance(1)
            for number, found in enumerate(measure.run(transcriber, server, sounds, clients=clients, rounds=rounds), 1):
                for who, done, ratio in (
                    ("1, without HTTP", found.alone, ""),
                    (f"{clients}, over HTTP", found.together, f"{found.ratio:.2f}"),
                ):
                    p50, p95 = (f"{1000 * done.percentile(percent):.0f}" for percent in (50, 95))
                    shown.add_row(str(number), who, f"{done.throughput:.1f}", p50, p95, ratio)
                bar.advance(1)
    out.print(shown)
    out.print(
        f"To a lone clip of {lone.seconds:g} s HTTP and its queue add {1000 * added.added:.1f} ms: "
        f"p50 {1000 * added.http:.1f} ms, without {1000 * added.direct:.1f} ms "
        f"({LONE_CLIP_REPEATS} times each, by turns)"
    )


@task(
    help={
        "minutes": "how long",
        "clients": "how many ask at once",
        "url": "the server to ask, with the key in OPENAI_API_KEY if it wants one; not given: one in this process",
    }
)
@handle_errors
def soak(_: Context, minutes: float = 10.0, clients: int = 8, url: str = "") -> None:
    """Ask a server for so long for all kinds of things: wrong answers, drift of latency, growth of memory."""
    from runtime.measure import soak as measure
    from runtime.measure import soak as mixture
    from runtime.measure.load_generator import ADDRESS, serving
    from runtime.measure.smoke.record import soaked
    from runtime.progress import progress_bar, status_line
    from runtime.tables import console
    from runtime.transcriber import open_transcriber

    for flag, wrong in (("--minutes", minutes <= 0), ("--clients", clients < 1)):
        if wrong:
            raise UsageError(flag, "expected more than 0")
    with ExitStack() as stack:
        if not url:
            settings = load_settings()
            with status_line(f"Loading {settings.model}"):
                transcriber = stack.enter_context(open_transcriber(settings))
            url = f"http://{ADDRESS}:{stack.enter_context(serving(transcriber)).port}"
        with progress_bar("Soaking", 60 * minutes, unit="s") as bar:
            report = measure.soak(
                url,
                mixture.recordings(),
                seconds=60 * minutes,
                clients=clients,
                key=os.environ.get("OPENAI_API_KEY"),
                on_time=bar.advance,
            )
    out = console()
    for part in soaked(report):
        out.print(part)
    if report.faults:
        raise Exit("; ".join(report.faults), code=1)
