"""The project's own taxonomy, and what is said about a wrong one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rakuten.config import SOURCE, TAXONOMY
from rakuten.data.taxonomy import Names, Taxonomy, current_taxonomy, label_of, taxonomy_file
from rakuten.errors import UserError

HEADER = "prdtypecode,fr,en,parent,merged_into\n"
ROWS = ",livres,books,books,\n10,occasion,second-hand,books,\n20,neufs,new,,\n30,vieux,old,books,10\n"


def read(folder: Path, text: str) -> Taxonomy:
    (folder / "taxonomy.csv").write_text(text, encoding="utf-8")
    return Taxonomy.read(folder / "taxonomy.csv")


def test_the_challenges_codes_have_names_and_parents() -> None:
    taxonomy = current_taxonomy()
    assert len(taxonomy.codes) == 27
    assert set(taxonomy.parent_of) == taxonomy.codes
    assert (label_of(2583), label_of(2583, "en")) == ("piscine et spa", "pools and spas")
    assert taxonomy.parent_label(taxonomy.parent_of[2583], "en") == "garden and pool"
    assert not taxonomy.merged_into


def test_names_parents_and_mergers_are_read(tmp_path: Path) -> None:
    taxonomy = read(tmp_path, HEADER + ROWS)
    assert taxonomy.codes == {10, 20}
    assert taxonomy.names == {10: Names("occasion", "second-hand"), 20: ("neufs", "new"), 30: ("vieux", "old")}
    assert taxonomy.parents == {"books": ("livres", "books")}
    assert taxonomy.parent_of == {10: "books", 30: "books"}
    assert taxonomy.merged_into == {30: 10}
    assert taxonomy.label(30) == "vieux"  # for a model that was trained before the merger
    assert (taxonomy.label(1), taxonomy.parent_label("toys")) == ("", "")


def test_it_may_be_as_excel_saves_it(tmp_path: Path) -> None:
    """With a byte order mark, semicolons, columns in another order and more of them, and numbers with a fraction."""
    text = "\ufeffen;fr;prdtypecode;merged_into;parent;note\nnew ;neufs;20.0;;;\nold;vieux;030;20.0;;since May\n"
    taxonomy = read(tmp_path, text)
    assert (taxonomy.codes, taxonomy.merged_into) == ({20}, {30: 20})
    assert taxonomy.label(20, "en") == "new"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("10,a,b,,\n20,a,b,,\n10.0,c,d,,\n", "line 4, column prdtypecode: 10 is on line 2 already"),
        ("1O,a,b,,\n", "line 2, column prdtypecode: '1O' is not a whole number"),
        ("-1,a,b,,\n", "line 2, column prdtypecode: '-1' is not a whole number"),
        ("10,a,b,,x\n", "line 2, column merged_into: 'x' is not a whole number"),
        ("10,,b,,\n", "line 2, column fr: the name is missing"),
        ("10,a, ,,\n", "line 2, column en: the name is missing"),
        (",a,,books,\n", "line 2, column en: the name is missing"),
        (",a,b,,\n", "line 2, column prdtypecode: the row has neither a code nor"),
        ("10,a,b,books,\n", "line 2, column parent: no row names the parent 'books'; add one with an empty"),
        (",a,b,Books,\n", "line 2, column parent: 'Books' is not a key of small letters"),
        (",a,b,books,\n,c,d,books,\n", "line 3, column parent: 'books' is on line 2 already"),
        (",a,b,books,10\n10,a,b,,\n", "line 2, column merged_into: a parent is not merged"),
        ("10,a,b,,20\n", "line 2, column merged_into: there is no code 20"),
        ("10,a,b,,10\n", "line 2, column merged_into: 10 is the code itself"),
        ("10,a,b,,20\n20,a,b,,30\n30,a,b,,\n", "line 2, column merged_into: 20 was merged into 30 itself"),
        ("10,a,b,,20\n20,a,b,,10\n", "line 2, column merged_into: 20 was merged into 10 itself"),
    ],
)
def test_a_wrong_row_is_named_by_line_and_column(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, HEADER + rows)
    assert f"{tmp_path / 'taxonomy.csv'}: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"taxonomy.csv: no such file; get it back with `git checkout"):
        Taxonomy.read(tmp_path / "taxonomy.csv")
    with pytest.raises(UserError, match=r"taxonomy.csv: line 1: no column 'merged_into'"):
        read(tmp_path, "prdtypecode,fr,en,parent\n10,a,b,\n")


def test_code_outside_a_tree_takes_the_file_beside_its_package_or_that_of_the_installation(tmp_path: Path) -> None:
    """As the code does that a version in MLflow's registry carries, and that of a wheel."""
    assert taxonomy_file() == TAXONOMY
    shutil.copytree(SOURCE / "rakuten", tmp_path / "code" / "rakuten", ignore=shutil.ignore_patterns("__pycache__"))
    program = "import sys; sys.path.insert(0, 'code'); from rakuten.data.taxonomy import *; print(taxonomy_file())"

    def found() -> str:
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert found().endswith("share/rakuten/taxonomy.csv")
    shutil.copy(TAXONOMY, tmp_path / "code")
    assert found() == str(tmp_path / "code" / "taxonomy.csv")


def test_codes_of_labels_and_predictions_are_followed_alike(tmp_path: Path) -> None:
    taxonomy = read(tmp_path, HEADER + ROWS)
    assert [taxonomy.follow_code(code) for code in (10, 20, 30, 99)] == [10, 20, 10, 99]
    table = pd.DataFrame({"prdtypecode": [30.0, None, 20.0], "predicted": [10, 30, 99], "other": [30, 30, 30]})
    followed = taxonomy.follow_codes(table)
    assert followed.fillna(-1).to_numpy().tolist() == [[10, 10, 30], [-1, 10, 30], [20, 99, 30]]
    assert followed.dtypes.equals(table.dtypes)
    assert taxonomy.follow_codes(table[["other"]]).equals(table[["other"]])
