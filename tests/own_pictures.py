"""A tree as a reader's own photographs would be: pictures with detail, and annotations of what they show."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from xml_files import dog, write


def scene(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A picture with detail of every coarseness, as a photograph has: noise whose power falls with frequency."""
    rng, (width, height) = np.random.default_rng(seed), size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    waves = np.fft.rfft2(rng.normal(size=(3, height, width))) / np.maximum(frequency, 1) ** 1.2
    pixels = np.fft.irfft2(waves, s=(height, width)) + 0.5 * np.fft.irfft2(waves[:1], s=(height, width))
    low, high = np.percentile(pixels, (1, 99))
    return Image.fromarray((np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def cut(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    x, y = round(width * share), round(height * share)
    return picture.crop((x, y, width - x, height - y))


def folders(tree: Path) -> Path:
    for folder in ("Annotations", "JPEGImages"):
        (tree / folder).mkdir(parents=True)
    return tree


def shown(tree: Path, image_id: str, *names: str, seed: int | None = None, ending: str = ".jpg", share: float = 0.0):
    """A picture of its own look, or one that is cut out of that of a seed."""
    picture = cut(scene(zlib.crc32(image_id.encode()) if seed is None else seed, (160, 120)), share)
    picture.save(tree / "JPEGImages" / f"{image_id}{ending}")
    objects = [dog(name=name, xmin=2, ymin=2, xmax=50, ymax=60) for name in names]
    write(tree / "Annotations" / f"{image_id}.xml", *objects, width=picture.width, height=picture.height)


def kitchen(tree: Path) -> Path:
    """Twelve pictures of a cup, ten of a Spoon, and a copy of the first, cut by 2 %."""
    folders(tree)
    for number in range(12):
        shown(tree, f"cup {number}", "cup", seed=number, ending=(".jpg", ".png", ".JPEG")[number % 3])
    for number in range(10):
        shown(tree, f"Löffel-{number}", "Spoon", seed=100 + number)
    shown(tree, "cup 0 (cut)", "cup", seed=0, share=0.02)
    return tree
