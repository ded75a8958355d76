from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from rakuten.data import product_files
from rakuten.data.product_files import (
    CSV,
    PARQUET,
    check_columns,
    output_format,
    product_writer,
    raw_products,
    read_product_chunks,
    read_schema,
)
from rakuten.errors import UserError

TABLE = pa.table({"designation": ["a", "é", 'x, "y"', "d", "e"], "n": ["1", "2", "", "4", "5"]})


def write(path: Path, table: pa.Table = TABLE) -> Path:
    with product_writer(path, table.schema, path.suffix.lower()) as append:
        append(table[:2])
        append(table[2:])
    return path


@pytest.mark.parametrize("suffix", [CSV, PARQUET, ".CSV", ".Parquet"])
def test_what_is_written_is_read_back_in_chunks(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"products{suffix}")
    assert read_schema(path).equals(TABLE.schema)
    assert pa.concat_tables(read_product_chunks(path, 2)).equals(TABLE)
    assert max(len(chunk) for chunk in read_product_chunks(path, 2)) == 2


def test_csv_is_written_with_quoted_texts_and_lf(tmp_path: Path) -> None:
    table = pa.table({"text": ["a\rb", None], "number": [1, 2]})
    assert write(tmp_path / "t.csv", table).read_bytes() == b'"text","number"\n"a\rb",1\n"",2\n'


@pytest.mark.parametrize(
    ("encoding", "separator", "expected"),
    [("utf-8", ";", 'a;b\n"1;";2'), ("utf-8-sig", ",", '\ufeffa,b\n"1;",2'), ("utf-16", "\t", '\ufeffa\tb\n"1;"\t2')],
)
def test_a_csv_is_read_in_any_form_and_written_with_its_separator_in_utf_8(
    tmp_path: Path, encoding: str, separator: str, expected: str
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(separator.join("ab") + '\n"1;"' + separator + "2", encoding=encoding)  # without a last line end
    (chunk,) = read_product_chunks(source, 10)
    assert read_schema(source).names == ["a", "b"]
    assert chunk.to_pydict() == {"a": ["1;"], "b": ["2"]}
    with product_writer(output, chunk.schema, CSV, output_format(source)) as append:
        append(chunk)
    assert output.read_text(encoding="utf-8").replace('"', "") == expected.replace('"', "") + "\n"


def test_parquet_keeps_types_and_metadata(tmp_path: Path) -> None:
    table = pa.table({"designation": ["a"], "price": [1.5], "sold": [True]}).replace_schema_metadata({"by": "us"})
    path = write(tmp_path / "t.parquet", table)
    assert read_schema(path).equals(table.schema, check_metadata=True)
    assert pa.concat_tables(read_product_chunks(path, 10)).equals(table)


def test_a_column_of_categories_stays_one(tmp_path: Path) -> None:
    table = pa.table({"designation": pa.array(["a", None, "a"]).dictionary_encode(), "kind": ["b", "b", "b"]})
    path = write(tmp_path / "t.parquet", table)
    assert [chunk.schema for chunk in read_product_chunks(path, 2)] == [table.schema] * 2
    assert raw_products(next(read_product_chunks(path, 3)))["designation"].tolist() == ["a", "", "a"]


def test_a_small_file_that_unpacks_to_much_is_read_in_small_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_files, "MAX_CHUNK_BYTES", 1_000_000)
    monkeypatch.setattr(product_files, "MAX_ROW_BYTES", 400_000)
    table = pa.table({"designation": ["a" * 300_000] * 20, "note": ["b" * 50_000] * 10 + [None] * 10})
    path = write(tmp_path / "t.parquet", table)
    assert path.stat().st_size < 100_000  # of six million characters
    chunks = list(read_product_chunks(path, 1000))
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 3, 3, 3, 3]
    assert pa.concat_tables(chunks).equals(table)


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_large_columns_of_distinct_texts_are_read_as_they_are(
    use_dictionary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_files, "PACKED_BYTES", 100_000)
    table = pa.table({"designation": [f"{number:0100}" for number in range(3000)], "kind": ["a", None, "c"] * 1000})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, use_dictionary=use_dictionary)
    with product_files._open_parquet(path) as file:
        assert product_files._small_text_columns(file) == ["kind"]
    chunks = list(read_product_chunks(path, 1000))
    assert [len(chunk) for chunk in chunks] == [1000, 1000, 1000]
    assert pa.concat_tables(chunks).equals(table)


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_row_that_is_no_product_is_an_error(
    use_dictionary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_files, "MAX_ROW_BYTES", 400_000)
    texts = ["a"] * 10 + ["b" * 500_000]
    for rows in (texts, ["c" * 500_000] * 3):
        pq.write_table(pa.table({"designation": rows}), tmp_path / "t.parquet", use_dictionary=use_dictionary)
        with pytest.raises(UserError, match="a row has .* more than the 0 MB allowed"):
            list(read_product_chunks(tmp_path / "t.parquet", 1000))


def change_a_letter(path: Path) -> None:
    """Damage that only a checksum shows."""
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def write_latin_1(path: Path) -> None:
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9"))
    pq.write_table(pa.table({"designation": texts}), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("not parquet\n"),
        lambda path: path.write_bytes(path.read_bytes()[:3_000]),
        change_a_letter,
        write_latin_1,
        Path.unlink,
    ],
)
def test_a_damaged_parquet_file_is_an_error_for_the_user(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "products.parquet"
    table = pa.table({"designation": [f"{n * 7919 % 10_007} piscine" for n in range(5000)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    damage(path)  # type: ignore[operator]
    with pytest.raises(UserError, match="not a complete Parquet file"):
        list(read_product_chunks(path, 1000))


def test_another_kind_of_file_under_the_name_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "products.parquet").write_bytes(b"PK\3\4xl/")
    with pytest.raises(UserError, match="products.parquet: not a Parquet file but a workbook"):
        read_schema(tmp_path / "products.parquet")


def test_a_damaged_csv_file_is_an_error_for_the_user(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text('designation\n"Piscine\n')
    with pytest.raises(UserError, match="the record that begins on line 2 is broken"):
        list(read_product_chunks(path, 10))


def schema(*names: str, **types: pa.DataType) -> pa.Schema:
    return pa.schema([*((name, pa.string()) for name in names), *types.items()])


BAD_COLUMNS: dict[str, tuple[pa.Schema, str]] = {
    "other names": (
        schema("title", "product_id", "imageid", "Description"),
        "no column 'designation', 'productid', 'description'; rename 'title' to 'designation', 'product_id' to "
        "'productid', 'Description' to 'description' "
        r"\(columns found: 'title', 'product_id', 'imageid', 'Description'\); --images finds",
    ),
    "no imageid": (
        schema("designation", "productid"),
        "no column 'imageid', .*; --images finds images by productid and imageid",
    ),
    "a column twice": (schema("designation", "productid", "imageid", "n", "n"), "column 'n' occurs twice"),
    "scored before": (
        schema("designation", "productid", "imageid", "label"),
        "'label' has the name of a column that scoring adds",
    ),
    "lists": (
        schema("designation", "productid", "imageid", description=pa.list_(pa.string())),
        "column 'description' is list<.*>, not text; write it as strings",
    ),
    "bytes": (
        schema("productid", "imageid", designation=pa.dictionary(pa.int8(), pa.large_binary())),
        "column 'designation' is large_binary, not text",
    ),
    "bytes of one length": (
        schema("productid", "imageid", designation=pa.binary(16)),
        r"column 'designation' is fixed_size_binary\[16\], not text",
    ),
}


@pytest.mark.parametrize("fault", BAD_COLUMNS)
def test_columns_that_cannot_be_scored_are_named(fault: str) -> None:
    columns, message = BAD_COLUMNS[fault]
    with pytest.raises(UserError, match=f"products.csv: .*{message}"):
        check_columns(Path("products.csv"), columns, with_images=True, added=["label"])


TEXTS: dict[str, tuple[pa.Array, list[str]]] = {  # a column -> its texts
    "string": (pa.array(["a", None]), ["a", ""]),
    "large string": (pa.array(["a", None], pa.large_string()), ["a", ""]),
    "string view": (pa.array(["a", None], pa.string_view()), ["a", ""]),
    "categories": (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
    "categories of numbers": (pa.array([7, None]).dictionary_encode(), ["7", ""]),
    "empty": (pa.nulls(2), ["", ""]),
    "all NaN": (pa.array([float("nan"), float("nan")]), ["", ""]),
    "floats": (pa.array([7.0, 2.5]), ["7", "2.5"]),
    "integers": (pa.array([7, None]), ["7", ""]),
    "booleans": (pa.array([True, None]), ["True", ""]),
    "dates": (pa.array([0, None], pa.date32()), ["1970-01-01", ""]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_may_have_any_type(name: str) -> None:
    column, texts = TEXTS[name]
    table = pa.table({"designation": column, "description": column, "price": [[1.0], []]})
    check_columns(Path("products.parquet"), table.schema, with_images=False, added=["label"])
    products = raw_products(table)
    assert products["designation"].tolist() == products["description"].tolist() == texts


def test_a_missing_description_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_columns(Path("products.csv"), schema("designation"), with_images=False, added=[])
    assert "no column 'description'; products are classified by their titles" in caplog.text


def test_raw_products_are_texts_with_normalised_ids() -> None:
    chunk = pa.table({
        "price": [1.0, 2.0, 3.0, 4.0],
        "designation": ["a", None, "c", "d"],
        "productid": pa.array([7.0, None, 1.5, 10.0]),
        "imageid": ["007", "", "8.0", "x"],
    })  # fmt: skip
    products = raw_products(chunk)
    assert products.to_dict("list") == {
        "designation": ["a", "", "c", "d"],
        "description": ["", "", "", ""],
        "productid": ["7", "", "1.5", "10"],
        "imageid": ["7", "", "8", "x"],
    }
