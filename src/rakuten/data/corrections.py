"""People's corrections of labels, as `rakuten review export` writes them, applied to the train rows.

A correction replaces the label of a train row, takes the row out (no code fits it), or adds a product that was not
among the train rows. A row whose label is neither the old nor the new one was changed since the decision: it stays.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rakuten.data.schema import INDEX, INTEGER_PATTERN, X_COLUMNS, normalise_ids
from rakuten.data.tables import read_raw
from rakuten.errors import UserError

CORRECTIONS_FILE = "corrections.csv"
KEYS = ["productid", "imageid"]
COLUMNS = (*KEYS, "old_prdtypecode", "prdtypecode", "decisions", "decided_at", "designation", "description")

# What became of a correction.
REPLACED, REMOVED, ADDED = "label replaced", "row removed", "row added"
APPLIED_BEFORE = "the row has this label already"
CHANGED_SINCE = "the row has another label than the one that was corrected"
GONE = "there is no such row"
OUTCOME_COLUMNS = (INDEX, *KEYS, "old_prdtypecode", "prdtypecode", "decisions", "outcome")


@dataclass
class Corrections:
    """The corrections of a file, and what became of those that were applied."""

    table: pd.DataFrame  # COLUMNS, all as text, one row for each product
    outcomes: list[pd.DataFrame] = field(default_factory=list)  # OUTCOME_COLUMNS, chunk by chunk

    @classmethod
    def read(cls, folder: Path) -> "Corrections":
        """The corrections in CORRECTIONS_FILE of a folder; none without such a file.

        Raises:
            UserError: the file cannot be read, an id or a code is no integer, or a product is there twice.
        """
        path = folder / CORRECTIONS_FILE
        if not path.is_file():
            return cls(pd.DataFrame(columns=list(COLUMNS), dtype="str"))
        table = normalise_ids(read_raw(path, COLUMNS))
        codes = table[["old_prdtypecode", "prdtypecode"]]
        for name, values in {**table[KEYS], **codes.replace("", "0")}.items():
            wrong = table.loc[~values.str.fullmatch(INTEGER_PATTERN)]
            if len(wrong):
                raise UserError(f"{path}: line {wrong['line'].iloc[0]}: {name} is no integer: {wrong[name].iloc[0]!r}")
        twice = table[table.duplicated(KEYS)]
        if len(twice):
            ids = " and ".join(f"{name} {twice[name].iloc[0]}" for name in KEYS)
            raise UserError(f"{path}: line {twice['line'].iloc[0]}: {ids} are there already: one correction a product")
        return cls(table[list(COLUMNS)])

    def apply(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """The train rows of a chunk with their corrected labels, without those that no code fits.

        Args:
            chunk: X_train.csv joined with its labels, see `RawFiles.chunks`.
        """
        if self.table.empty:
            return chunk
        names = ["old_prdtypecode", "prdtypecode", "decisions"]
        found = chunk[[INDEX, *KEYS]].merge(self.table[[*KEYS, *names]], on=KEYS, how="left")
        found.index = chunk.index
        is_corrected, label = found["decisions"].notna(), chunk["prdtypecode"]
        outcome = pd.Series(CHANGED_SINCE, chunk.index, dtype="str")
        outcome[(found["old_prdtypecode"] == label) & (found["prdtypecode"] != "")] = REPLACED
        outcome[(found["old_prdtypecode"] == label) & (found["prdtypecode"] == "")] = REMOVED
        outcome[found["prdtypecode"] == label] = APPLIED_BEFORE
        self.outcomes.append(found[is_corrected].assign(outcome=outcome[is_corrected]))
        replaced, removed = is_corrected & (outcome == REPLACED), is_corrected & (outcome == REMOVED)
        return chunk.assign(prdtypecode=label.mask(replaced, found["prdtypecode"]))[~removed]

    def added_rows(self, first_index: int) -> pd.DataFrame:
        """The corrected products that were not among the train rows, as rows of X_train.csv with their label.

        Call it once, after `apply` has seen every train row.

        Args:
            first_index: the index of the first of them.
        """
        seen = self._seen()
        is_new = pd.Series([pair not in seen for pair in self._pairs(self.table)], self.table.index, dtype=bool)
        has_label = self.table["prdtypecode"] != ""
        is_added = is_new & has_label & (self.table["old_prdtypecode"] == "")
        added = self.table[is_added]
        index = [str(first_index + number) for number in range(len(added))]
        rows = added.assign(**{INDEX: index})
        self.outcomes.append(rows.assign(outcome=ADDED))
        gone = self.table[is_new & ~is_added & (self.table["old_prdtypecode"] != "")]
        self.outcomes.append(gone.assign(**{INDEX: "", "outcome": GONE}))
        return rows[[*X_COLUMNS, "prdtypecode"]].reset_index(drop=True)

    def outcome_table(self) -> pd.DataFrame:
        """OUTCOME_COLUMNS of every correction of which something became: the way from a row back to its decisions."""
        empty = pd.DataFrame(columns=list(OUTCOME_COLUMNS), dtype="str")
        return pd.concat([empty, *self.outcomes], ignore_index=True)[list(OUTCOME_COLUMNS)]

    def counts(self) -> dict[str, int]:
        """The number of corrections by outcome."""
        return dict(sorted(Counter(self.outcome_table()["outcome"]).items()))

    def _seen(self) -> set[tuple[str, str]]:
        return {pair for table in self.outcomes for pair in self._pairs(table)}

    @staticmethod
    def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
        return list(zip(table["productid"], table["imageid"], strict=True))
