"""Rounds of faults on one store, then a run to the end and a comparison with a calm run."""

import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.soak import hashes
from tests.faults.soak.at_rest import Harm, Inflict, forgotten
from tests.faults.soak.disks import empty
from tests.faults.soak.judge import faults_of
from tests.faults.soak.running import LIMIT_SECONDS, Fault, Scene
from tests.faults.soak.runs import BETAS, Launcher, Run, named_folder
from tests.faults.soak.tally import Round, Tally

USERS = (65533, 65534)
DAY_SECONDS = 86400.0
MOST_REPAIRS = 20
FORGOTTEN = "artifacts deleted"


@dataclass
class Soak:
    """One store under faults."""

    launcher: Launcher
    calm: hashes.Store
    """What every artifact must be."""
    draw: random.Random
    tally: Tally
    forms: Sequence[str]
    """Ways to start runs."""
    whole: list[str]
    """Words of the run that makes all of `calm`."""
    at_rest: Mapping[str, Inflict]
    running: Mapping[str, Fault]
    disk: Path | None = None
    """A disk of the soak's own, which may be filled."""

    @property
    def root(self) -> Path:
        return self.launcher.root

    @property
    def _last(self) -> str:
        """The stage that the runs end with."""
        return next(word.removeprefix("until=") for word in self.whole if word.startswith("until="))

    def round(self) -> None:
        """Do harm to the store, start runs, strike one of them, wait, and judge."""
        began = time.monotonic()
        names, harms = self._harm()
        harm = next((harm for harm in harms if harm.refused), None)
        form = next(self._rarest_first(self.forms))
        untouched = not set(names) - {FORGOTTEN}  # a store that was harmed is also run without a second fault
        strikes = harm is None and (untouched or self.draw.random() < 0.5)
        name = next(self._rarest_first(self.running)) if strikes else None
        fault = self.running[name] if name else None
        runs = self._start(form, fault.words if fault else ())
        scene = Scene(self.root, self.disk, runs[0])
        struck = fault.strike(scene, self.draw) if fault else None
        found = self._wait(runs)
        hit = fault if struck else None
        for run in runs:
            found += faults_of(run, hit if run is runs[0] or (hit and hit.hits_all) else None, harm)
        found += self._left_behind()
        if self.disk is not None:
            empty(self.disk)
        self._repair(runs, harm)
        found += hashes.differences(hashes.hashes(self.root), self.calm)
        done = [harm.what for harm in harms] + ([struck] if struck else [])
        self.tally.add(
            Round(
                [*names, form, *([name] if name and struck else [])],
                done,
                [str(run.err) for run in runs],
                [run.process.returncode for run in runs],
                [line for run in runs for line in run.lines()],
                found,
                round(time.monotonic() - began, 1),
            )
        )

    def finish(self) -> None:
        """Run to the end, as a user would; whatever differs from the calm run then is a finding."""
        for _ in range(MOST_REPAIRS):
            run = self.launcher.start(self.whole)
            found = self._wait([run])
            if run.process.returncode == 0 or not self._repair([run], None):
                break
        found += faults_of(run, None, None)
        store = hashes.hashes(self.root)
        found += hashes.differences(store, self.calm)
        missing = sorted(self.calm.keys() - store.keys())  # solar makes again what is read again, and the last
        found += [f"{folder}: is missing at the end" for folder in missing if folder.startswith(f"{self._last}-")]
        found += [f"{path.name}: is left at the end" for path in (self.root / "artifacts").glob("*.partial")]
        self.tally.findings += [f"at the end: {line}" for line in found]
        self.tally.write({"end": str(self.root), "findings": found, "outputs": [str(run.err)]})

    def _harm(self) -> tuple[list[str], list[Harm]]:
        """Faults of the store at rest; a store with a last artifact loses its newest, so that there is work."""
        names, harms = [], []
        made = any((self.root / "artifacts").glob(f"{self._last}-{'[0-9a-f]' * 12}"))
        if made and (harm := forgotten(self.root, self.draw)):
            names, harms = [FORGOTTEN], [harm]
        if self.at_rest and self.draw.random() < 0.6:
            for name in self._rarest_first(self.at_rest):
                if (harm := self.at_rest[name](self.root, self.draw)) is not None:
                    return [*names, name], [*harms, harm]
        return names, harms

    def _rarest_first(self, names: Mapping[str, object] | Sequence[str]) -> Iterator[str]:
        return iter(sorted(names, key=lambda name: (self.tally.injected[name], self.draw.random())))

    def _start(self, form: str, words: Sequence[str]) -> list[Run]:
        one, other = ([f"stages.dpo_a.beta={self.draw.choice(BETAS)}", "until=dpo_a", *words] for _ in range(2))
        match form:
            case "two at once":
                return [self.launcher.start(one), self.launcher.start(other)]
            case "two users":
                return [self.launcher.start(each, user) for each, user in zip((one, other), USERS, strict=True)]
            case "clock jumps":
                jump = self.draw.choice([-400, -1 / 24, 1 / 24, 400]) * DAY_SECONDS
                return [self.launcher.start(one, clock_jump_seconds=jump)]
            case "alone":
                return [self.launcher.start(one)]
            case _:
                return [self.launcher.start([*self.whole, *words])]

    def _wait(self, runs: Sequence[Run]) -> list[str]:
        end, found = time.monotonic() + LIMIT_SECONDS, []
        for run in runs:
            while run.process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            if run.process.poll() is None:
                found.append(f"{run.err}: does not end within {LIMIT_SECONDS} s")
                self.launcher.end_all()
                run.process.wait()
        return found

    def _left_behind(self) -> list[str]:
        end = time.monotonic() + 60
        while (left := self.launcher.processes()) and time.monotonic() < end:
            time.sleep(0.1)
        self.launcher.end_all()
        return [f"processes {left} live on after their run"] if left else []

    def _repair(self, runs: Sequence[Run], harm: Harm | None) -> bool:
        """Delete what the error lines ask the user to delete; whether there was anything."""
        named = {named_folder(line) for run in runs for line in run.lines()} | {harm.refused if harm else None}
        folders = [folder for folder in named if folder is not None and folder.parent == self.root / "artifacts"]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return bool(folders)
