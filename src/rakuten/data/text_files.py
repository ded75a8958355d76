"""What a file is that should be a CSV file: its encoding and separator; or another kind, told by its first bytes."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rakuten.errors import UserError

HEAD_BYTES = 65_536  # of a file, that are read to tell what it is
SEPARATORS = (",", ";", "\t")  # the first wins where a header has as many of one as of another
UTF_8, UTF_8_WITH_MARK, UTF_16 = "utf-8", "utf-8-sig", "utf-16"  # with the byte order mark that Excel writes first
SNIPPET_BYTES = 12  # before and after an invalid byte, that are shown

_AS_CSV = 'in Excel or LibreOffice, save it as "CSV UTF-8"'
_ARCHIVE = "a compressed file; unpack it"
_KINDS = (  # first bytes -> what begins so, and what to do
    (b"PAR1", "a Parquet file; if it is to be classified, name it .parquet; otherwise write it as CSV"),
    (b"\xd0\xcf\x11\xe0", f"an Excel workbook; {_AS_CSV}"),
    (b"\x1f\x8b", _ARCHIVE),
    (b"BZh", _ARCHIVE),
    (b"\xfd7zXZ", _ARCHIVE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", _ARCHIVE),
)
_ZIP = (b"PK\3\4", b"PK\5\6")  # which workbooks are too
_WORKBOOK_ENTRIES = (b"[Content_Types].xml", b"xl/", b"application/vnd.oasis")
_WEB_PAGE = (b"<!doctype", b"<html")
_EXCEL_HINT = "sep="  # a first line that tells Excel the separator


class CsvFormat(NamedTuple):
    """How a CSV file is written."""

    encoding: str
    separator: str
    has_last_line_end: bool


def csv_format(path: Path) -> CsvFormat:
    """Tell how a CSV file is written from its beginning and its last bytes.

    Raises:
        UserError: it is a folder, an empty file, or another kind of file.
    """
    if other := other_kind(path):
        raise UserError(f"{path}: not a CSV file but {other}")
    head = _head(path)
    if not head:
        raise UserError(f"{path}: the file is empty; fetch it again")
    encoding = _encoding(head)
    text = head.decode(encoding, errors="replace")
    if text.startswith(_EXCEL_HINT):
        raise UserError(f"{path}: line 1 is a hint for Excel ({text.splitlines()[0]!r}); delete this line")
    width = 2 if encoding.startswith(UTF_16) else 1
    with path.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - width))
        has_last_line_end = any(byte in b"\r\n" for byte in stream.read(width))
    return CsvFormat(encoding, _separator(text), has_last_line_end)


def other_kind(path: Path) -> str:
    """What a folder is, or a file that is no text, and what to do about it; "" for a text and what is not known."""
    if path.is_dir():
        return _kind_of_folder(path)
    head = _head(path)
    if head.startswith(_ZIP):
        is_workbook = any(entry in head for entry in _WORKBOOK_ENTRIES)
        return f"a workbook of Excel or LibreOffice; {_AS_CSV}" if is_workbook else "a ZIP archive; unpack it"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:20].lower().startswith(_WEB_PAGE):
        return "a web page, such as a site's login; download the file again after logging in"
    return next((kind for first_bytes, kind in _KINDS if head.startswith(first_bytes)), "")


def _kind_of_folder(path: Path) -> str:
    parts = sorted(part.name for part in path.iterdir() if part.name.startswith("part-"))
    if not parts:
        return "a folder; give the file in it"
    remedy = "give it" if len(parts) == 1 else "write one with df.coalesce(1) and give that"
    return f"a folder of {len(parts):,} files as Spark writes it (first: {parts[0]}); {remedy}"


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _encoding(head: bytes) -> str:
    if head.startswith(b"\xef\xbb\xbf"):
        return UTF_8_WITH_MARK
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return UTF_16
    # Latin letters in UTF-16 have a zero in every other byte; a text in UTF-8 has none at all.
    for start, encoding in ((1, f"{UTF_16}-le"), (0, f"{UTF_16}-be")):
        if head[start::2].count(0) > len(head) / 4:
            return encoding
    return UTF_8


def _separator(text: str) -> str:
    """The separator that the first record has most often outside quotes."""
    counts, is_quoted = Counter[str](), False
    for char in text:
        if char == '"':
            is_quoted = not is_quoted
        elif not is_quoted and char in "\r\n":
            break
        elif not is_quoted:
            counts[char] += 1
    return max(SEPARATORS, key=counts.__getitem__)


def invalid_encoding(path: Path, encoding: str) -> UserError:
    """The error about a CSV file that is not in its encoding, with the line of the first invalid byte."""
    if encoding.startswith(UTF_16):
        return UserError(f"{path}: broken UTF-16: the file is damaged or was cut short; fetch it again")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = error.start
                snippet = line[max(0, at - SNIPPET_BYTES) : at + SNIPPET_BYTES].decode("cp1252", "replace").strip()
                return UserError(
                    f"{path}: line {number} is not UTF-8 (byte 0x{line[at]:02x}); if it reads {snippet!r}, the file is "
                    f"in Windows-1252: {_AS_CSV}; in an editor such as Notepad, with the encoding UTF-8; on Linux, "
                    "`iconv -f WINDOWS-1252 -t UTF-8`. If not, the line is damaged: correct it or fetch the file again"
                )
    return UserError(f"{path}: not UTF-8; {_AS_CSV}")
