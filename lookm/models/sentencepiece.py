"""LLaMA's `tokenizer.model` without the sentencepiece package: its vocabulary as a fast byte-fallback BPE tokenizer.

The file is one protocol-buffer message. Of its fields only the pieces are needed (field 1, repeated): their text (1),
score (2) and type (3).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from lookm.errors import LookmError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNKNOWN, _CONTROL = 2, 3
_SPACE = "▁"


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `kind` is 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""

    text: str
    score: float = 0.0
    kind: int = 1


def load_sentencepiece(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a `tokenizer.model`, as LLaMA uses it: a space before every text, unknown characters as bytes.

    Raises:
        LookmError: the file is none.
    """
    pieces = read_pieces(file)
    names = [piece.text for piece in pieces]
    control = [piece.text for piece in pieces if piece.kind == _CONTROL]
    unknown = next((piece.text for piece in pieces if piece.kind == _UNKNOWN), None)
    if unknown is None or not {"<s>", "</s>"} <= set(control):
        raise LookmError(f"{file} has no unknown, beginning or end piece; it is no LLaMA tokenizer")
    vocabulary = {name: number for number, name in enumerate(names)}
    core = Tokenizer(BPE(vocabulary, merges_of(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    core.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (unknown, *control)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=unknown,
        bos_token="<s>",
        eos_token="</s>",
        pad_token=unknown,
        padding_side="left",
    )


def merges_of(pieces: list[Piece]) -> list[tuple[str, str]]:
    """The merges behind a BPE vocabulary: every split of a piece into two pieces, those of better pieces first."""
    scores = {piece.text: piece.score for piece in pieces if piece.kind == 1}
    numbers = {piece.text: number for number, piece in enumerate(pieces)}
    merges = [
        (-score, numbers[text[:cut]], numbers[text[cut:]], text[:cut], text[cut:])
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(merges)]


def read_pieces(file: Path) -> list[Piece]:
    """The vocabulary of a `tokenizer.model`, in the order of its ids.

    Raises:
        LookmError: the file cannot be read as one.
    """
    try:
        pieces = [
            _piece(value) for field, value in _fields(file.read_bytes()) if field == 1 and isinstance(value, bytes)
        ]
    except (IndexError, ValueError, struct.error):
        pieces = []
    if not pieces:
        raise LookmError(f"{file} is no sentencepiece model; download it again")
    return pieces


def _piece(message: bytes) -> Piece:
    text, score, kind = "", 0.0, 1
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            text = value.decode()
        elif field == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif field == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, kind)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field: an int for a varint, bytes for all else."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            number, place = _varint(message, place)
            yield field, number
            continue
        if wire == _BYTES:
            size, place = _varint(message, place)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(message):
            raise ValueError("cut short")
        yield field, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """The number that begins at `place`, seven bits a byte, and the place after it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
