"""Whether a run ended as it may: exit code, error line, no traceback."""

import re

from tests.faults.soak.at_rest import Harm
from tests.faults.soak.running import Fault
from tests.faults.soak.runs import Run, named_folder


def faults_of(run: Run, hit: Fault | None, harm: Harm | None) -> list[str]:
    """What is wrong with the end of a run that `hit` struck, on a store that `harm` was done to; a line each."""
    code, lines = run.process.returncode, run.lines()
    refusable = harm is not None and harm.refused is not None
    found = [f"shows a traceback: {trace}"] if (trace := run.traceback()) else []
    if code == 0 and refusable and harm is not None and not harm.may_refuse:
        found.append(f"goes on with a damaged artifact ({harm.what})")
    if code == 1 and len(lines) == 1 and refusable and harm is not None and named_folder(lines[0]) == harm.refused:
        return found
    if code not in {0} | (hit.codes if hit else frozenset()):
        found.append(f"ends with {code}: {' | '.join(lines) or 'no error line'}")
    elif code == 1 and len(lines) != 1:
        found.append(f"ends with {len(lines)} error lines, not 1: {' | '.join(lines)}")
    elif code == 1 and hit is not None and not re.search(hit.line, lines[0]):
        found.append(f"gives another reason than the fault: {lines[0]}")
    return found
