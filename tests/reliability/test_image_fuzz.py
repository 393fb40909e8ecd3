"""Damaged pictures by the thousand: each is an image of the right kind or is named as bad; no crash, no hang, no noise."""

from __future__ import annotations

import io
import logging
import os
import random
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_cli.data.first_look import read_images
from gan_cli.data.image_files import BadFile, ImageFiles, decode_image, quiet

from .strangers import fresh_peak, peak  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
MUTANTS = 10_000 if SOAK else 300
SECONDS, GROWTH = 5, 300 * 2**10  # for one image; KiB


def seeds() -> list[tuple[str, bytes]]:
    """A small picture in each format and kind."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "made up"
    kinds: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("PNG", rgba, {}),
        ("PNG", rgba.convert("P"), {"transparency": 3}),
        ("PNG", Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {}),
        ("PNG", rgba.convert("1"), {}),
        ("JPEG", rgba.convert("RGB"), {"exif": exif}),
        ("JPEG", rgba.convert("L"), {"progressive": True}),
        ("JPEG", rgba.convert("CMYK"), {}),
        ("GIF", rgba.convert("RGB"), {"save_all": True, "append_images": [rgba.convert("L").convert("RGB")]}),
        ("BMP", rgba.convert("RGB"), {}),
        ("BMP", rgba.convert("P"), {}),
        ("WEBP", rgba, {"lossless": True, "exif": exif}),
        ("WEBP", rgba.convert("RGB"), {}),
        ("TIFF", rgba.convert("RGB"), {"compression": "tiff_lzw"}),
        ("TIFF", rgba.convert("CMYK"), {}),
        ("TIFF", Image.fromarray(noise[..., 0].astype(np.uint16)), {"compression": "tiff_deflate"}),
        ("TIFF", rgba.convert("1"), {"compression": "group4"}),
    ]
    result = []
    for form, image, options in kinds:
        file = io.BytesIO()
        image.save(file, form, **options)  # type: ignore[arg-type]
        result.append((form, file.getvalue()))
    return result


def mutate(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One kind of damage, most often near the beginning, where the headers are."""
    data = bytearray(content)

    def place() -> int:
        return rng.randrange(min(len(data), 64)) if rng.random() < 0.5 else rng.randrange(len(data))

    kind = rng.randrange(7)
    if kind == 0:
        for _ in range(rng.choice([1, 1, 2, 8, 40])):
            data[place()] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[place() :]
    elif kind == 2:
        other, start = rng.choice(others), place()
        data[start:] = other[rng.randrange(len(other)) :]
    elif kind == 3:
        start, size = place(), rng.choice([1, 4, 16, 256])
        data[start : start + size] = bytes(min(size, len(data) - start))
    elif kind == 4:  # a size or an offset grows
        start = place()
        data[start : start + 4] = struct.pack(
            rng.choice("<>") + "I", rng.choice([2**31 - 1, 2**32 - 1, 9999, 30000, 65535, 2**24])
        )
    elif kind == 5:
        start, size = place(), rng.choice([1, 4, 100, 5000])
        data[start:start] = rng.randbytes(size)
    else:
        start, size = place(), rng.choice([2, 8, 100])
        data += data[start : start + size] * rng.choice([1, 9, 1000])
    if content[1:4] == b"PNG" and rng.random() < 0.7:  # with sums that are right, so that more of it is read
        at = 8
        while at + 12 <= len(data) and at + 12 + (size := int.from_bytes(data[at : at + 4], "big")) <= len(data):
            data[at + 8 + size : at + 12 + size] = struct.pack(">I", zlib.crc32(data[at + 4 : at + 8 + size]))
            at += 12 + size
    return bytes(data)


def mutants(count: int) -> list[bytes]:
    rng, originals = random.Random(5), [content for _, content in seeds()]
    return [mutate(originals[k % len(originals)], originals, rng) for k in range(count)]


def without_libtiff(noise: str) -> str:
    """libtiff says itself what is wrong with compressed pixels, in one line, and Pillow does not stop it."""
    return re.sub(r"^(tempfile\.tif|\w+): [ -~]*\n", "", noise, flags=re.MULTILINE)


def test_damaged_pictures_are_pictures_or_refused(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert all(decode_image(io.BytesIO(content))[0].shape[1:] in ((24, 20), (20, 24)) for _, content in seeds())
    before, good, slowest = fresh_peak(), 0, 0.0
    reasons: set[str] = set()
    refused: list[bool] = []
    contents = mutants(MUTANTS)
    files = ImageFiles(Path("memory"), {str(k): c for k, c in enumerate(contents)}, [], 16, 3, "crop")
    with quiet(), caplog.at_level(logging.WARNING):
        for k in range(MUTANTS):
            started = time.process_time()
            try:
                pixels, _ = files.load((str(k),))
                assert pixels.dtype == torch.uint8 and pixels.shape == (3, 16, 16), k
                good += 1
            except BadFile as bad:
                reasons.add(bad.reason)
                refused.append(bad.name == str(k))
            slowest = max(slowest, time.process_time() - started)
    growth = peak() - before
    noise = capfd.readouterr()
    print(f"{MUTANTS} images: {good} good, {MUTANTS - good} bad; slowest {slowest:.2f} s, memory +{growth // 1024} MB")
    assert 0.05 < good / MUTANTS < 0.95 and len(refused) == MUTANTS - good and all(refused)
    assert len(reasons) > 5 and all(reason and "\n" not in reason and len(reason) <= 200 for reason in reasons)
    assert slowest < SECONDS and growth < GROWTH
    assert without_libtiff(noise.err) == noise.out == "" and not caplog.records


def test_a_folder_of_them_is_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("gan_cli"), "handlers", [])  # of a command that an earlier test ran
    contents = mutants(64)
    for k, content in enumerate(contents):
        (tmp_path / f"{k:03d}.png").write_bytes(content)
    names = [(f"{k:03d}.png",) for k in range(len(contents))]
    files = ImageFiles(tmp_path, tmp_path, names, 16, 3, "crop")
    kept, images = read_images(files, in_memory=True, on_bad_image="skip")
    assert images is not None and len(images) == len(kept.samples) < 64
    assert sum(f"{64 - len(images)} of 64 images cannot be read" in record.getMessage() for record in caplog.records) == 1
    alone = [files.load(sample)[0] for sample in kept.samples]
    assert torch.equal(torch.stack(alone), images)
    noise = capfd.readouterr()
    assert without_libtiff(noise.err) == noise.out == ""
