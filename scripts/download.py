"""Gets data and weights: `python -m scripts.download milebench`, `python -m scripts.download model llava7b`.

Everything comes from the Hugging Face Hub (`HF_ENDPOINT`, `HF_HOME` and a token are heeded), is checked against its
checksums, goes on where it broke off, and is not fetched twice.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guard import guarded


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 complete, 2 wrong input or not possible, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        print(_milebench(options) if options.what == "milebench" else _model(options))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lookm download", description="Get data and weights.")
    things = parser.add_subparsers(dest="what", required=True)
    data = things.add_parser("milebench", help="the 29 datasets (six archives, about 17 GB, and as much extracted)")
    data.add_argument("--root", type=Path, default=Path("data/MileBench"), help="where to (data/MileBench)")
    data.add_argument("--archives", type=Path, metavar="FOLDER", help="where the archives are kept (ROOT/.archives)")
    data.add_argument("--delete-archives", action="store_true", help="delete each archive once it is extracted")
    data.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER",
        help="extract archives that lie here already, without the hub (for machines without a network)",
    )  # fmt: skip
    data.add_argument("--revision", help="commit, tag or branch (the newest)")
    model = things.add_parser("model", help="one model's checkpoint: safetensors, configuration, tokenizer")
    model.add_argument("name", help="a file of configs/model, such as llava7b")
    model.add_argument("--to", type=Path, metavar="FOLDER", help="into this folder (the hub's cache, see HF_HOME)")
    model.add_argument("--bin-weights", action="store_true", help="allow .bin files (pickles) where there is no other")
    model.add_argument("--revision", help="commit, tag or branch (what the model's YAML says, or the newest)")
    return parser


def _milebench(options: argparse.Namespace) -> str:
    """Gets MileBench; returns what to print."""
    from benchmarks.milebench.download import download_milebench

    done = download_milebench(
        options.root,
        archives=options.archives,
        source=options.source,
        revision=options.revision,
        delete=options.delete_archives,
    )
    if not done:
        return f"MileBench is complete in {options.root}; nothing to do"
    return (
        f"MileBench is in {options.root} ({len(done)} archives extracted now); "
        f"look at it with `python -m scripts.inspect_data --root {shlex.quote(str(options.root))}`"
    )


def _model(options: argparse.Namespace) -> str:
    """Gets a model's checkpoint; returns what to print."""
    from benchmarks.download.checkpoints import download_checkpoint, read_source
    from benchmarks.download.hub import shown_bytes

    source = read_source(options.name)
    if source is None:
        return f"{options.name} comes with this repository; nothing to do"
    name, revision = source
    revision = options.revision or revision
    found = download_checkpoint(name, revision, to=options.to, bin_weights=options.bin_weights)
    use = f"lookm run model={options.name}"
    if options.to is not None:
        use += f" model.path={shlex.quote(str(options.to))}"
    if options.bin_weights:
        use += " model.bin_weights=true"
    what = "nothing to fetch, all checksums right" if not found.fetched else f"{found.fetched} fetched now"
    return f"{name} is in {found.folder} ({found.files} files, {shown_bytes(found.size)}; {what}): `{use}`"


if __name__ == "__main__":
    sys.exit(main())
