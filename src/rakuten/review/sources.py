"""Products for the queue: from a scored file, and from the labels that are probably wrong. Pure functions of tables."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rakuten.data.schema import image_name
from rakuten.data.taxonomy import Taxonomy
from rakuten.errors import UserError
from rakuten.features.near_duplicates import title_keys
from rakuten.features.style import style_tokens, title_language
from rakuten.features.text import clean_cased_text
from rakuten.models.classifier import CHOICE_COLUMNS
from rakuten.review.audit import Top, draw_audit, shown_tops, uncertainty_of
from rakuten.review.order import review_priority
from rakuten.review.tables import Source
from rakuten.types import BoolArray, FloatArray, HashArray

IDS = ["productid", "imageid"]


def from_scored(
    scored: pd.DataFrame, images: Mapping[str, Path], audit_share: float, seed: int, taxonomy: Taxonomy
) -> list[dict[str, Any]]:
    """The products of a scored file that need review, and a random sample of the others.

    Args:
        scored: designation, description, CHOICE_COLUMNS, needs_review, model_version; with or without productid and
            imageid, is_novel, and the choices after the first. Files of before have three.
        images: file name -> path of the pictures that are there.
        audit_share: share of the sample among the products that are shown.
        seed: of the draw.
        taxonomy: codes that were merged since the file was scored are followed.

    Raises:
        UserError: a code or a confidence is not a number.
    """
    needs_review = scored["needs_review"].to_numpy(dtype=bool)
    is_audit = draw_audit(needs_review, audit_share, seed)
    shown = needs_review | is_audit
    table, is_audit = scored[shown].reset_index(drop=True), is_audit[shown]
    top = [_followed(each, taxonomy) for each in _top(table)]
    return _rows(
        table.assign(
            source=Source.FILE.value,
            prdtypecode=None,
            predicted=[each[0][0] for each in top],
            confidence=[each[0][1] for each in top],
            is_audit=is_audit,
        ),
        top,
        images,
        shown_tops(top, is_audit, seed),
    )


def _is_novel(scored: pd.DataFrame) -> BoolArray:
    """For each product, whether the model called it novel; none in a file that a model of before scored."""
    return scored.get("is_novel", pd.Series(False, scored.index)).fillna(False).to_numpy(dtype=bool)


def from_label_issues(
    issues: pd.DataFrame, images: Mapping[str, Path], model_version: str, taxonomy: Taxonomy
) -> list[dict[str, Any]]:
    """The train products whose label is doubted.

    Args:
        issues: label_issues.csv, with the designation and description of the products as they came.
        model_version: of the model that doubts the labels.
        taxonomy: codes that were merged since are followed; a label that became the suggested one is not doubted.
    """
    names = ["suggested_prdtypecode", "prdtypecode"]
    issues = issues.assign(**{name: issues[name].astype(int).map(taxonomy.follow_code) for name in names})
    issues = issues[issues["suggested_prdtypecode"] != issues["prdtypecode"]].reset_index(drop=True)
    columns = ["suggested_prdtypecode", "suggested_probability", "prdtypecode", "probability"]
    top: list[Top] = [
        [[int(code), float(proba)], [int(given), float(given_proba)]]
        for code, proba, given, given_proba in issues[columns].itertuples(index=False)
    ]
    table = issues.assign(
        source=Source.LABEL_ISSUES.value,
        predicted=issues["suggested_prdtypecode"].astype(int),
        confidence=issues["suggested_probability"].astype(float),
        model_version=model_version,
        is_audit=False,
    )
    # The less probable the label and the surer the model of another, the more a decision teaches.
    uncertainty = (1 - issues["probability"]).to_numpy(dtype=float)
    return _rows(table.reset_index(drop=True), top, images, top, uncertainty)


def from_api(
    answered: pd.DataFrame, tops: list[Top], shown: list[Top], pictures: Sequence[str]
) -> list[dict[str, Any]]:
    """The products that the API has answered; the same text and picture again is the same product.

    Args:
        answered: designation, description, predicted, confidence, model_version, prediction_id, is_audit.
        tops: the likeliest codes of each product with their confidences.
        shown: the same with the confidences that people see.
        pictures: what names each product's picture; "" for none.
    """
    rows = _rows(answered.assign(source=Source.API.value, prdtypecode=None), tops, {}, shown)
    for row, picture in zip(rows, pictures, strict=True):
        text = f"{row['designation']}\0{row['description']}\0{picture}"
        row["key"] = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
    return rows


def _rows(
    table: pd.DataFrame,
    tops: list[Top],
    images: Mapping[str, Path],
    shown: list[Top],
    uncertainty: FloatArray | None = None,
) -> list[dict[str, Any]]:
    """The columns of ReviewProduct that `ReviewDesk.add` takes; the uncertainty is by default that of what is shown."""
    if uncertainty is None:
        uncertainty = np.array([uncertainty_of(top) for top in shown], dtype=float)
    titles = table["designation"].fillna("").astype(str)
    descriptions = table.reindex(columns=["description"])["description"].fillna("").astype(str)
    ids = table.reindex(columns=IDS).astype("Int64")
    group = title_groups(titles)
    # A decision about what the model does not know teaches most.
    priority = review_priority(np.where(_is_novel(table), 1.0, uncertainty), group)
    rows = []
    for number, row in enumerate(table.to_dict("records")):
        productid, imageid = (None if pd.isna(value) else int(value) for value in ids.iloc[number])
        has_ids = productid is not None and imageid is not None
        name = image_name(str(imageid), str(productid)) if has_ids else ""
        text = f"{titles[number]}\0{descriptions[number]}"
        rows.append(
            {
                "source": row["source"],
                "key": f"{imageid}_{productid}"
                if has_ids
                else f"{pd.util.hash_array(np.array([text], object))[0]:016x}",
                "productid": productid,
                "imageid": imageid,
                "designation": titles[number],
                "description": descriptions[number],
                "image": str(images[name]) if name in images else None,
                "language": title_language(style_tokens(clean_cased_text(titles[number]), "", "")),
                "prdtypecode": None if row["prdtypecode"] is None else int(row["prdtypecode"]),
                "predicted": int(row["predicted"]),
                "confidence": float(row["confidence"]),
                "top": tops[number],
                "model_version": str(row["model_version"]),
                "prediction_id": row.get("prediction_id"),
                "is_audit": bool(row["is_audit"]),
                "is_novel": bool(row.get("is_novel", False)),
                "shown_top": shown[number],
                "shown_confidence": float(shown[number][0][1]),
                "group": "" if group[number] == 0 else f"{group[number]:016x}",
                "priority": float(priority[number]),
            }
        )
    return rows


def title_groups(titles: pd.Series) -> HashArray:
    """A number for each group of titles that are the same or differ by numbers or a word; 0 for a title of its own."""
    rows, keys = title_keys(titles)
    same_rows = np.arange(len(titles))
    exact = pd.util.hash_array(titles.str.casefold().to_numpy(dtype=object), categorize=False)
    rows, keys = np.concatenate([rows, same_rows]), np.concatenate([keys, exact])
    _, column = np.unique(keys, return_inverse=True)
    n_rows, n_keys = len(titles), int(column.max()) + 1 if len(column) else 0
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, n_rows + column)), (n_rows + n_keys,) * 2)
    component = connected_components(graph, directed=False)[1][:n_rows]
    size = np.bincount(component, minlength=int(component.max()) + 1 if n_rows else 0)
    return np.where(size[component] > 1, component + 1, 0).astype(np.uint64)


def _followed(top: Top, taxonomy: Taxonomy) -> Top:
    """The likeliest codes as they are today: one that was merged gives its confidence to the other."""
    if all(taxonomy.follow_code(int(code)) == code for code, _ in top):
        return top
    confidences: dict[int, float] = {}
    for code, confidence in top:
        today = taxonomy.follow_code(int(code))
        confidences[today] = confidences.get(today, 0.0) + confidence
    return [[code, confidence] for code, confidence in sorted(confidences.items(), key=lambda item: -item[1])]


def _top(scored: pd.DataFrame) -> list[Top]:
    """For each row of a scored file its likeliest codes with their confidences, as many as it has."""
    columns = [names for names in CHOICE_COLUMNS if set(names) <= set(scored.columns)]
    choices = [(_numbers(scored[code]), _numbers(scored[confidence])) for code, confidence in columns]
    for name, numbers in zip(CHOICE_COLUMNS[0], choices[0], strict=True):
        if np.isnan(numbers).any():
            raise UserError(f"column '{name}' is empty in some rows; score the file again")
    return [
        [[int(code), float(confidence)] for code, confidence in row if not np.isnan([code, confidence]).any()]
        for row in zip(*(zip(*pair, strict=True) for pair in choices), strict=True)
    ]


def _numbers(column: pd.Series) -> FloatArray:
    """A column of a CSV or Parquet file as numbers; NaN where it is empty."""
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() & column.notna() & (column.astype(str) != "")
    if wrong.any():
        raise UserError(f"column '{column.name}': '{column[wrong].iloc[0]}' is not a number; score the file again")
    return numbers.to_numpy(dtype=float, na_value=np.nan)
