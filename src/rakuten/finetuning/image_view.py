"""The images of products, and the image encoder that is fine-tuned on them."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.config import PictureFinetuneParams
from rakuten.data.image_decoding import BadImageError
from rakuten.data.images import usable_image_bytes
from rakuten.disk_array import DiskArray, row_chunks
from rakuten.errors import UserError
from rakuten.features.encoders.finetuned import NetworkFolder, save_network
from rakuten.features.encoders.finetuned_image import ImageInput
from rakuten.files import atomic_write, digest
from rakuten.finetuning.export import FLOAT, export_image_network
from rakuten.finetuning.image_bases import load_image_base
from rakuten.finetuning.image_network import ImageExamples, ImageNetwork
from rakuten.finetuning.scoring import score_chunks
from rakuten.finetuning.trainer import Network
from rakuten.types import BoolArray, Float32Array, IntArray

CHUNK_IMAGES = 128  # prepared or scored in one task

Paths = Sequence[Path | None]


class ImageView:
    """See `cross_fit.View`. A context manager, which removes the pixels at its end."""

    name = "picture"

    def __init__(self, paths: Paths, params: PictureFinetuneParams, work: Path) -> None:
        """
        Args:
            paths: the image of each product, None for none.
            work: folder for the pixels of all images: size * size * 3 bytes each.

        Raises:
            UserError: the base cannot be used.
        """
        self.params = params
        self._paths, self._input = paths, ImageInput(params.size)
        self._base_digest = load_image_base(params.base, params.revision, params.size).digest()
        frames = work / "frames.npy"
        self.has_input = write_frames(paths, self._input, frames)
        self._frames, self._frames_digest = frames, digest(frames)
        self.examples = ImageExamples(DiskArray(frames), params.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._frames.unlink(missing_ok=True)

    def key(self) -> str:
        """See `cross_fit.View`."""
        return hashlib.sha256(f"{self._base_digest} {self._frames_digest}".encode()).hexdigest()

    def new_network(self, n_classes: int) -> ImageNetwork:
        """See `cross_fit.View`."""
        base = load_image_base(self.params.base, self.params.revision, self.params.size)
        return ImageNetwork(base, n_classes, self.params.frozen_layers)

    def export(self, network: Network, folder: Path) -> dict[str, Path]:
        """See `cross_fit.View`; floats only, because 8-bit integers slow convolutions down and cost accuracy."""
        graph = folder / f"{FLOAT}.onnx"
        export_image_network(network, self.params.size, graph)
        return {FLOAT: graph}

    def save(self, folder: Path, graph: Path, description: Mapping[str, object]) -> None:
        """See `cross_fit.View`."""
        save_network(folder, graph, self._input, description)

    def score(self, folder: Path, rows: IntArray, description: str) -> Float32Array:
        """See `cross_fit.View`."""
        return score_images(folder, [self._paths[row] for row in rows], description)


def write_frames(paths: Paths, image_input: ImageInput, output: Path) -> BoolArray:
    """Write the pixels of images, so that they are decoded once for all epochs of all networks.

    Args:
        output: a .npy file, rows x (size * size * 3), uint8; zero for a product without an image that can be used.

    Returns:
        Which products have an image that can be used.

    Raises:
        UserError: the file cannot be written.
    """
    width, has_image = image_input.size**2 * 3, np.zeros(len(paths), dtype=bool)
    chunks = [paths[rows] for rows in row_chunks(len(paths), CHUNK_IMAGES)]
    prepared = parallel_map(partial(_prepare_chunk, image_input), chunks, 1, _chunk_label)
    prepared = progress(prepared, len(chunks), f"preparing pictures (chunks of {CHUNK_IMAGES})")
    try:
        with atomic_write(output) as (partial_path,), partial_path.open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), width)}
            np.lib.format.write_array_header_1_0(stream, header)
            for row, image in enumerate(chain.from_iterable(prepared)):
                has_image[row] = image is not None
                stream.write(bytes(width) if image is None else image.tobytes())
    except OSError as error:
        raise UserError(
            f"{output}: the pixels of the pictures cannot be written ({error.strerror}); they take "
            f"{len(paths) * width / 1e6:,.0f} MB: free some space, or lower finetune.picture.size"
        ) from error
    return has_image


def _prepare_chunk(image_input: ImageInput, paths: Paths) -> list[NDArray[np.uint8] | None]:
    return [_prepare(image_input, path) for path in paths]


def _prepare(image_input: ImageInput, path: Path | None) -> NDArray[np.uint8] | None:
    """The pixels of an image, size x size x 3."""
    data = usable_image_bytes(path)
    try:
        return None if data is None else np.ascontiguousarray(image_input.pixels(data).transpose(1, 2, 0))
    except BadImageError:
        return None


def score_images(folder: Path, paths: Paths, description: str) -> Float32Array:
    """The scores of a written network for products, rows x classes, computed in several processes.

    Args:
        paths: the image of each product, None for none.
        description: for the log.
    """
    task = partial(_score_chunk, NetworkFolder.of(folder))
    return score_chunks(task, paths, CHUNK_IMAGES, _chunk_label, description)


def _score_chunk(network: NetworkFolder, paths: Paths) -> Float32Array:
    return network.image().scores(map(usable_image_bytes, paths))


def _chunk_label(paths: Paths) -> str:
    return f"images from {next((path.name for path in paths if path), 'none')}"
