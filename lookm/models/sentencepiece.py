"""LLaMA's `tokenizer.model` without the sentencepiece package: its vocabulary as a fast byte-fallback BPE tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from lookm.errors import LookmError

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
        LookmError: the file cannot be read as one, or the package protobuf is missing.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    try:
        model = import_protobuf().ModelProto()
        model.ParseFromString(file.read_bytes())
    except ImportError:
        raise LookmError(f"{file} needs the package protobuf: pip install 'lookm-harness[harness]'") from None
    except Exception as error:
        if type(error).__name__ != "DecodeError":
            raise
        model.Clear()
    if not model.pieces:
        raise LookmError(f"{file} is no sentencepiece model; download it again")
    return [Piece(piece.piece, piece.score, piece.type) for piece in model.pieces]
