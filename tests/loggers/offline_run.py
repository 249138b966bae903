"""Reads the `.wandb` file of an offline run: protobuf records in LevelDB's log format."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2 as messages

BLOCK, HEADER = 32768, 7


def _records(content: bytes) -> Iterator[bytes]:
    """Full records: chunks of (crc, length, kind), kinds 1 whole, 2 first, 3 middle, 4 last; blocks end in padding."""
    place, parts = HEADER, b""  # the file begins with seven bytes of its own
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if place + HEADER + length > len(content):
            raise EOFError("the last record is still being written")
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""


@dataclass
class OfflineRun:
    """What a run sent: its header, configuration, summary, artifacts and exit status."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def _whole_records(path: Path, seconds: float = 30) -> list[Any]:
    """The records of a file, once the process that writes it has ended the last one."""
    end = time.monotonic() + seconds
    while True:
        try:
            return [messages.Record.FromString(content) for content in _records(path.read_bytes())]
        except (EOFError, DecodeError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def read_offline_run(path: Path) -> OfflineRun:
    """Parse one `run-<id>.wandb`."""
    found = OfflineRun()
    for record in _whole_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "history":
            found.history |= _items(record.history.item)
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
