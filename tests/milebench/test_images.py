"""Images are read as what they show, or refused in one line; nothing waits and no other program is started."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.milebench.images import open_image, open_images
from lookm.errors import LookmError


def grey_levels(path: Path) -> list[int]:
    image = open_image(path)
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all(), "grey"
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_shown_in_its_own_range(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"deep.{suffix}")
    assert grey_levels(tmp_path / f"deep.{suffix}") == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("levels", "shown"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 128.0, 255.0], [0, 128, 255]), ([0.0, 0.0, 0.0], [0, 0, 0])],
)
def test_floating_point_images_count_to_1_or_to_255(tmp_path: Path, levels: list[float], shown: list[int]) -> None:
    Image.fromarray(np.array([levels], dtype=np.float32)).save(tmp_path / "float.tiff")
    assert grey_levels(tmp_path / "float.tiff") == shown


@pytest.mark.parametrize("levels", [[0.0, 300.0], [-1.0, 0.5], [0.0, float("nan")]])
def test_levels_without_a_known_white_are_refused(tmp_path: Path, levels: list[float]) -> None:
    Image.fromarray(np.array([levels], dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(LookmError, match=r"image float\.tiff cannot be read: its grey levels go from"):
        open_image(tmp_path / "float.tiff")


def test_usual_images_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, mode in (("a.jpg", "RGB"), ("b.jpg", "L"), ("c.png", "RGBA"), ("d.gif", "P"), ("e.webp", "RGB")):
        Image.fromarray(random.integers(0, 256, (9, 7, 4), dtype=np.uint8), "RGBA").convert(mode).save(tmp_path / name)
        with Image.open(tmp_path / name) as file:
            assert open_images([str(tmp_path / name)])[0].tobytes() == file.convert("RGB").tobytes()


def test_a_pipe_or_a_folder_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(LookmError, match=f"image {name} cannot be read: it is no regular file"):
            open_image(tmp_path / name)


def test_postscript_never_reaches_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")

    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(LookmError, match=r"image x\.jpg cannot be read: it is no image of a known format \(JPEG, PNG"):
        open_image(tmp_path / "x.jpg")


def test_a_name_that_no_disk_takes_is_one_short_line(tmp_path: Path) -> None:
    with pytest.raises(LookmError, match=r"image a+… cannot be read: File name too long") as error:
        open_image(tmp_path / ("a" * 5000))
    assert len(str(error.value)) < 200
