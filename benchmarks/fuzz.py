"""Ten thousand hostile files: each has to be an image or a sentence, and memory has to stay bounded.

``make fuzz`` reads the largest files that are allowed, then damages pictures and DICOM files of every kind at random;
all in processes of their own, so that a decoder that takes the process down is seen and counted.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from app.errors import ImageError
from app.imaging.dicom import COLOURED, is_dicom
from app.imaging.examples import draw
from app.imaging.radiograph import EXIF_ORIENTATION, MAX_PIXELS, decode
from benchmarks.record import keep

SLOW = 20.0
"""Seconds from which on a file counts as one that hangs."""

BOUND = 1024.0
"""MiB that the reader may hold, whatever the file; what Python and the decoders take themselves included."""


def corpus() -> list[bytes]:
    """Valid files of every kind that is read: a drawing in many formats, and pydicom's own test files."""
    image = draw("jagged", seed=0, height=160, width=120)
    seeds = []
    for mode, formats in (("L", ("PNG", "JPEG", "WEBP", "TIFF")), ("I;16", ("PNG", "TIFF")), ("P", ("PNG", "TIFF"))):
        pixels = image.astype(np.uint16) * 200 if mode == "I;16" else image
        picture = Image.fromarray(pixels) if mode != "P" else Image.fromarray(image).convert("P")
        for kind in formats:
            file = io.BytesIO()
            picture.save(file, kind)
            seeds.append(file.getvalue())
    for colours in ("RGB", "RGBA", "CMYK"):
        file = io.BytesIO()
        Image.fromarray(np.dstack([image] * 3)).convert(colours).save(file, "TIFF")
        seeds.append(file.getvalue())
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 6
    for kind in ("PNG", "JPEG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, exif=turned)
        seeds.append(file.getvalue())
    wide = cv2.imencode(".tiff", np.dstack([image.astype(np.uint16) * 257] * 3))[1].tobytes()
    deep = cv2.imencode(".png", np.dstack([image.astype(np.uint16) * 257] * 3))[1].tobytes()
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    dicom = [
        path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < 300_000
    ]
    return [*seeds, wide, deep, *(data for data in dicom if is_dicom(data) and _readable(data))]


def _readable(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return False
    return True


def dicom(pixels: np.ndarray, syntax: UID) -> bytes:
    """A radiograph's file that holds the pixels, uint8 or uint16, (H, W) or (H, W, 3), in a transfer syntax."""
    bits = 8 * pixels.dtype.itemsize
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    packed = syntax not in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if packed else syntax
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = SecondaryCaptureImageStorage, generate_uid(), "DX"
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    file.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = bits
    file.HighBit, file.PixelRepresentation = bits - 1, 0
    file.PixelData = pixels.tobytes()
    if packed:
        file.compress(syntax)
    stored = io.BytesIO()
    file.save_as(stored, enforce_file_format=True)
    return stored.getvalue()


def largest() -> Iterator[tuple[str, bytes]]:
    """Files with as many pixels as may be read, in the formats that take most memory."""
    side = int(MAX_PIXELS**0.5)
    image = cv2.resize(draw("jagged", seed=0, height=400, width=400), (side, side))
    deep = image.astype(np.uint16) * 257
    # What packs badly would exceed the bytes that are allowed before it exceeds the pixels.
    coarse = cv2.resize(deep[:: side // 80, :: side // 80], (side, side), interpolation=cv2.INTER_NEAREST)

    def saved(picture: Image.Image, kind: str, **options: str) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    few = int(COLOURED**0.5)
    yield "DICOM, JPEG 2000, 16 bits, colour", dicom(np.dstack([coarse[:few, :few]] * 3), JPEG2000Lossless)
    yield "DICOM, JPEG 2000, 16 bits", dicom(coarse, JPEG2000Lossless)
    yield "PNG, 16 bits, colour and alpha", cv2.imencode(".png", np.dstack([deep] * 4))[1].tobytes()
    yield "DICOM, RLE, 16 bits", dicom(deep, RLELossless)
    yield "DICOM, deflated, 16 bits", dicom(deep, DeflatedExplicitVRLittleEndian)
    yield "PNG, 16 bits", saved(Image.fromarray(deep), "PNG")
    yield "PNG, colour and alpha", saved(Image.fromarray(np.dstack([image] * 4)), "PNG")
    yield "JPEG, colour", saved(Image.fromarray(np.dstack([image] * 3)), "JPEG")
    yield "TIFF, CMYK", saved(Image.fromarray(np.dstack([image] * 4), "CMYK"), "TIFF", compression="tiff_lzw")
    yield "TIFF, floats", saved(Image.fromarray(image / np.float32(255.0)), "TIFF", compression="tiff_adobe_deflate")


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with bytes changed, cut out, repeated or replaced by extremes; most changes fall on its first part."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 2, 4, 8]))):
        if not changed:
            break
        reach = len(changed) if rng.random() < 0.4 else min(len(changed), 2048)
        at = int(rng.integers(0, reach))
        kind = int(rng.choice(6, p=[0.3, 0.25, 0.25, 0.07, 0.07, 0.06]))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[at] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == 2:
            changed[at : at + 4] = int(rng.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1])).to_bytes(4, "little")
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        else:
            del changed[at + int(rng.integers(0, 512)) :]
    return bytes(changed)


def peak_memory() -> float:
    """Most memory this process ever held, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # What getrusage tells includes the process this one was forked from.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _read(seed: int, start: int, end: int, seeds: list[bytes], pipe: Connection) -> None:
    for number in range(start, end):
        rng = np.random.default_rng((seed, number))
        data = damage(seeds[int(rng.integers(0, len(seeds)))], rng)
        pipe.send((number, None))
        pipe.send((number, _outcome(data)))
    pipe.send((-1, peak_memory()))


def _outcome(data: bytes) -> str:
    try:
        decode(data)
        return "an image"
    except ImageError as error:
        return "a sentence" if str(error).endswith(".") else f"no sentence: {error}"
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        return f"{type(error).__name__}"


def _read_one(data: bytes, pipe: Connection) -> None:
    pipe.send((_outcome(data), peak_memory()))


def read_alone(data: bytes) -> tuple[str, float]:
    """What becomes of a file, and the peak resident memory in MiB of a process that does nothing but read it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read_one, args=(data, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return "it takes the process down", float("nan")
    finally:
        process.join()


def fuzz(count: int, seed: int = 0, slow: float = SLOW) -> tuple[Counter[str], float, list[tuple[int, str]]]:
    """Reads so many damaged files, each of which may take ``slow`` seconds.

    Returns:
        Outcomes by kind, the reader's peak resident memory in MiB, and the numbers of those that were neither an image
        nor a sentence, with what happened.
    """
    seeds = corpus()
    outcomes: Counter[str] = Counter()
    bad: list[tuple[int, str]] = []
    context = multiprocessing.get_context("spawn")
    peak, number = 0.0, 0
    while number < count:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_read, args=(seed, number, count, seeds, theirs))
        process.start()
        theirs.close()
        last = number
        while True:
            began = time.monotonic()
            alive = ours.poll(slow + 40.0 if last == number else slow)
            try:
                found, outcome = ours.recv() if alive else (last, "it hangs")
            except EOFError:
                found, outcome = last, "it takes the process down"
            if found == -1:
                peak = max(peak, float(outcome))
                number = count
                break
            last = found
            if outcome is None:
                continue
            outcomes[outcome] += 1
            if outcome not in ("an image", "a sentence"):
                bad.append((found, outcome))
            if outcome in ("it hangs", "it takes the process down"):
                number = found + 1
                break
            if time.monotonic() - began > slow:
                bad.append((found, "slow"))
        process.kill()
        process.join()
    return outcomes, peak, bad


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    asked = arguments.parse_args()
    failed, costs = False, {}
    print(f"the largest files, {MAX_PIXELS / 1e6:.0f} megapixels; the reader may hold {BOUND:.0f} MiB")
    for name, data in largest():
        outcome, peak = read_alone(data)
        failed |= outcome != "an image" or not peak < BOUND
        costs[name] = round(peak)
        print(f"{len(data) / 2**20:8.1f} MB  {name}: {outcome}, {peak:.0f} MiB")
    outcomes, peak, bad = fuzz(asked.count, asked.seed)
    for outcome, count in outcomes.most_common():
        print(f"{count:8,}  {outcome}")
    print(f"peak resident memory of the reader: {peak:.0f} MiB")
    keep(
        "fuzz",
        {
            "megapixels": MAX_PIXELS // 1_000_000,
            "bound_mib": BOUND,
            "largest_files_mib": costs,
            "damaged_files": asked.count,
            "outcomes": dict(outcomes),
            "damaged_files_mib": round(peak),
        },
    )
    for number, what in bad[:20]:
        print(f"number {number}: {what}")
    sys.exit(failed or bool(bad) or not peak < BOUND)


if __name__ == "__main__":
    main()
