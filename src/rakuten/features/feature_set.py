"""Train products of any number: texts read a part at a time, of each row only a few numbers held."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rakuten.evaluation import metrics
from rakuten.evaluation.metrics import Flags, Ints
from rakuten.features.embedding import Rows
from rakuten.features.style import ENGLISH_NAME, FRENCH_NAME, GERMAN_NAME, UNKNOWN, language
from rakuten.models.linear import Numbers

LENGTHS, FLAGS = ("designation_len", "description_len"), ("has_description", "has_image")
NUMBERS = (*LENGTHS, *FLAGS, "prdtypecode")  # columns of the features that are integers
LANGUAGES = pd.CategoricalDtype([ENGLISH_NAME, FRENCH_NAME, GERMAN_NAME, UNKNOWN])


class Catalogue(NamedTuple):
    """Products as the features stage describes them; row i of each part belongs to product i."""

    parts: Rows[pd.DataFrame]  # the features table, in order
    facts: pd.DataFrame  # ids, lengths, flags and prdtypecode of every row, its group, has_text and language
    texts: Numbers | None = None  # embeddings; a row of NaN where there is no text; None without an encoder
    pictures: Numbers | None = None  # likewise

    @classmethod
    def of(
        cls, parts: Rows[pd.DataFrame], texts: Numbers | None = None, pictures: Numbers | None = None
    ) -> "Catalogue":
        return cls(parts, pd.concat(map(_facts, parts), ignore_index=True), texts, pictures)

    def codes(self) -> Ints:
        codes: Ints = self.facts["prdtypecode"].to_numpy(dtype=np.int64)
        return codes

    def has_text(self) -> Flags:
        flags: Flags = self.facts["has_text"].to_numpy()
        return flags

    def rows(self, wanted: Ints, columns: Sequence[str]) -> pd.DataFrame:
        """Some rows of the table, in its order."""
        chosen = np.zeros(len(self.facts), dtype=bool)
        chosen[wanted] = True
        found, start = [], 0
        for part in self.parts:
            found.append(part.loc[chosen[start : start + len(part)], list(columns)])
            start += len(part)
        return pd.concat(found, ignore_index=True)


def _facts(part: pd.DataFrame) -> pd.DataFrame:
    has_text: Any = (part["designation_clean"] != "") | (part["description_clean"] != "")
    small = dict.fromkeys(LENGTHS, "int32") | dict.fromkeys(FLAGS, "int8")
    ids = part[["productid", "imageid", "prdtypecode"]].astype("int64")
    spoken = pd.Series([language(traits) for traits in part["style"]], part.index, dtype=LANGUAGES)
    return ids.join(part[[*LENGTHS, *FLAGS]].astype(small)).assign(
        has_text=has_text, group=metrics.groups(part), language=spoken
    )
