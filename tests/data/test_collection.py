"""The images of a folder or a table are found with what is known of them; what makes no sense is named by its line."""

from collections.abc import Collection
from pathlib import Path

import pytest

from modalign.data.collection import Member, find_members
from modalign.errors import InvalidInputError, PairingError, UnreadableFileError


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_images_of_a_folder_and_of_those_in_it_are_found_by_their_paths(tmp_path: Path) -> None:
    touched(
        *(tmp_path / name for name in ("b.png", "a.tif", "in/deep/c.png", "in/.hidden/d.png", "note.txt", ".e.png"))
    )
    (tmp_path / "volume.ome.zarr" / "0.png").mkdir(parents=True)
    found = find_members(tmp_path)
    assert [member.name for member in found] == ["a.tif", "b.png", "in/deep/c.png", "volume.ome.zarr"]
    assert found[2] == Member("in/deep/c.png", tmp_path / "in" / "deep" / "c.png")


def test_a_table_names_images_and_tells_facts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "image,name,side,pixel_size,unit,stain,case\nx/2.png,two,moving,0.5 0.25,millimeter,HE,\nx/1.png,,,,,,7\n"
    )
    first, second = find_members(tmp_path / "t.csv")
    assert first == Member("two", tmp_path / "x" / "2.png", "moving", (0.5, 0.25), "millimeter", {"stain": "HE"})
    assert second == Member("x/1.png", tmp_path / "x" / "1.png", facts={"case": 7.0})


def test_a_column_is_of_numbers_only_where_all_of_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,date,case,age\na.png,2020-01-31,07,31\nb.png,2022,8,1.5e1\nc.png,,,\n")
    facts = [dict(member.facts) for member in find_members(tmp_path / "t.csv")]
    assert facts == [{"date": "2020-01-31", "case": "07", "age": 31.0}, {"date": "2022", "case": "8", "age": 15.0}, {}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file\na.png\n", "needs a column 'image'; it has file"),
        ("image\n", "has no image"),
        ("image,name\na.png,x\nb.png,x\n,y\n", "line 3: there is an image 'x' already; line 4: no image is named"),
        ("image,pixel_size\na.png,wide\n", "line 2: 'wide' is no pixel size"),
        ("image,pixel_size\na.png,-1\n", "line 2: a pixel size must be more than 0"),
        ("image,unit\na.png,furlong\n", "line 2: 'furlong' is no unit; there are pixel"),
        ("image,side\na.png,left\n", "line 2: a side is fixed or moving, not 'left'"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(PairingError, match=says):
        find_members(tmp_path / "t.csv")


def test_what_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="nothing"):
        find_members(tmp_path / "nothing")
    with pytest.raises(PairingError, match="has no image"):
        find_members(tmp_path)


def test_names_of_facts_can_be_refused(tmp_path: Path) -> None:
    def check(names: Collection[str]) -> None:
        raise InvalidInputError(f"not {sorted(names)}")

    (tmp_path / "t.csv").write_text("image,name,stain,case\na.png,,,\n")
    with pytest.raises(PairingError, match=r"t.csv: not \['case', 'stain'\]"):
        find_members(tmp_path / "t.csv", check)
