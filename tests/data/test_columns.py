import pytest

from rakuten.data.columns import examine_header
from rakuten.data.schema import X_COLUMNS, Y_COLUMNS

REQUIRED, OPTIONAL = tuple(name for name in X_COLUMNS if name != "description"), ("description",)
REST = "designation,description,productid,imageid"


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "index"])
def test_the_index_is_the_nameless_column_or_named_as_pandas_does(index: str) -> None:
    found = examine_header([index, *REST.split(",")], X_COLUMNS)
    assert found.fault == found.warning == ""
    assert found.positions == {name: at for at, name in enumerate(X_COLUMNS)}


@pytest.mark.parametrize(
    "indexes",
    [",Unnamed: 0", "Unnamed: 0,index", "Unnamed: 0.1,Unnamed: 0", ",", ",id", "index,ID", "level_0,index", ",,"],
)
def test_a_second_index_is_a_fault_because_labels_could_be_joined_by_the_wrong_one(indexes: str) -> None:
    for rest, columns in ((REST, X_COLUMNS), ("prdtypecode", Y_COLUMNS)):
        fault = examine_header([*indexes.split(","), *rest.split(",")], columns).fault
        assert fault.startswith("several index columns (")
        assert "delete all but the original one" in fault
    assert examine_header(f"designation,{indexes}".split(","), ("designation",)).fault == ""


FAULTS: dict[str, str] = {
    f"id,{REST}": "no column 'index'; rename 'id' to 'index' (columns found: 'id', 'designation', 'description', "
    "'productid', 'imageid')",
    f"Index,{REST}": "no column 'index'; rename 'Index' to 'index'",
    REST: "no column 'index'; the index, by which X_train.csv and Y_train.csv are joined, must be the first column",
    f"nr,{REST}": "no column 'index'; the index,",
    ",Titre,Description,product_id,Image ID": "no column 'designation', 'productid', 'imageid', 'description'; rename "
    "'Titre' to 'designation', 'product_id' to 'productid', 'Image ID' to 'imageid', 'Description' to 'description'",
    ",designation,productid,imageid,Description": "no column 'description'; rename 'Description' to 'description'",
    ",Description,productid,imageid": "no column 'designation', 'description'; rename 'Description' to 'description'",
    ",desgnation,productid,imageid": "no column 'designation', 'description'; rename 'desgnation' to 'designation'",
    ",designation,productid,imageid,imageid": "several columns are named 'imageid'; keep one of each",
}


@pytest.mark.parametrize("header", FAULTS)
def test_all_that_must_be_changed_is_told_at_once(header: str) -> None:
    assert examine_header(header.split(","), REQUIRED, OPTIONAL).fault.startswith(FAULTS[header])


@pytest.mark.parametrize(
    ("more", "warning"),
    [("", "no column 'description'"), (",desc", "no column 'description'; rename 'desc' to 'description'")],
)
def test_a_missing_optional_column_is_a_warning(more: str, warning: str) -> None:
    found = examine_header(f",designation,productid,imageid{more}".split(","), REQUIRED, OPTIONAL)
    assert found.fault == ""
    assert found.warning == warning
    assert "description" not in found.positions


def test_other_columns_and_trailing_commas_are_ignored() -> None:
    found = examine_header([*X_COLUMNS, "price", "", ""], X_COLUMNS)
    assert found.fault == found.warning == ""
