"""`invoke fetch-weights`: from a hub into place, all at once or not at all.

Files are fetched into .fetching/<model>/parts beside the model's directory, move on to .fetching/<model>/ready when
their sums are right, and become the model's directory by one rename when all are there and fit together. A fetch that
is killed leaves those two folders, and the next goes on with them.
"""

import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from threading import Event

from rich.filesize import decimal

from env.errors import KitError
from env.settings import Settings
from runtime.model.checkpoint import check_whole
from runtime.progress import BYTES, progress_bar
from runtime.weights import hubs, lockfile, verify
from runtime.weights.catalog import Catalog, ModelLocation, place, shown
from runtime.weights.catalog import load as load_facts
from runtime.weights.hubs import Hub, RemoteFile, RepositoryListing
from runtime.weights.hubs.http import check_name, other_contents
from runtime.weights.lockfile import Digest, LockedFile, LockedModel, Manifest, digest
from runtime.weights.staging import Workshop, workshop
from runtime.weights.transfer import Download, Patience, TransferStoppedError, patiently, side_by_side
from runtime.weights.verify import FACTS, LOCK, FileDifference, absent, choose, differences

MARGIN = 256 << 20  # bytes that stay free
CHECKING = "Checking what is there"


def fetch(settings: Settings, *, facts: Catalog | None = None, patience: Patience | None = None) -> ModelLocation:
    """Fetch the weights of the settings, unless they are there; prints what it does. Returns where they are.

    Raises KitError for everything that stands in the way, with nothing in place that was not there before.
    """
    facts = facts or load_facts()
    spot = place(settings, facts)
    entry = lockfile.read(spot.lock).get(spot.repo)
    sound: Manifest | None = None
    asked = settings.hub_revision
    if entry is not None and asked in (None, entry.revision, entry.commit) and spot.directory.is_dir():
        sound = _sound(spot, entry)
        if len(sound) == len(entry.files):
            size = f"{len(entry.files)} files, {decimal(entry.size)}"
            print(f"{shown(spot.directory)} is complete: {size}, all as {shown(spot.lock)} says")
            return spot
    with workshop(spot) as bench:
        _Run(settings, facts, spot, entry, bench, patience or Patience(), sound=sound).fetch()
    return spot


def _sound(spot: ModelLocation, entry: LockedModel) -> Manifest:
    """The files in place that are what the lock says, by their sums; prints what is wrong with the others."""
    with progress_bar(CHECKING, entry.size, unit=BYTES) as bar:
        rows = list(verify.compare(spot.directory, entry.files, full=True, on_bytes=bar.advance))
    for row in rows:
        if row.fault:
            _aside(f"{shown(spot.directory / row.name)}: {row.fault}; fetched again")
    return {row.name: row.expected for row in rows if not row.fault}


class _Run:
    """From the list of files to the directory in place. `sound` are the files in place that are what the lock says;
    None: they were not compared."""

    def __init__(
        self,
        settings: Settings,
        facts: Catalog,
        spot: ModelLocation,
        entry: LockedModel | None,
        bench: Workshop,
        patience: Patience,
        *,
        sound: Manifest | None,
    ) -> None:
        self.spot, self.entry, self.bench, self.patience, self.sound = spot, entry, bench, patience, sound
        self.workers, self.stop = settings.hub_workers, Event()
        self.locked: Manifest = entry.files if entry else {}
        # A folder on a web server has no list of its own.
        listed_by = "" if settings.hub != "http" else LOCK if self.locked else FACTS
        self.source = replace(hubs.source(settings, facts, spot.repo, entry), listed_by=listed_by)
        # Whoever has accepted other weights, or asks for a revision of their own, means something else than what the
        # kit knows.
        model = facts.models.get(spot.repo) if settings.hub_revision is None else None
        self.known: Manifest = model.files if model and not self.locked else {}

    def fetch(self) -> None:
        """All steps; each raises KitError where it cannot go on."""
        check_name(str(self.source), self.source.endpoint)
        hub = hubs.connect(self.source, manifest=self.locked or self.known, scratch=self.bench.scratch)
        listing = patiently(hub.files, subject=str(self.source), patience=self.patience, stop=self.stop, say=_aside)
        chosen = choose(listing.files, source=self.source, locked=self.locked)
        self._refuse([*self._differences(chosen.wanted), *absent(chosen.wanted, self.locked)])
        self.bench.keep_only(chosen.wanted)
        print(f"From {self.source}, revision {listing.commit or self.source.revision or 'default'}:")
        if chosen.skipped:
            print(f"  not needed: {', '.join(chosen.skipped)}")
        records = self._reused(chosen.wanted)
        missing = [file for file in chosen.wanted if file.name not in records]
        self._check_space(missing)
        records.update(self._fetched(hub, missing, already=sum(record.size for record in records.values())))
        check_whole(self.bench.ready)
        if self.entry is None:
            self._record(listing, records)
        self.bench.put_in_place(self.spot.directory)
        print(f"{shown(self.spot.directory)}: {len(records)} files, {decimal(sum(r.size for r in records.values()))}")

    def _reused(self, wanted: Iterable[RemoteFile]) -> dict[str, LockedFile]:
        """What is in place, or ready since a fetch before, and is what the hub has. What was compared with the lock is
        not read again."""
        records: dict[str, LockedFile] = dict(self.sound or {})
        for name in records:
            self.bench.take(self.spot.directory / name, name)
        folders = [self.bench.ready] if self.sound is not None else [self.bench.ready, self.spot.directory]
        paths = [(file, folder / file.name) for file in wanted if file.name not in records for folder in folders]
        held = [(file, path) for file, path in paths if path.is_file() and path.stat().st_size == file.size]
        if not held:
            return records
        with progress_bar(CHECKING, sum(file.size for file, _ in held), unit=BYTES) as bar:
            for file, path in held:
                if file.name in records:
                    bar.advance(file.size)
                    continue
                found = _digest(path, file.size, bar.advance)
                here, there = _sums(file, found)
                if (file.sha256 or file.blob) and here == there:
                    self.bench.take(path, file.name)
                    records[file.name] = found.record
        self._refuse(self._differences(RemoteFile(name, r.size, r.sha256) for name, r in records.items()))
        return records

    def _check_space(self, missing: Iterable[RemoteFile]) -> None:
        needed = sum(file.size - self.bench.held(file) for file in missing)
        free = shutil.disk_usage(self.bench.root).free
        if needed and needed + MARGIN > free:
            reason = f"needs {decimal(needed)} and {decimal(MARGIN)} to spare, but {decimal(free)} are free"
            raise KitError(shown(self.bench.root), reason, "make room, or set ASR_MODEL to a directory on another disk")

    def _fetched(self, hub: Hub, missing: list[RemoteFile], *, already: int) -> dict[str, LockedFile]:
        """Fetch the missing files, those first whose sums the hub does not tell: where they differ from what is
        expected, it shows before the large ones."""
        records: dict[str, LockedFile] = {}
        total = already + sum(file.size for file in missing)
        done = already + sum(self.bench.held(file) for file in missing)
        with progress_bar("Fetching", total, unit=BYTES, done=done) as bar:

            def one(file: RemoteFile) -> tuple[str, LockedFile]:
                return file.name, self._fetch_one(hub, file, bar.advance)

            for told in (False, True):
                group = sorted((file for file in missing if bool(file.sha256) is told), key=lambda file: file.size)
                records.update(side_by_side(one, group, workers=self.workers, stop=self.stop))
                self._refuse(self._differences(RemoteFile(name, r.size, r.sha256) for name, r in records.items()))
        return records

    def _fetch_one(self, hub: Hub, file: RemoteFile, advance: Callable[[int], None]) -> LockedFile:
        def on_bytes(count: int) -> None:
            if self.stop.is_set():
                raise TransferStoppedError
            advance(count)

        download = Download(hub, file, self.bench.part(file), on_bytes)
        went_on = download.held > 0
        wrong: list[str] = []  # sums of what was fetched from its beginning
        while True:
            found = patiently(
                download.attempt,
                subject=file.name,
                patience=self.patience,
                stop=self.stop,
                say=_aside,
                progress=lambda: download.held,
            )
            here, there = _sums(file, found)
            if here == there:
                break
            download.cut(0)
            if not went_on:
                wrong.append(here)
            if len(wrong) > 1:
                raise self._other_contents(file, wrong, there)
            went_on = False
            _aside(f"{file.name}: arrived with {here}, expected {there}; fetched once more from the beginning")
        self.bench.finish(file)
        return found.record

    def _other_contents(self, file: RemoteFile, arrived: list[str], listed: str) -> KitError:
        first, second = arrived
        if first == second:
            return other_contents(self.source, file.name, f"arrived twice with {first}", listed)
        reason = f"arrived with {first}, then with {second}, expected {listed}: something on the way changes it"
        advice = "check the network and the proxy on the way, then invoke fetch-weights; or another hub: ASR_HUB"
        return KitError(f"{file.name} of {self.source}", reason, advice)

    def _differences(self, files: Iterable[RemoteFile]) -> list[FileDifference]:
        return differences(files, {LOCK: self.locked, FACTS: self.known})

    def _refuse(self, found: list[FileDifference]) -> None:
        """Raises KitError where the hub's files are not what the lock says or the kit knows."""
        if not found:
            return
        lines = "".join(f"\n  {difference}" for difference in found)
        if self.entry is None:
            revision = self.source.revision or "master"
            advice = f"if that is meant: set ASR_HUB_REVISION={revision}, then invoke fetch-weights"
            raise KitError(str(self.source), f"has other weights than the kit knows:{lines}\n", advice)
        tables = f"the tables of {self.spot.repo} in {shown(self.spot.lock)}"
        had = " ".join(filter(None, (self.entry.hub, self.entry.endpoint, self.entry.commit or self.entry.revision)))
        advice = (
            f"for those of {LOCK} ({had}): ASR_HUB, ASR_HUB_ENDPOINT and ASR_HUB_REVISION must lead to them; if the "
            f"others are meant: delete {tables}, then invoke fetch-weights"
        )
        raise KitError(str(self.source), f"contradicts {LOCK}:{lines}\n", advice)

    def _record(self, listing: RepositoryListing, records: dict[str, LockedFile]) -> None:
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        source = self.source
        entry = LockedModel(source.hub, source.endpoint, source.revision, listing.commit, date, records)
        lockfile.write(self.spot.lock, {**lockfile.read(self.spot.lock), self.spot.repo: entry})
        print(f"Recorded in {shown(self.spot.lock)}")


def _digest(path: Path, size: int, advance: Callable[[int], None]) -> Digest:
    try:
        return digest(path, size=size, on_bytes=advance)
    except OSError:
        return Digest(size)  # what cannot be read is fetched


def _sums(file: RemoteFile, found: Digest) -> tuple[str, str]:
    """The sum of contents, and the one that is listed, of the kind that is; the same where none is."""
    if file.sha256:
        return f"sha256 {found.record.sha256}", f"sha256 {file.sha256}"
    return f"git's sum {found.blob}", f"git's sum {file.blob or found.blob}"


def _aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
