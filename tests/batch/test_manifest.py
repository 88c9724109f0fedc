"""A manifest is read as it is meant, or refused with the lines that are wrong and with what would be right."""

from pathlib import Path

import pytest

from modalign.batch.manifest import COLUMNS, read_manifest
from modalign.batch.registration import RegistrationJob
from modalign.cli.batch import _with_options
from modalign.errors import BatchError, ModalignError
from modalign.registration import ENGINES, FftSearch

DEFAULT = RegistrationJob(Path(), Path(), model=Path("shared"), fixed_pixel_size=(0.5,), unit="millimeter")


def read(folder: Path, text: str, default: RegistrationJob = DEFAULT) -> dict[str, RegistrationJob]:
    path = folder / "pairs.csv"
    path.write_bytes(text.encode())
    return read_manifest(path, default, _with_options)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\N{BYTE ORDER MARK}"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_of_all_programs_are_read(separator: str, start: str, end: str, tmp_path: Path) -> None:
    rows = [("moving", "fixed", "name"), ("b 1.tif", "ä.ome.tif", "first"), ("sub/b.tif", "/abs/a.tif", "")]
    jobs = read(tmp_path, start + end.join(separator.join(row) for row in rows) + end + end)
    assert list(jobs) == ["first", "a__b"]
    assert jobs["first"].fixed == tmp_path / "ä.ome.tif"
    assert (jobs["a__b"].fixed, jobs["a__b"].moving) == (Path("/abs/a.tif"), tmp_path / "sub/b.tif")


def test_a_pixel_size_may_have_one_number_an_axis(tmp_path: Path) -> None:
    (job,) = read(tmp_path, f"fixed,moving,fixed_pixel_size\n{ROW},0.4994 0.5119  0.5119\n").values()
    assert job.fixed_pixel_size == (0.4994, 0.5119, 0.5119)
    assert job.command().options["--fixed-pixel-size"] == ("0.4994", "0.5119", "0.5119")


def test_cells_that_are_empty_leave_the_default(tmp_path: Path) -> None:
    header = "fixed,moving,model,fixed_mask,fixed_pixel_size,moving_pixel_size,unit,interpolation\n"
    jobs = read(tmp_path, header + "a.png,b.png,,,,,,\nc.png,d.png,own,m.png,2,1e-3,micrometer,cubic\n")
    plain, full = jobs.values()
    assert (plain.model, plain.fixed_mask, plain.fixed_pixel_size, plain.unit) == (
        Path("shared"),
        None,
        (0.5,),
        "millimeter",
    )
    assert (full.model, full.fixed_mask) == (tmp_path / "own", tmp_path / "m.png")
    assert (full.fixed_pixel_size, full.moving_pixel_size, full.unit, full.interpolation) == (
        (2.0,),
        (0.001,),
        "micrometer",
        "cubic",
    )


def test_engines_and_options_of_rows(tmp_path: Path) -> None:
    default = RegistrationJob(Path(), Path(), engine="fft-search", method=FftSearch(max_rotation_degrees=33))
    rows = ["a,b,,", "c,d,fft-search,", "e,f,ecc,", "g,h,,--min-overlap 0.4", "i,j,fft-search,--min-overlap 0.4"]
    jobs = read(tmp_path, "\n".join(["fixed,moving,engine,options", *rows]), default)
    methods = [job.method for job in jobs.values()]
    assert methods[0] == methods[1] == default.method
    assert methods[2] == ENGINES["ecc"]
    assert [job.engine for job in jobs.values()] == ["fft-search", "fft-search", "ecc", "fft-search", "fft-search"]
    assert methods[3] == methods[4] == FftSearch(max_rotation_degrees=33, min_overlap=0.4)


ROW = "a.png,b.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"fixed,moving,colour\n{ROW},red", rf"unknown column 'colour'; a manifest has {', '.join(COLUMNS)}"),
        ("fixed,movin\na,b", "unknown column 'movin', no column 'moving'; a manifest has"),
        ("fixed\na.png", "no column 'moving'"),
        ("fixed,moving\n", "the manifest has no rows"),
        ("", "the file is empty"),
        ("\0\x01", "no column 'fixed'|not a table"),
        (f"fixed,moving\n{ROW}\na.png", "line 3 has 1 values, the header 2"),
        (f"fixed,fixed,moving\n{ROW},c", "'fixed' occurs twice"),
        (
            f"fixed,moving\n{ROW}\n\n{ROW}",
            "line 4: the pair 'a__b' is already on line 2; name them apart in a column 'name'",
        ),
        (f"fixed,moving,name\n{ROW},One\n{ROW},one", "line 3: the pair 'one' is already on line 2"),
        ("fixed,moving\n,b.png", "line 2: no file is named in 'fixed'"),
        (f"fixed,moving,engine\n{ROW},sift9000", "line 2: unknown engine 'sift9000'; known are .*fft-search"),
        (f"fixed,moving,unit\n{ROW},furlong", "line 2: unknown unit 'furlong'; known are .*micrometer"),
        (f"fixed,moving,interpolation\n{ROW},sinc", "line 2: unknown interpolation 'sinc'; known are nearest, linear"),
        (f"fixed,moving,fixed_pixel_size\n{ROW},wide", "line 2: fixed_pixel_size is not a number: 'wide'"),
        (f"fixed,moving,fixed_pixel_size\n{ROW},0", "line 2: fixed_pixel_size must be more than 0 and finite, not 0"),
        (f"fixed,moving,moving_pixel_size\n{ROW},nan", "line 2: moving_pixel_size must be more than 0"),
        (f"fixed,moving,options\n{ROW},--colour red", "line 2: the engine auto does not understand .*'--colour red'"),
        (f"fixed,moving,options\n{ROW},--help", "line 2: the engine auto does not understand the options"),
        ("fixed;moving;options\na;b;--x '1", "line 2: a quotation mark is not closed"),
        (f"fixed,moving,name\n{ROW},../up", "line 2: '../up' cannot be the name of a folder"),
        (f"fixed,moving,name\n{ROW},.hidden", "cannot be the name of a folder"),
        (f"fixed,moving,name\n{ROW},dot.", "cannot be the name of a folder"),
        (f"fixed,moving,name\n{ROW},a\tb", "cannot be the name of a folder"),
        (f"fixed,moving,name\n{ROW},{'ä' * 120}", "line 2: the name 'ä+'… is too long for a folder"),
    ],
)
def test_mistakes_are_named_with_their_line(
    text: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModalignError, match=message) as caught:
        read(tmp_path, text)
    assert "pairs.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_many_mistakes_come_at_once_but_not_all(tmp_path: Path) -> None:
    rows = "\n".join(f"a{i},b{i},unknown" for i in range(40))
    with pytest.raises(BatchError, match=r"line 2: .*line 6: .*; and 35 more$") as caught:
        read(tmp_path, f"fixed,moving,engine\n{rows}")
    assert "line 7" not in str(caught.value)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(ModalignError, match=r"pairs.csv: is not a table in CSV of UTF-8 text; save it"):
        read_manifest(path, DEFAULT, _with_options)
    with pytest.raises(ModalignError, match="no such file"):
        read_manifest(tmp_path / "none.csv", DEFAULT, _with_options)
