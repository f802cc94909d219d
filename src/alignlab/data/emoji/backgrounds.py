"""Backgrounds with a named colour: flat colour plus a gradient and a texture."""

import functools

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (196, 36, 44),
    "orange": (244, 132, 32),
    "yellow": (250, 226, 84),
    "green": (38, 140, 66),
    "turquoise": (64, 200, 190),
    "blue": (40, 92, 200),
    "purple": (122, 66, 168),
    "pink": (250, 168, 204),
    "brown": (122, 80, 48),
    "black": (24, 24, 28),
    "grey": (136, 138, 142),
    "white": (242, 242, 244),
}
COLOUR_NAMES = tuple(COLOURS)
NUM_TEXTURES = 64
_JITTER = 14  # largest change of a colour channel between two backgrounds of one name
_GRADIENT = 20  # largest change along a gradient
_TEXTURE = 9  # amplitude of patterns and noise


@functools.lru_cache(maxsize=4)
def textures(height: int, width: int) -> np.ndarray:
    """Brightness patterns (NUM_TEXTURES, H, W, 1) int16, equal for every process: gradients with noise, blobs,
    stripes, checks, dots.
    """
    rng = np.random.Generator(np.random.PCG64(20_210_716))
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    tiles = []
    for index in range(NUM_TEXTURES):
        angle, frequency, phase = rng.uniform(0, 2 * np.pi), rng.uniform(5, 11), rng.uniform(0, 2 * np.pi)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        pattern = (
            rng.uniform(-1, 1, (height, width)),  # noise
            sum(np.sin(k * frequency / 4 * along + phase) * np.cos((4 - k) * frequency / 4 * across) for k in (1, 2, 3))
            / 2,  # blobs
            np.sign(np.sin(frequency * along + phase)),  # stripes
            np.sign(np.sin(frequency * x + phase) * np.sin(frequency * y + phase)),  # checks
            2.0 * (np.sin(frequency * along) * np.sin(frequency * across) > 0.6) - 0.5,  # dots
            np.zeros_like(x),  # plain
        )[index % 6]
        direction = rng.uniform(0, 2 * np.pi)
        gradient = rng.uniform(0.2, 1) * (np.cos(direction) * x + np.sin(direction) * y) / np.sqrt(2)
        tiles.append(_GRADIENT * gradient + _TEXTURE * rng.uniform(0.4, 1) * pattern)
    return np.rint(np.stack(tiles)).astype(np.int16)[..., None]


def paint_background(canvas: np.ndarray, colour: str, texture: int, shade: tuple[float, float, float]) -> None:
    """Fills a canvas (H, W, 3) uint8; `texture` < NUM_TEXTURES, `shade` in [-1, 1] moves the three channels."""
    tile = textures(*canvas.shape[:2])[texture]
    base = [round(value + _JITTER * move) for value, move in zip(COLOURS[colour], shade, strict=True)]
    canvas[...] = np.clip(tile + np.array(base, dtype=np.int16), 0, 255)
