"""LLaMA's tokenizer.model is read without sentencepiece, and cuts texts as sentencepiece does."""

from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lookm.errors import LookmError
from lookm.models.sentencepiece import load_sentencepiece, read_pieces
from tests.models.checkpoints import sentencepiece_pieces, write_sentencepiece

PIECES = sentencepiece_pieces()
SCORES = {text: score for text, score, kind in PIECES if kind == 1}
NUMBERS = {text: number for number, (text, _, _) in enumerate(PIECES)}
WORDS = st.lists(
    st.sampled_from(["the", "thing", "hand", " ", "  ", "is", "wind", "é", "東", "\n", "x", "?"]), max_size=12
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_sentencepiece(folder)
    return folder / "tokenizer.model"


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> PreTrainedTokenizerFast:
    return load_sentencepiece(file)


def plain_ids(text: str) -> list[int]:
    """Of all neighbours the pair that makes the best piece is joined, the leftmost of equals, until none makes one."""
    symbols = list(("▁" + text).replace(" ", "▁")) if text else []
    while True:
        joined = [(place, symbols[place] + symbols[place + 1]) for place in range(len(symbols) - 1)]
        possible = [(-SCORES[piece], place) for place, piece in joined if piece in SCORES]
        if not possible:
            break
        place = min(possible)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    ids = []
    for symbol in symbols:
        ids += [NUMBERS[symbol]] if symbol in SCORES else [NUMBERS[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return ids


def test_the_vocabulary_is_read_as_it_was_written(file: Path) -> None:
    assert [(piece.text, piece.score, piece.kind) for piece in read_pieces(file)] == PIECES


@given(WORDS.map("".join))
def test_texts_are_cut_as_by_the_plain_algorithm(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == plain_ids(text)


@given(st.text(max_size=30))
def test_any_text_comes_back_but_for_the_space_before_it(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    if not any(special in text for special in tokenizer.all_special_tokens) and "▁" not in text:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_special_tokens_are_llamas(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.decode([1, NUMBERS["▁the"], 2], skip_special_tokens=True) == "the"


@pytest.mark.parametrize("content", [b"", b"no tokenizer at all", b"\x0a\xff", b"\x0a\x05\x0a\x09the"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(LookmError, match=r"tokenizer\.model is no sentencepiece model"):
        load_sentencepiece(tmp_path / "tokenizer.model")


def test_a_vocabulary_without_an_end_is_refused(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path, [("<unk>", 0.0, 2), ("a", 0.0, 1)])
    with pytest.raises(LookmError, match="no LLaMA tokenizer"):
        load_sentencepiece(tmp_path / "tokenizer.model")


def test_without_protobuf_the_line_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ImportError

    monkeypatch.setattr(import_module("transformers.convert_slow_tokenizer"), "import_protobuf", absent)
    with pytest.raises(LookmError, match=r"needs the package protobuf: pip install 'lookm-harness\[harness\]'"):
        read_pieces(file)
