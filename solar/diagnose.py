"""Measure a model's layers and a few ways to grow it: `python -m solar.diagnose MODEL text=FILE`.

Prints the candidates, best first. `output=FOLDER` also writes `diagnosis.json` and `diagnosis.png`. `scan=SECONDS` also
runs every block of layers twice in a row, short blocks first, until the time is up.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from solar.arguments import run
from solar.artifacts.damage import refuse_damaged
from solar.config.growth_plan import GrowthPlan, Init, PlanName
from solar.errors import DataError, printable


@dataclass
class DiagnoseOptions:
    """Options of the command line."""

    text: Path | None = None
    """Text that the model has not seen; required."""
    tokens: int = 4096
    """How much of it is read."""
    sequence_length: int = 256
    output: Path | None = None
    """A folder for diagnosis.json and diagnosis.png."""
    scan: float | None = None
    """Seconds for trying every repeat of a block, short blocks first."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto`: the GPU of this machine if there is one, else its CPU."""


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run(words, __doc__ or "", DiagnoseOptions, ("MODEL",), _diagnose)


def candidates(num_hidden_layers: int) -> dict[str, GrowthPlan]:
    """Plans worth comparing for a base of `num_hidden_layers`."""
    n = num_hidden_layers
    plans = {f"dus m={m}": GrowthPlan(PlanName.dus, m=m) for m in sorted({n // 8, n // 4, 3 * n // 8} - {0})}
    plans["stack twice"] = GrowthPlan(PlanName.stack, times=2)
    plans["each twice"] = GrowthPlan(PlanName.repeat_each, times=2)
    plans["every 4th, silent"] = GrowthPlan(PlanName.interleave, every=min(4, n), init=Init.zero_out)
    if n >= 4:
        plans["middle twice"] = GrowthPlan(PlanName.middle, start=n // 4, stop=n - n // 4, times=2)
    return plans


def _diagnose(names: list[str], chosen: DiagnoseOptions) -> None:
    if chosen.text is None:
        raise DataError("text: not set, expected a file with text that the model has not seen")
    model = Path(names[0])
    import torch

    from solar.diagnosis.diagnose import diagnose
    from solar.diagnosis.seams import tokenized
    from solar.growth.remap.decoder import find_decoder
    from solar.network.device import device_for
    from solar.weights.folder import open_folder

    if chosen.tokens < 16 or chosen.sequence_length < 16:
        raise DataError(
            f"tokens, sequence_length: found {chosen.tokens} and {chosen.sequence_length}, expected at least 16"
        )
    refuse_damaged(model)
    device, base = device_for(chosen.device), open_folder(model)
    shapes = {name: tensor.shape for name, tensor in base.tensors.items()}
    n = find_decoder(base.config, shapes).num_hidden_layers
    rows_BT = tokenized(model, chosen.text, chosen.tokens, chosen.sequence_length)
    with TemporaryDirectory() as nowhere:
        output = chosen.output or Path(nowhere)
        diagnosis = diagnose(model, torch.split(rows_BT, 8), candidates(n), output, device=device)
    _say(f"{n} layers, loss {diagnosis['base_loss']:.4f} nats a token on {diagnosis['tokens']} tokens")
    _say("block influence  " + " ".join(f"{influence:.3f}" for influence in diagnosis["block_influence"]))
    _say(
        _table(
            diagnosis["plans"], ["name", "layers", "step0_gap", "kl", "top1_agreement", "seam_cosine", "seam_rms_ratio"]
        )
    )
    if chosen.scan is not None:
        _scan(model, chosen.scan, chosen.output, n, rows_BT.to(device))


def _scan(folder: Path, seconds: float, output: Path | None, num_hidden_layers: int, rows_BT: Any) -> None:
    from solar.diagnosis.scan import scan_repeats
    from solar.diagnosis.virtual import VirtualModel
    from solar.network.loading import load_model

    model = load_model(folder, device=str(rows_BT.device))
    scan = scan_repeats(VirtualModel(model, num_hidden_layers), rows_BT[:8], seconds, _live_line)
    _say(f"{scan['tried']} of {scan['possible']} repeats tried; the best:")
    _say(_table(scan["repeats"][:10], ["start", "stop", "layers", "step0_gap"]))
    if output is not None:
        (output / "scan.json").write_text(json.dumps(scan, indent=2) + "\n")


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    words = [
        [f"{row[name]:.4f}" if isinstance(row[name], float) else str(row[name]) for name in columns] for row in rows
    ]
    widths = [max(len(word) for word in column) for column in zip(columns, *words, strict=True)]
    lines = [[*columns], *words]
    return "\n".join("  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines)


def _live_line(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:<60}")


def _say(text: str) -> None:
    sys.stdout.write(printable(f"{text}\n", keep="\n"))


if __name__ == "__main__":
    sys.exit(main())
