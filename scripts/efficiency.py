"""Measure what the paper's Table 4 measures and what compressing costs, on the CPU or a GPU.

    python -m scripts.efficiency --device cuda --output results/efficiency
    python -m scripts.efficiency --device cpu --parts sweep prefill
    python -m scripts.efficiency --quick --output /tmp/try

Parts: decode (ms/token and key/value bytes by budget, prompt length and batch, beside the paper's row and the
bandwidth floor), prefill (compressed against plain SDPA and eager attention, time and peak memory), sweep (the eleven
rows of Table 1, and all rows that share a prefill, against the full-cache row alone and eleven single runs), capacity
(the largest batch in a given memory, and its tokens/s).

Every part has a JSON and a text in a folder of the device's name. A part that is there with the same sizes is not
measured again. On a GPU the model is a randomly initialised LLaVA-7B in full size, on a CPU
a scaled-down one. Needs torch, transformers and PyYAML; no data, no weights.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from benchmarks.evaluation.provenance import hardware, versions
from benchmarks.files import write_json, write_text
from benchmarks.guard import guarded
from benchmarks.tables.table import Row as Line
from benchmarks.tables.table import Table, as_text
from lookm.errors import LookmError

from .measuring.decode import decode_grid, largest_batches, paper_rows
from .measuring.prefill import VARIANTS, prefill_overheads
from .measuring.table1 import sweep_costs
from .measuring.workplace import SHAPES, Sizes, Workplace

Row = Mapping[str, Any]
Columns = dict[str, Callable[[Row], str]]

PARTS: dict[str, tuple[str, Callable[[Workplace], Iterable[dict[str, Any]]]]] = {
    "decode": ("Decode steps", decode_grid),
    "prefill": ("Prefill", prefill_overheads),
    "sweep": ("Many rows from one prefill", sweep_costs),
    "capacity": ("Largest batch in a given memory", largest_batches),
}

CPU = Sizes(
    shape="small", lengths=(1024, 2048, 4096, 8192, 16384, 32768), batches=(1, 2, 4, 8, 16, 32, 64), table_length=3113,
    prefill_lengths=(4096,), length=4096, new_tokens=16, steps=8, repeats=5, memory=1 << 30,
    tiny=((1, 8), (8, 8), (8, 32)), variants=VARIANTS,
)  # fmt: skip
GPU = replace(
    CPU, shape="llava7b", prefill_lengths=(4096, 16384, 32768), new_tokens=32, steps=16, memory=24 << 30, tiny=(),
)  # fmt: skip
QUICK = Sizes(
    shape="nano", lengths=(64,), batches=(1, 2), table_length=80, prefill_lengths=(96,), length=96,
    new_tokens=2, steps=1, repeats=1, memory=1 << 22, tiny=((1, 2),), variants=VARIANTS,
)  # fmt: skip
OPTIONS = {
    "lengths": "prompt tokens of the decode grid, one prompt each",
    "batches": "prompts of the decode grid, of --length tokens each",
    "table_length": "prompt tokens of the paper's row; 3113 make its 1.52 GiB",
    "prefill_lengths": "prompt tokens of the prefills",
    "length": "prompt tokens of sweeps, batches and the largest batch",
    "new_tokens": "tokens of an answer",
    "steps": "decode steps of one run",
    "repeats": "runs after the one for warming up",
}
"""Fields of Sizes that the command line may set to other whole numbers."""


def spread(row: Row) -> str:
    """Median and, in brackets, the smallest and largest run, in milliseconds."""
    return f"{row['median_ms']:.2f} [{row['min_ms']:.2f}–{row['max_ms']:.2f}]"


def times(value: float | None) -> str:
    """A ratio, or a dash."""
    return "–" if value is None else f"{value:.2f} ×"


# Of each part: the columns that say which case it is, and those of what was measured.
TABLES: dict[str, tuple[Columns, Columns]] = {
    "decode": (
        {"prompt × batch": lambda row: f"{row['length']:,} × {row['batch']}{', graph' if row['graph'] else ''}",
         "budget": lambda row: f"{row['budget']:.0%}"},
        {"ms/token [runs]": spread, "of full": lambda row: times(row["times_full"]),
         "KV GiB": lambda row: f"{row['kv_bytes'] / 2**30:.3f}", "of floor": lambda row: times(row["times_floor"]),
         "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}"},
    ),
    "prefill": (
        {"variant": itemgetter("variant"), "tokens": lambda row: f"{row['length']:,}"},
        {"ms [runs]": spread, "of plain": lambda row: times(row["times_first"]),
         "peak MiB": lambda row: "–" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}",
         "of plain's": lambda row: times(row["peak_times_first"])},
    ),
    "sweep": (
        {"case": lambda row: f"{row['model']}, batch {row['batch']}", "way": lambda row: row.get("way", "")},
        {"tokens": lambda row: str(max(row["prompt_tokens"])), "ms [runs]": spread,
         "of full row": lambda row: times(row["times_first"]),
         "answers": lambda row: f"{row['answers_that_differ_from_single_runs']} of {row['answers']} differ"},
    ),
    "capacity": (
        {"budget": lambda row: f"{row['budget']:.0%}", "prompt": lambda row: f"{row['length']:,}",
         "memory GiB": lambda row: f"{row['memory_bytes'] / 2**30:.1f}", "batch": lambda row: f"{row['batch']:,}"},
        {"ms/step [runs]": spread, "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
         "of floor": lambda row: times(row["times_floor"])},
    ),
}  # fmt: skip


def text_of(part: Mapping[str, Any]) -> str:
    """A part as text: what, where, how, and its table."""
    machine = part["hardware"].get("accelerator") or part["hardware"]["processor"]
    case, measured = TABLES[part["part"]]
    lines = []
    for row in each_way(part["rows"]):
        nothing = [row.get("skipped", "")[:60], *[""] * (len(measured) - 1)]
        numbers = nothing if "skipped" in row else [cell(row) for cell in measured.values()]
        lines.append([*(cell(row) for cell in case.values()), *numbers])
    if part["part"] == "decode":
        lines += [
            ["paper (Table 4)", f"{row['budget']:.0%}", f"{row['decode_ms_per_token']:.2f}", times(row["times_full"]),
             f"{row['kv_gib']:.2f}", "–", f"on {row['hardware']}"]
            for row in paper_rows()
        ]  # fmt: skip
    title = (
        f"{part['title']} · {machine} · torch {part['versions'].get('torch')}, "
        f"transformers {part['versions'].get('transformers')}, {part['threads']} threads"
    )
    rows = tuple(Line(tuple(line)) for line in lines)
    table = Table("\n".join([title, *part["notes"]]), (*case, *measured), rows, text_columns=len(case))
    return as_text(table) + "\n"


def each_way(rows: list[Row]) -> list[Row]:
    """Rows of a sweep, one for each way to the eleven rows; others as they are."""
    return [
        {**row, "way": way, **measured}
        for row in rows
        for way, measured in (row["ways"].items() if "ways" in row else [("", {})])
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    command.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    command.add_argument("--quick", action="store_true", help="tiny sizes, to try the script out")
    command.add_argument("--output", type=Path, default=Path("outputs/efficiency"), help="default: %(default)s")
    command.add_argument("--overwrite", action="store_true", help="measure again what is there")
    sizes = command.add_argument_group("sizes (defaults depend on the device)")
    sizes.add_argument("--shape", choices=list(SHAPES), help="model: llava7b on a GPU, small on a CPU")
    for name, text in OPTIONS.items():
        several = "+" if isinstance(getattr(CPU, name), tuple) else None
        sizes.add_argument(f"--{name.replace('_', '-')}", type=int, nargs=several, metavar="N", help=text)
    sizes.add_argument("--variants", nargs="+", choices=VARIANTS, help="of the prefill; default: all")
    sizes.add_argument("--memory-gib", type=float, help="memory of the largest batch, weights included")
    return command


def chosen_sizes(arguments: argparse.Namespace, device: torch.device) -> Sizes:
    """The device's sizes with what the command line says instead.

    Raises:
        LookmError: for a size below 1.
    """
    changes: dict[str, Any] = {} if arguments.shape is None else {"shape": arguments.shape}
    for name in OPTIONS:
        value = getattr(arguments, name)
        numbers = tuple(value) if isinstance(value, list) else (value,)
        if value is not None and min(numbers) < 1:
            raise LookmError(f"--{name.replace('_', '-')} {min(numbers)} is no size; choose a positive number")
        if value is not None:
            changes[name] = numbers if isinstance(value, list) else value
    if arguments.variants is not None:
        changes["variants"] = tuple(arguments.variants)
    if arguments.memory_gib is not None:
        changes["memory"] = int(arguments.memory_gib * 2**30)
    return replace(QUICK if arguments.quick else CPU if device.type == "cpu" else GPU, **changes)


def is_measured(path: Path, sizes: dict[str, Any]) -> bool:
    """Whether the part is there, complete and of these sizes."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["sizes"] == sizes
    except (OSError, ValueError, KeyError):
        return False


def notes_of(place: Workplace) -> list[str]:
    """What a reader of the part must know."""
    notes = [f"model: {place.shape.note}; {str(place.dtype).removeprefix('torch.')}"]
    if not place.on_gpu:
        notes.append("no GPU: the full-size LLaVA-7B, bfloat16 and CUDA graphs are not measured here")
    return notes


def measure(part: str, place: Workplace, command: str) -> dict[str, Any]:
    """Measure a part; lines on stderr say how far it is."""
    title, rows_of = PARTS[part]
    rows = []
    for row in rows_of(place):
        rows.append(row)
        print(f"{part}: {len(rows)} measured", file=sys.stderr, flush=True)
    return {
        "part": part,
        "title": title,
        "command": command,
        "sizes": json.loads(json.dumps(asdict(place.sizes))),
        "hardware": hardware(str(place.device)),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "bandwidth_bytes_per_second": round(place.bandwidth),
        "notes": notes_of(place),
        "rows": rows,
    }


def run(argv: list[str]) -> None:
    """Measure what is asked for and not there yet; print all tables."""
    arguments = parser().parse_args(argv)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LookmError(f"--device {arguments.device}: no GPU is available here; use --device cpu")
    place = Workplace(device, chosen_sizes(arguments, device))
    sizes = json.loads(json.dumps(asdict(place.sizes)))
    folder = arguments.output / device.type
    folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        path = folder / f"{part}.json"
        if arguments.overwrite or not is_measured(path, sizes):
            result = measure(part, place, " ".join(["python -m scripts.efficiency", *argv]))
            write_text(path.with_suffix(".txt"), text_of(result))
            write_json(path, result)
        else:
            print(f"{part}: already measured in {path}; --overwrite measures it again", file=sys.stderr)
        print(path.with_suffix(".txt").read_text(encoding="utf-8"))
    print(f"Results: {folder}")


@guarded
def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line on stderr for wrong input."""
    run(sys.argv[1:] if argv is None else argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
