"""Pictures of training products, which an explanation names as the most similar ones.

Only what the model that answers names itself can be asked for, by its two numbers: no part of a path comes from a
request.
"""

import asyncio
from pathlib import Path

from rakuten.data.schema import image_name
from rakuten.models.neighbours import ImageNeighbours
from rakuten.serving.problems import Problem

FOLDERS = ("image_train", "")  # below the folder of images; the challenge's archive has the first
JPEG_START = b"\xff\xd8\xff"
MAX_BYTES = 10_000_000


class TrainingPictures:
    """The pictures below a folder, by imageid and productid.

    Args:
        folder: of the raw images; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, imageid: int, productid: int) -> Path | None:
        """The file of a product's picture; None if it is not here."""
        name = image_name(str(int(imageid)), str(int(productid)))
        paths = (self._folder / folder / name for folder in FOLDERS)
        return next((path for path in paths if path.is_file()), None)

    async def read(self, neighbours: ImageNeighbours | None, imageid: int, productid: int) -> bytes:
        """The JPEG file of a training product's picture.

        Args:
            neighbours: of the model that answers; a picture that is not among them is not read.

        Raises:
            Problem: the model does not know the picture, or there is no such JPEG file of at most MAX_BYTES.
        """
        if neighbours is not None and _knows(neighbours, imageid, productid):
            content = await asyncio.to_thread(self._read, imageid, productid)
            if content is not None:
                return content
        raise Problem("not_found", "no such training picture")

    def _read(self, imageid: int, productid: int) -> bytes | None:
        path = self.find(imageid, productid)
        if path is None:
            return None
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        return content if content.startswith(JPEG_START) and len(content) <= MAX_BYTES else None


def _knows(neighbours: ImageNeighbours, imageid: int, productid: int) -> bool:
    return bool(((neighbours.imageid == imageid) & (neighbours.productid == productid)).any())
