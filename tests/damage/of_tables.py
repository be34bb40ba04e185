"""Tables bent, mixed up, re-encoded, or only unusual; and the runs, ids and depths in them."""

import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path

from competition import salt_mask, slow_rle
from damage.case import (
    DEPTHS,
    SAMPLE,
    SECOND,
    SIZE,
    TABLE,
    TESTED,
    TRAIN,
    VERIFY,
    Act,
    Cases,
    Truth,
    both,
    change,
    remade,
)

CASES = Cases()
RUNS = slow_rle(salt_mask(1, SIZE))
KNOWN = {"train.csv": SECOND, "sample_submission.csv": TESTED, "depths.csv": SECOND}  # an id that is there
VALUE = {"train.csv": "rle_mask", "sample_submission.csv": "rle_mask", "depths.csv": "z"}


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def edited(table: str, function: Callable[[list[list[str]]], list[list[str]]]) -> Act:
    """The rows, header first, become what `function` makes of them; fields with commas are put in quotes."""

    def act(data: Path, truth: Truth) -> None:
        rows = function(rows_of(data / table))
        with (data / table).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    return act


def replaced(table: str, old: str, new: str) -> Act:
    def function(content: bytes) -> bytes:
        assert old.encode() in content, (table, old)
        return content.replace(old.encode(), new.encode(), 1)

    return change(table, function)


def appended(table: str, line: str) -> Act:
    return change(table, lambda content: content + line.encode() + b"\n")


def ways_to_write() -> None:
    """The same table; all are read right."""
    for table in TABLE:
        lines = {
            "carriage returns": lambda content: content.replace(b"\n", b"\r\n"),
            "carriage returns alone": lambda content: content.replace(b"\n", b"\r"),
            "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
            "both": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
            "blank lines": lambda content: content.replace(b"\n", b"\n\n"),
            "a blank line before": lambda content: b"\r\n" + content,
            "no end of its last line": lambda content: content.removesuffix(b"\n"),
            "a comma behind each row": lambda content: content.replace(b"\n", b",\n"),
            "quotes": lambda content: b'"' + content[:-1].replace(b"\n", b'"\n"').replace(b",", b'","') + b'"\n',
        }
        for name, function in lines.items():
            CASES.right(f"{table} with {name}", change(table, function))
        columns = {
            "columns the other way round": lambda rows: [row[::-1] for row in rows],
            "a further column": lambda rows: [[*row, "more, of it"] for row in rows],
            "further columns before": lambda rows: [[str(i), "", *row] for i, row in enumerate(rows)],
        }
        for name, function in columns.items():
            CASES.right(f"{table} with {name}", edited(table, function))
    CASES.right("a sample without masks", edited("sample_submission.csv", lambda rows: [row[:1] for row in rows]))
    CASES.right("a sample that ends early", edited("sample_submission.csv", lambda rows: [rows[0], *cut(rows[1:])]))
    CASES.right("an empty mask that ends early", replaced("train.csv", "00e0000000,\n", "00e0000000\n"))
    CASES.right("a sample with runs that are none", replaced("sample_submission.csv", "1 1", "1 x"))


def cut(rows: list[list[str]]) -> list[list[str]]:
    return [row[:1] for row in rows]


def broken() -> None:
    for table, by in TABLE.items():
        expected = "id" if table == "sample_submission.csv" else f"id, {VALUE[table]}"
        ways = (
            ("in UTF-16", lambda content: content.decode().encode("utf-16"), "cannot be read", "in UTF-8"),
            ("in UTF-16 without a mark", utf_16, "begins with 'i\\x00d", f"expected a header with {expected} once"),
            ("in UTF-32", lambda content: content.decode().encode("utf-32"), "cannot be read", "in UTF-8"),
            ("with a Latin-1 letter", lambda content: content + b"\xe9t\xe9,1 1\n", "cannot be read", "in UTF-8"),
            ("with two marks", lambda content: b"\xef\xbb\xbf" * 2 + content, "begins with '\\ufeff", "a header with"),
            (
                "of semicolons",
                lambda content: content.replace(b",", b";"),
                "begins with 'id;",
                "expected a header with",
            ),
            ("of tabs", lambda content: content.replace(b",", b"\t"), "begins with 'id\\t", "expected a header with"),
            ("of bars", lambda content: content.replace(b",", b"|"), "begins with 'id|", "expected a header with"),
            ("without a header", lambda content: content.partition(b"\n")[2], "begins with '0", "a header with id"),
            ("of other capitals", lambda content: content.replace(b"id", b"ID"), "begins with 'ID", "a header with id"),
            ("with spaces in its header", lambda content: b" " + content, "begins with ' id", "a header with id"),
            ("with its header in the end", header_last, "begins with '0", "expected a header with id"),
            (
                "with its ids twice",
                lambda content: content.replace(b"id", b"id,id", 1),
                "expected a header with id once",
            ),
            ("that is empty", lambda content: b"", "cannot be read (it is empty)", f"expected a table of {expected}"),
            ("of nothing but a mark", lambda content: b"\xef\xbb\xbf", "cannot be read (it is empty)"),
            ("of blank lines", lambda content: b"\n\r\n\n", "cannot be read (it is empty)"),
            ("of zeros", lambda content: bytes(len(content)), "begins with '\\x00", "expected a header with id"),
            (
                "of nothing but its header",
                lambda content: content.partition(b"\n")[0] + b"\n",
                "lists no tiles, expected one",
            ),
            (
                "that is a page",
                lambda content: b"<!DOCTYPE html>\n<h1>403</h1>",
                "begins with '<!DOC",
                "a header with id",
            ),
            ("that is packed", lambda content: gzip.compress(content, mtime=0), "cannot be read", "in UTF-8"),
            ("with an open quote", lambda content: content[:-1] + b',"1\n', "cannot be read (unexpected end of data)"),
            ("with a quote in its last row", lambda content: content + b'"a,1\n', "cannot be read (unexpected end"),
            ("with quotes over rows", quotes_over_rows, "cannot be read", "goes on over several lines up to line 4"),
            ("with a letter behind quotes", lambda content: content + b'"a"b,1\n', "cannot be read (',' expected"),
            ("with a row too long", lambda content: content + b"a,1,2\n", "3 fields in line", "expected 2"),
            ("with a comma behind a row", lambda content: content[:-1] + b",\n", "3 fields in line", "expected 2"),
        )
        for name, function, *said in ways if table == "train.csv" else ways[::2]:
            CASES.refused(f"{table} {name}", change(table, function), by, table, *said)
        for name, make in (
            ("is a folder", os.mkdir),
            ("is a pipe", os.mkfifo),
            ("is a link to a folder", lambda file: os.symlink(".", file)),
        ):
            CASES.refused(f"{table} {name}", remade(table, make), by, table, "is missing, expected a table of")
        for name, make in (
            ("is not there", lambda file: None),
            ("is a broken link", lambda file: os.symlink("nowhere", file)),
            ("is a link to itself", lambda file: os.symlink(file.name, file)),
            ("has capitals in its name", lambda file: file.with_name(file.name.upper()).write_text("id")),
        ):
            act = remade(table, make) if table != "depths.csv" else both(remade(table, make), no_depths)
            who = VERIFY if table == "depths.csv" else by  # nothing needs the depths
            CASES.refused(f"{table} {name}", act, who, table, "is missing, expected a table of")


def utf_16(content: bytes) -> bytes:
    return content.decode().encode("utf-16-le")


def header_last(content: bytes) -> bytes:
    header, _, rows = content.partition(b"\n")
    return rows + header + b"\n"


def quotes_over_rows(content: bytes) -> bytes:
    """One before the second row's value and one behind the third's: between them is one field."""
    lines = content.split(b"\n")
    return b"\n".join([lines[0], lines[1], lines[2].replace(b",", b',"'), lines[3] + b'"', *lines[4:]])


def no_depths(data: Path, truth: Truth) -> None:
    truth.depths.clear()


def ids() -> None:
    """Names that a file cannot have, or that no table should hold, in a row that is put behind the others."""
    for table, by in TABLE.items():
        odd = {
            "empty": "",
            "a dot": ".",
            "two dots": "..",
            "a folder above": "../secret",
            "a folder": "train/x",
            "an absolute path": "/etc/passwd",
            "a Windows path": "C:\\x",
            "with a zero": f"{KNOWN[table]}\0",
            "with a tab": "a\tb",
            "with a bell": "\a",
            "of no width": "\u200b",
            "a mark of order": f"{KNOWN[table]}\ufeff",
            "right to left": "\u202egnp",
        }
        for name, field in list(odd.items())[:: 1 if table == "train.csv" else 3]:
            said = f"has the id {field!r}, expected a file's name without folders"
            CASES.refused(f"{table}: id {name}", appended(table, f"{field},1"), by, table, said)
        act, said = appended(table, '"a\nb",1'), "goes on over several lines"
        CASES.refused(f"{table}: id over two lines", act, by, table, said)
        act = edited(table, lambda rows: [*rows, rows[2]])
        CASES.refused(f"{table}: a row twice", act, by, table, "more than once: keep one of the rows")
        act = appended(table, f"{KNOWN[table]},7")
        CASES.refused(f"{table}: an id twice", act, by, table, "more than once: keep one of the rows")
    for table, by, folder in (("train.csv", TRAIN, "train/images"), ("sample_submission.csv", SAMPLE, "test/images")):
        by = by - {"names"}
        for name, field in {
            "that no file has": "salt",
            "of spaces": "   ",
            "with a space before": f" {KNOWN[table]}",
            "with a space behind": f"{KNOWN[table]} ",
            "in capitals": KNOWN[table].upper(),
            "with its suffix": f"{KNOWN[table]}.png",
            "without its zeros": KNOWN[table].lstrip("0"),
            "as a number": "1.0",
            "of a comment": "# tiles",
        }.items():
            path = f"{folder}/{field}.png"
            CASES.refused(f"{table}: id {name}", listed(table, field), by, path, "is missing, expected a PNG")
        path, said = f"{folder}/{'x' * 300}.png", "cannot be read (File name too long), expected a PNG"
        CASES.refused(f"{table}: id of 300 letters", listed(table, "x" * 300), by, path, said)


def listed(table: str, name: str) -> Act:
    """An id that no file has. `test_names` looks at no file and tells it."""
    found = both(appended(table, f"{name},"), appended("depths.csv", f"{name},7"))
    return both(found, lambda data, truth: truth.test.append(name)) if table != "train.csv" else found


def names() -> None:
    """Odd, but a file can have them: read right in tables and folders."""
    for name in (
        *("NA", "nan", "None", "null", "True", "1e5", "007", "0x1F", "-1", "1_000", "inf", "id", "rle_mask", "x.png"),
        *("with space", " before", "behind ", ".hidden", "a,b", 'a"b', "a;b", "a'b", "a:b", "#1", "=1+1", "%41", "*"),
        *(
            "\u00e9t\u00e9",
            "e\u0301te\u0301",
            "\u5869",
            "\U0001f9c2",
            "\u0661",
            "x" * 200,
            "~",
            "$HOME",
            "--",
            "A\u00df",
        ),
    ):
        CASES.right(f"the id {name!r}", renamed(name))


def renamed(new: str) -> Act:
    """SECOND has another name, everywhere."""

    def act(data: Path, truth: Truth) -> None:
        for table in ("train.csv", "depths.csv"):
            edited(table, lambda rows: [[new if field == SECOND else field for field in row] for row in rows])(
                data, truth
            )
        for folder in ("images", "masks"):
            file = data / "train" / folder / f"{SECOND}.png"
            file.rename(file.with_name(f"{new}.png"))
        truth.train = [new if name == SECOND else name for name in truth.train]
        for values in (truth.images, truth.masks, truth.depths):
            values[new] = values.pop(SECOND)

    return act


def rows_of_tables() -> None:
    for table in TABLE:
        CASES.right(f"{table} from behind", both(edited(table, lambda rows: [rows[0], *rows[:0:-1]]), reverse(table)))
    path = f"train/images has '{SECOND}.png', which is not listed in train.csv"
    act = both(edited("train.csv", lambda rows: [row for row in rows if row[0] != SECOND]), forget("train", SECOND))
    CASES.refused("train.csv lacks a row", act, VERIFY, path, "remove it or list it")
    path = f"test/images has '{TESTED}.png', which is not listed in sample_submission.csv"
    act = both(
        edited("sample_submission.csv", lambda rows: [r for r in rows if r[0] != TESTED]), forget("test", TESTED)
    )
    CASES.refused("sample_submission.csv lacks a row", act, VERIFY, path, "remove it or list it")
    act = edited("depths.csv", lambda rows: [row for row in rows if row[0] != SECOND])
    said = f"has no row for '{SECOND}', expected one for every tile"
    CASES.refused("depths.csv lacks a row", act, TRAIN, "depths.csv", said)
    act = edited("depths.csv", lambda rows: [row for row in rows if row[0] != TESTED])
    said = f"has no row for '{TESTED}', expected one for every tile"
    CASES.refused("depths.csv lacks a test tile", act, DEPTHS - {"train"}, "depths.csv", said)
    CASES.right("depths.csv has a further row", appended("depths.csv", "ffffffffff,7"))
    act = both(appended("sample_submission.csv", f"{SECOND},"), borrow)
    CASES.refused("an id in both parts", act, VERIFY, "sample_submission.csv", f"lists '{SECOND}', which train.csv has")
    act = both(swapped("train.csv", "sample_submission.csv"), lambda data, truth: setattr(truth, "test", truth.train))
    CASES.refused("tables swapped", act, TRAIN | SAMPLE - {"names"}, ".png is missing, expected a PNG for every id")
    act = swapped("train.csv", "depths.csv")
    CASES.refused("labels and depths swapped", act, DEPTHS, ".csv begins with 'id,", "expected a header with")


def reverse(table: str) -> Act:
    def act(data: Path, truth: Truth) -> None:
        if table != "depths.csv":
            listed = truth.train if table == "train.csv" else truth.test
            listed.reverse()

    return act


def forget(part: str, name: str) -> Act:
    return lambda data, truth: getattr(truth, part).remove(name)


def borrow(data: Path, truth: Truth) -> None:
    """A labelled tile is a test tile as well."""
    (data / f"test/images/{SECOND}.png").write_bytes((data / f"train/images/{SECOND}.png").read_bytes())
    truth.test.append(SECOND)


def swapped(one: str, other: str) -> Act:
    def act(data: Path, truth: Truth) -> None:
        (data / one).rename(data / "between")
        (data / other).rename(data / one)
        (data / "between").rename(data / other)

    return act


def runs() -> None:
    numbers = RUNS.split()
    first, second, rest = " ".join(numbers[:2]), " ".join(numbers[2:4]), " ".join(numbers[4:])
    start, length = int(numbers[0]), int(numbers[1])
    assert length > 2 and rest
    table = "train.csv"
    for name, text in {
        "spaces around": f"  {RUNS} ",
        "more spaces between": RUNS.replace(" ", "   "),
        "tabs between": RUNS.replace(" ", "\t"),
        "no-break spaces": RUNS.replace(" ", "\u00a0"),
        "leading zeros": " ".join(f"{int(number):04d}" for number in numbers),
    }.items():
        CASES.right(f"runs with {name}", replaced(table, RUNS, text))
    for name, text, *said in (
        ("odd", f"{start} {second} {rest}", f"holds {len(numbers) - 1} numbers, expected pairs"),
        ("of one number", "5", "holds 1 numbers, expected pairs"),
        ("from 0", f"0 {length} {second} {rest}", f"'0 {length}', has a number below 1"),
        ("of length 0", f"{start} 0 {second} {rest}", "has a number below 1"),
        ("negative", f"-{first} {second} {rest}", f"holds '-{start}', expected whole numbers"),
        ("of negative length", f"{start} -1 {rest}", "holds '-1', expected whole numbers"),
        ("unsorted", f"{second} {first} {rest}", "touches or precedes the run before it: sort"),
        ("twice", f"{first} {first} {second} {rest}", "touches or precedes the run before it: sort"),
        ("that touch", f"{start} 1 {start + 1} {length - 1} {second} {rest}", "join those that touch"),
        ("that overlap", f"{start} {length} {start + 1} {length - 1} {second} {rest}", "join those that touch"),
        ("outside", f"{RUNS} 145 1", "ends outside the tile of 12x12 = 144 pixels"),
        ("that end outside", f"{first} {second} 140 6", "ends outside the tile of 12x12 = 144 pixels"),
        ("of a larger tile", slow_rle(salt_mask(1, 101)), "ends outside the tile"),
        ("huge", f"{first} 1{'0' * 30} 1", "ends outside the tile"),
        ("of huge length", f"{start} {2**63}", "ends outside the tile"),
        ("of 5,000 digits", f"{first} {'9' * 5000} 1", "ends outside the tile"),
        ("with a decimal", f"{start}.0 {length} {second}", f"holds '{start}.0', expected whole numbers"),
        ("in hexadecimal", f"0x10 {length}", "holds '0x10'"),
        ("with an exponent", "1e1 2", "holds '1e1'"),
        ("with an underscore", "1_0 2", "holds '1_0'"),
        ("with a plus", f"+{RUNS}", f"holds '+{start}'"),
        ("in Arabic digits", "\u0661 \u0662", "expected whole numbers: start length"),
        ("in wide digits", "\uff11 \uff12", "expected whole numbers: start length"),
        ("in raised digits", "\u00b2 1", "expected whole numbers: start length"),
        ("with a minus between", f"{start}-{length} {second} {rest}", "expected whole numbers: start length"),
        ("with a colon between", f"{start}:{length} {second}", "expected whole numbers: start length"),
        ("with semicolons", RUNS.replace(" ", ";"), "expected whole numbers: start length"),
        ("in brackets", f"[{RUNS}]", "expected whole numbers: start length"),
        ("with quoted commas", f'"{RUNS.replace(" ", ", ")}"', f"holds '{start},', expected whole numbers"),
        ("with a letter", f"{RUNS} x", "holds 'x', expected whole numbers"),
        ("with a zero byte", f"{RUNS}\0", "expected whole numbers: start length"),
        ("with a byte order mark", f"\ufeff{RUNS}", f"holds '\\ufeff{start}'"),
        ("nan", "nan", "holds 'nan', expected whole numbers"),
        ("None", "None None", "holds 'None', expected whole numbers"),
        ("with commas", RUNS.replace(" ", ","), "fields in line 3, expected 2 as in its header"),
        ("over two lines", f'"{first}\n{second} {rest}"', "goes on over several lines"),
        ("over two lines without quotes", f"{first}\n{second} {rest}", "train/images", "is missing, expected a PNG"),
    ):
        words = said if said[0].startswith("train/") else (table, *said)
        CASES.refused(f"runs {name}", replaced(table, f",{RUNS}", f",{text}"), TRAIN, *words)
    for name, text in {
        "that lack one": f"{second} {rest}",
        "none": "",
        "of a full mask": "1 144",
        "of another tile": slow_rle(salt_mask(2, SIZE)),
        "row by row": slow_rle(salt_mask(1, SIZE).T),
        "one pixel longer": f"{start} {length} {second} {rest}".replace(first, f"{start - 1} {length + 1}", 1),
        "one pixel shorter": f"{start} {length - 1} {second} {rest}",
        "counted from 0": " ".join(str(int(n) - (i % 2 == 0)) for i, n in enumerate(numbers)),
        "of start and end": " ".join(str(int(n) if i % 2 == 0 else 3) for i, n in enumerate(numbers)),
    }.items():
        act = replaced(table, f",{RUNS}", f",{text}")
        CASES.refused(f"runs {name}", act, TRAIN, f"{SECOND}.png differs from rle_mask in train.csv in")
    act = replaced(table, "00e0000000,", "00e0000000,3 5")
    CASES.refused("runs for an empty mask", act, TRAIN, "00e0000000.png differs from rle_mask in train.csv in 5 pixels")


def depths() -> None:
    """Of SECOND, 57 at first."""
    for text, depth in {
        "0": 0,
        "-5": -5,
        "+7": 7,
        "007": 7,
        "5.25": 5.25,
        "1e2": 100,
        "1E+2": 100,
        " 5 ": 5,
        '"5"': 5,
        ".5": 0.5,
        "123456789012345678901234": 123456789012345678901234,
        "1e-50": 0,
    }.items():
        CASES.right(f"depth {text!r}", both(replaced("depths.csv", f"{SECOND},57", f"{SECOND},{text}"), deep(depth)))
    for text in (
        *(
            "",
            " ",
            "nan",
            "NaN",
            "NA",
            "None",
            "inf",
            "-inf",
            "Infinity",
            "1e39",
            "-1e39",
            "1e400",
            "deep",
            "5m",
            "5 7",
        ),
        *(
            "1_000",
            "0x1F",
            "\uff15",
            "\u0665",
            "1.5.2",
            "--5",
            "True",
            "5;7",
            "5'",
            "1/2",
            "1j",
            "5\0",
            "\u22125",
            "5\u20ac",
        ),
    ):
        said = f"has the depth {text!r} for '{SECOND}', expected a number"
        act = replaced("depths.csv", f"{SECOND},57", f"{SECOND},{text}")
        CASES.refused(f"depth {text!r}", act, DEPTHS, "depths.csv", said)
    act = replaced("depths.csv", f"{SECOND},57", f'{SECOND},"1,057"')
    CASES.refused("depth with quoted thousands", act, DEPTHS, "depths.csv", "has the depth '1,057'")
    act = replaced("depths.csv", f"{SECOND},57", f"{SECOND},1,057")
    CASES.refused("depth with thousands", act, DEPTHS, "depths.csv", "3 fields in line 3, expected 2")
    CASES.refused("a row without depth", replaced("depths.csv", ",57", ""), DEPTHS, "depths.csv", "has the depth ''")


def deep(depth: float) -> Act:
    return lambda data, truth: truth.depths.update({SECOND: depth})


for declare in (ways_to_write, broken, ids, names, rows_of_tables, runs, depths):
    declare()
