"""People's corrections of labels, as `rakuten review export` writes them, applied to the train rows.

A correction replaces the label of a train row, takes the row out (no code fits it), or adds a product that was not
among the train rows. A row whose label is neither the old nor the new one was changed since the decision: it stays.

A code that the taxonomy does not have is a proposal. It becomes a class once enough products have it; until then they
are kept out: their old label is known to be wrong, and the new one has too few products to be learnt.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rakuten.data.schema import INDEX, INTEGER_PATTERN, X_COLUMNS, normalise_ids
from rakuten.data.tables import read_raw
from rakuten.data.taxonomy import Taxonomy
from rakuten.errors import UserError

CORRECTIONS_FILE = "corrections.csv"
KEYS = ["productid", "imageid"]
COLUMNS = (*KEYS, "old_prdtypecode", "prdtypecode", "decisions", "decided_at", "designation", "description")

# What became of a correction.
REPLACED, REMOVED, ADDED = "label replaced", "row removed", "row added"
PROPOSED = "the code has too few products yet"
APPLIED = (REPLACED, REMOVED, ADDED, PROPOSED)  # as decided
APPLIED_BEFORE = "the row has this label already"
CHANGED_SINCE = "the row has another label than the one that was corrected"
GONE = "there is no such row"
OUTCOME_COLUMNS = (INDEX, *KEYS, "old_prdtypecode", "prdtypecode", "decisions", "outcome")


@dataclass
class Corrections:
    """The corrections of a file, and what became of those that were applied."""

    table: pd.DataFrame  # COLUMNS, all as text, one row for each product; merged codes are followed
    proposed: Mapping[str, int] = field(default_factory=dict)  # code that the taxonomy does not have -> its products
    min_products: int = 1  # of a proposed code, from which it is a class
    merged: Mapping[str, int] = field(default_factory=dict)  # merged code -> its corrections
    outcomes: list[pd.DataFrame] = field(default_factory=list)  # OUTCOME_COLUMNS, chunk by chunk
    _none: list[pd.DataFrame] = field(default_factory=list)  # X_COLUMNS of products that no code fits

    @classmethod
    def read(cls, folder: Path, taxonomy: Taxonomy, min_products: int = 1) -> "Corrections":
        """The corrections in CORRECTIONS_FILE of a folder; none without such a file.

        Args:
            min_products: products that a code which the taxonomy does not have needs to become a class.

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
        is_merged = table["prdtypecode"].map(taxonomy.follow) != table["prdtypecode"]
        merged = dict(sorted(Counter(table.loc[is_merged, "prdtypecode"]).items()))
        names = ["old_prdtypecode", "prdtypecode"]
        table = table.assign(**{name: table[name].map(taxonomy.follow).astype("str") for name in names})
        known = {"", *map(str, taxonomy.codes)}
        proposed = Counter(code for code in table["prdtypecode"] if code not in known)
        return cls(table[list(COLUMNS)], dict(sorted(proposed.items())), min_products, merged)

    @property
    def new_codes(self) -> frozenset[int]:
        """The proposed codes that are classes: enough products have them."""
        return frozenset(int(code) for code, n_products in self.proposed.items() if n_products >= self.min_products)

    def _is_pending(self, codes: pd.Series) -> pd.Series:
        """Boolean per code: it is proposed and has too few products."""
        return codes.isin([code for code, n_products in self.proposed.items() if n_products < self.min_products])

    def apply(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """The train rows of a chunk with their corrected labels, without those that no code, or no class yet, fits.

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
        outcome[self._is_pending(found["prdtypecode"]) & (outcome != CHANGED_SINCE)] = PROPOSED
        self.outcomes.append(found[is_corrected].assign(outcome=outcome[is_corrected]))
        replaced, removed = is_corrected & (outcome == REPLACED), is_corrected & outcome.isin([REMOVED, PROPOSED])
        self._none.append(chunk.loc[is_corrected & (outcome == REMOVED), list(X_COLUMNS)])
        return chunk.assign(prdtypecode=label.mask(replaced, found["prdtypecode"]))[~removed]

    def added_rows(self, first_index: int) -> pd.DataFrame:
        """The corrected products that were not among the train rows, as rows of X_train.csv with their label.

        Call it once, after `apply` has seen every train row.

        Args:
            first_index: the index of the first of them.
        """
        seen = self._seen()
        is_new = pd.Series([pair not in seen for pair in self._pairs(self.table)], self.table.index, dtype=bool)
        is_first_answer = is_new & (self.table["old_prdtypecode"] == "")
        has_label = self.table["prdtypecode"] != ""
        self._none.append(self.table[is_first_answer & ~has_label].assign(**{INDEX: ""}))
        is_labelled, is_pending = is_first_answer & has_label, self._is_pending(self.table["prdtypecode"])
        added = self.table[is_labelled & ~is_pending]
        index = [str(first_index + number) for number in range(len(added))]
        rows = added.assign(**{INDEX: index})
        self.outcomes.append(rows.assign(outcome=ADDED))
        self.outcomes.append(self.table[is_labelled & is_pending].assign(**{INDEX: "", "outcome": PROPOSED}))
        gone = self.table[is_new & (self.table["old_prdtypecode"] != "")]
        self.outcomes.append(gone.assign(**{INDEX: "", "outcome": GONE}))
        return rows[[*X_COLUMNS, "prdtypecode"]].reset_index(drop=True)

    def none_of_the_codes(self) -> pd.DataFrame:
        """X_COLUMNS of the products that no code fits: rows that were removed, and others that people have decided.

        Call it after `added_rows`. The index of a product that was not among the train rows is empty.
        """
        empty = pd.DataFrame(columns=list(X_COLUMNS), dtype="str")
        return pd.concat([empty, *self._none], ignore_index=True)[list(X_COLUMNS)]

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
