"""Imagined seismic sections with salt: what synthetic tiles are cut from.

Sediment is a series of reflectors (sparse reflectivity convolved with a Ricker wavelet) that folds bend, salt drags
upward and faults cut. Salt is diapirs, pillows and sheets with smooth or rugged outlines: no layers, a weaker chaotic
texture of its own, and a boundary that reflects, brightest where it faces upward. The mean grey of salt is that of its
surroundings: texture and boundary give it away, brightness does not.
"""

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d

UNIT = 101  # pixels: the scale of folds, bodies and textures, whatever size of tile is cut later
SPREAD = 4.44  # a Ricker wavelet's dominant wavelength over its width sigma: 2 pi / sqrt(2)


class Section(NamedTuple):
    image: np.ndarray  # (height, width) uint8
    salt: np.ndarray  # (height, width) uint8, 0 or 1


def section(rng: Generator, height: int, width: int, water: bool = False) -> Section:
    """A section of height x width pixels; with `water`, its top is one grey value down to the sea floor."""
    wavelength = np.exp(rng.uniform(np.log(7.0), np.log(30.0)))  # pixels, vertical: the section's zoom
    salt = bodies(rng, height, width)
    inside = depth_below_boundary(salt)
    amplitude = sediment(rng, layer_depth(rng, salt), wavelength)
    weight = 1 / (1 + np.exp(-np.clip(inside / 1.2, -30, 30)))
    amplitude += weight * (salt_texture(rng, salt.shape, wavelength) - amplitude)
    amplitude += boundary(rng, salt, inside, wavelength)
    amplitude *= np.exp(rng.uniform(0.15, 0.45) * smooth_field(rng, salt.shape, 1.5 * UNIT))  # uneven gain
    amplitude += rng.uniform(0.02, 0.08) * rng.standard_normal(salt.shape, np.float32)
    if water:
        salt = flood(rng, amplitude, salt, wavelength)
    return Section(to_grey(rng, amplitude), salt)


def bodies(rng: Generator, height: int, width: int) -> np.ndarray:
    """Salt, (height, width) uint8: side by side, about one body in 2.3 units, none of them touching the top."""
    salt = np.zeros((height, width), np.uint8)
    edges = np.linspace(0, width, max(1, round(width / (2.3 * UNIT))) + 1)
    for left, right in pairwise(edges):
        outline = sheet if rng.random() < 0.3 else diapir
        cv2.fillPoly(salt, [np.round(outline(rng, left, right, height)).astype(np.int32)], 1)
    return salt


def diapir(rng: Generator, left: float, right: float, height: int) -> np.ndarray:
    """Outline (points, 2) x, y of a dome on a stem down to the section's floor, vertical from some depth on."""
    top = rng.uniform(0.12, 0.5) * height
    depth = np.arange(0, height + 2 - top, dtype=np.float32)
    stem, bulb = rng.uniform(0.05, 0.22) * (right - left), rng.uniform(0.08, 0.28) * (right - left)
    rise = rng.uniform(0.3, 1.2) * UNIT  # how fast the dome reaches its full width
    half = stem * np.sqrt(1 - np.exp(-depth / rise))
    half += bulb * np.exp(-(((depth - 1.2 * rise) / rise) ** 2)) * np.minimum(1, depth / (0.6 * rise)) ** 0.5
    half += rng.choice([0, 0, 0, 0.1, 0.2]) * depth  # some widen downward
    middle = rng.uniform(0.35, 0.65) * (right - left) + left + wander(rng, len(depth), 1.5 * UNIT, 0.25 * UNIT)
    ragged = rng.choice([0.5, 1.5, 4, 7])
    sides = [middle + side * half + roughness(rng, len(depth), ragged) for side in (-1, 1)]
    upright = int(rng.uniform(0.45, 1.3) * len(depth))  # below it flanks are straight down, as interpreters draw them
    for side in sides:
        side[upright:] = side[min(upright, len(side) - 1)]
    x = np.concatenate([sides[0][::-1], sides[1]])
    y = top + np.concatenate([depth[::-1], depth]) + roughness(rng, len(x), 0.5 * ragged)
    return np.stack([x, y], 1)


def sheet(rng: Generator, left: float, right: float, height: int) -> np.ndarray:
    """Outline (points, 2) x, y of a pillow or sheet: a rugged top over a smooth base, thinning out to both ends."""
    x = np.arange(left - 0.3 * UNIT, right + 0.3 * UNIT)
    along = np.linspace(-1, 1, len(x))
    thickness = rng.uniform(0.3, 1.3) * UNIT * np.sqrt(1 - along**2 + 1e-6)
    middle = rng.uniform(0.35, 0.85) * height + wander(rng, len(x), UNIT, 0.3 * UNIT)
    top = middle - rng.uniform(0.4, 0.8) * thickness + roughness(rng, len(x), rng.choice([1, 3, 6]))
    base = np.maximum(top + 2, middle + 0.4 * thickness + wander(rng, len(x), 0.6 * UNIT, 0.08 * UNIT))
    return np.stack([np.concatenate([x, x[::-1]]), np.concatenate([top, base[::-1]])], 1)


def wander(rng: Generator, length: int, scale: float, size: float) -> np.ndarray:
    """A smooth random curve (length,), `size` pixels high at correlation length `scale`."""
    pad = int(3 * scale)
    curve = gaussian_filter1d(rng.standard_normal(length + 2 * pad), scale, mode="wrap", truncate=3)
    return size * (curve / curve.std())[pad : pad + length]


def roughness(rng: Generator, length: int, size: float) -> np.ndarray:
    """Jags (length,) of about `size` pixels at several scales."""
    return wander(rng, length, 25, size) + wander(rng, length, 8, 0.6 * size) + wander(rng, length, 2.5, 0.25 * size)


def layer_depth(rng: Generator, salt: np.ndarray) -> np.ndarray:
    """Depth in pixels, (height, width) float32, at which each pixel's layer was laid down: folds, drag and faults."""
    y, x = np.indices(salt.shape, np.float32, sparse=True)
    depth = y + rng.uniform(0.1, 0.6) * UNIT * smooth_field(rng, salt.shape, rng.uniform(1.5, 4) * UNIT)
    depth += rng.uniform(-0.25, 0.25) * x + rng.uniform(0.3, 3) * smooth_field(rng, salt.shape, 0.3 * UNIT)  # hummocks
    reach = rng.uniform(0.35, 0.8) * UNIT  # how far the salt bends its surroundings
    depth += rng.uniform(0.8, 3.0) * reach * blurred(salt.astype(np.float32), reach)
    for _ in range(rng.poisson(salt.shape[1] / (5 * UNIT))):
        middle, steepness = rng.uniform(0, salt.shape[1]), rng.uniform(-0.8, 0.8)
        beside = x - middle - steepness * (y - rng.uniform(0, salt.shape[0]))  # pixels to the right of the fault
        depth += np.where(beside > 0, rng.uniform(-0.35, 0.35) * UNIT * np.exp(-np.abs(beside) / (2 * UNIT)), 0)
    return depth.astype(np.float32)


def sediment(rng: Generator, depth: np.ndarray, wavelength: float) -> np.ndarray:
    """Amplitude (height, width) of the layers, spread 1, with noise of the same band across them."""
    width = depth.shape[1]
    shape = (int(depth.max() - depth.min()) + 8, width)
    lateral = rng.uniform(0.3, 1.5) * UNIT  # how far a reflector keeps its strength
    steady = rng.standard_normal((shape[0], 1)) ** 3 * rng.uniform(0.1, 0.6)  # heavy tails: few strong reflectors
    series = steady + smooth_columns(rng, shape, lateral)
    series *= np.exp(0.5 * wander(rng, shape[0], 0.5 * UNIT, 1))[:, None]  # quiet and loud packages
    layers = cv2.sepFilter2D(series.astype(np.float32), -1, np.ones(1), ricker(wavelength))
    x = np.broadcast_to(np.arange(width, dtype=np.float32), depth.shape)
    layers = cv2.remap(layers, x, depth - depth.min() + 4, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    length = rng.uniform(0.3, 1.2) * wavelength
    noise = sum(texture(rng, depth.shape, wavelength, length, angle) for angle in rng.uniform(-50, 50, 2))
    share = rng.uniform(0.1, 1.0) * np.exp(0.5 * smooth_field(rng, depth.shape, UNIT))
    mixed = layers / layers.std() + share * noise / noise.std()
    return mixed / mixed.std()


def salt_texture(rng: Generator, shape: tuple[int, int], wavelength: float) -> np.ndarray:
    """Amplitude inside salt: weak, steep or without direction, longer waves than the layers'."""
    longer = wavelength * rng.uniform(1, 2.2)
    streaks = texture(rng, shape, longer, longer * rng.uniform(0.3, 1.3), rng.choice([-1, 1]) * rng.uniform(40, 85))
    chaos = texture(rng, shape, wavelength * rng.uniform(0.8, 1.6), 0.35 * wavelength, 0)
    mixed = streaks * smooth_field(rng, shape, UNIT) + chaos * rng.uniform(0.3, 1.2)
    # A level that drifts through zero: the same one everywhere would let a threshold find this section's salt.
    return rng.uniform(0.1, 0.35) * mixed + np.float32(0.25) * smooth_field(rng, shape, UNIT)


def boundary(rng: Generator, salt: np.ndarray, inside: np.ndarray, wavelength: float) -> np.ndarray:
    """Amplitude of the reflection at the salt's outline: bright where it faces up, faint and broken elsewhere."""
    soft = blurred(salt.astype(np.float32), 6)
    slope_y, slope_x = cv2.Sobel(soft, -1, 0, 1), cv2.Sobel(soft, -1, 1, 0)
    upward = slope_y / (np.hypot(slope_x, slope_y) + 1e-6)
    top, flank, base = rng.uniform(1.0, 5.0), rng.uniform(0.1, 2.0), rng.uniform(-2, 0.2)
    strength = flank + np.where(upward > 0, (top - flank) * upward, (flank - base) * upward)
    strength *= np.clip(1 + 0.5 * smooth_field(rng, salt.shape, 0.5 * UNIT), 0.1, 2)
    sigma = min(wavelength, 14) / SPREAD
    scaled = (np.clip(inside, -60, 60) / sigma) ** 2
    return (strength * (1 - scaled) * np.exp(-scaled / 2)).astype(np.float32)


def flood(rng: Generator, amplitude: np.ndarray, salt: np.ndarray, wavelength: float) -> np.ndarray:
    """Write water (one value) and the sea floor's reflection into `amplitude`; return the salt below it."""
    height, width = salt.shape
    floor = rng.uniform(0.8, 1.3) * UNIT + wander(rng, width, 1.5 * UNIT, 0.2 * UNIT)
    below = np.arange(height, dtype=np.float32)[:, None] - floor.astype(np.float32)
    scaled = ((below - 4) / (0.7 * wavelength / SPREAD)) ** 2
    amplitude += rng.uniform(2, 5) * (1 - scaled) * np.exp(-scaled / 2)
    amplitude[below < 0] = rng.uniform(-2, 0)
    return np.where(below < 0, 0, salt).astype(np.uint8)


def to_grey(rng: Generator, amplitude: np.ndarray) -> np.ndarray:
    """8-bit image around a mid grey; the strongest reflections clip, as in the competition's tiles."""
    middle, contrast = rng.uniform(95, 150), rng.uniform(22, 50)
    return np.clip(np.round(middle + contrast * amplitude), 0, 255).astype(np.uint8)


def depth_below_boundary(salt: np.ndarray) -> np.ndarray:
    """Pixels from the outline, positive inside salt and negative outside."""
    edge = cv2.distanceTransform(salt, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - salt, cv2.DIST_L2, 5)
    return edge - np.sign(edge) / 2


def ricker(wavelength: float) -> np.ndarray:
    """Ricker wavelet whose dominant wavelength is `wavelength` pixels."""
    sigma = wavelength / SPREAD
    offset = np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2) / sigma
    return (1 - offset**2) * np.exp(-(offset**2) / 2)


def texture(rng: Generator, shape: tuple[int, int], wavelength: float, length: float, angle: float) -> np.ndarray:
    """Band-limited noise, spread 1: waves of `wavelength` across stripes `length` long, `angle` degrees from level."""
    along, across = cv2.getGaussianKernel(2 * int(3 * length) + 1, length), ricker(wavelength)
    noise = rng.standard_normal((shape[0] // 2 + 64, shape[1] // 2 + 64), np.float32)  # repeats, unseen, without a seam
    edge = [len(across) // 2] * 2 + [len(along) // 2] * 2
    noise = cv2.copyMakeBorder(noise, *edge, cv2.BORDER_WRAP)
    noise = cv2.sepFilter2D(noise, -1, along, across)[edge[0] : -edge[1], edge[2] : -edge[3]]
    turn = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), angle, 1)
    y, x = np.indices(shape, np.float32, sparse=True)
    turned = [np.float32(a) * x + np.float32(b) * y + np.float32(c) for a, b, c in turn]
    return cv2.remap(noise / noise.std(), *turned, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def smooth_columns(rng: Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Noise (height, width), independent from row to row and smooth along them, spread 1."""
    step = max(1, int(scale / 4))
    coarse = rng.standard_normal((shape[0], shape[1] // step + 20), np.float32)
    coarse = cv2.GaussianBlur(coarse, (33, 1), 4)
    wide = cv2.resize(coarse / coarse.std(), (coarse.shape[1] * step, shape[0]), interpolation=cv2.INTER_LINEAR)
    return wide[:, : shape[1]]


def smooth_field(rng: Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Smooth noise (height, width) float32, spread 1, correlated over `scale` pixels."""
    step = scale / 3
    size = (int(shape[0] / step) + 8, int(shape[1] / step) + 8)
    coarse = cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), 1.5)
    coarse *= 5.3  # the blur's spread, undone (2 sigma sqrt(pi))
    wide = cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return wide[: shape[0], : shape[1]]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, computed on a smaller image: sigma is several pixels."""
    factor = max(1, int(sigma / 4))
    height, width = image.shape
    small = cv2.resize(image, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
