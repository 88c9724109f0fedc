import numpy as np
import pytest

from modalign.errors import UnreadableFileError
from modalign.image import Points
from modalign.io import read_points, read_table, write_points, write_table


def file_with(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("names", [(), ("nucleus, left", 'the "big" one', "β")])
def test_points_survive_to_the_last_digit(tmp_path, ndim, names):
    points = Points(np.random.default_rng(0).normal(0, 1e3, (3, ndim)), "micrometer", names)
    write_points(tmp_path / "p.csv", points)
    again = read_points(tmp_path / "p.csv", unit="micrometer")
    np.testing.assert_array_equal(again.coordinates, points.coordinates)
    assert (again.names, again.unit) == (names, "micrometer")


def test_written_columns_are_x_first(tmp_path):
    write_points(tmp_path / "p.csv", Points(np.array([[1.0, 2.0, 3.0]]), names=("a",)))
    assert (tmp_path / "p.csv").read_text() == "name,x,y,z\na,3.0,2.0,1.0\n"


def test_columns_order_and_titles_of_a_table_are_kept(tmp_path):
    text = 'id,"X",class,y,area\n7,1,"tumour, left",2,0.50\n8,3,stroma,4,1e3\n'
    points = read_points(file_with(tmp_path, text))
    write_points(tmp_path / "o.csv", points.mapped(lambda values: values + 0.25), like=tmp_path / "points.csv")
    expected = 'id,X,class,y,area\n7,1.25,"tumour, left",2.25,0.50\n8,3.25,stroma,4.25,1e3\n'
    assert (tmp_path / "o.csv").read_text() == expected


def test_a_table_of_other_points_is_not_filled(tmp_path):
    with pytest.raises(UnreadableFileError, match="does not hold 2 points"):
        write_points(tmp_path / "o.csv", Points(np.zeros((2, 2))), like=file_with(tmp_path, "x,y\n1,2\n"))
    assert not (tmp_path / "o.csv").exists()


def test_no_points_at_all(tmp_path):
    write_points(tmp_path / "p.csv", Points(np.empty((0, 2))))
    assert read_points(tmp_path / "p.csv").coordinates.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x,y\n1,2\n3,4\n", ()),
        ("Y,X\n2,1\n4,3\n", ()),
        (",X,Y\n7,1,2\n8,3,4\n", ("7", "8")),
        ("name;x;y\na;1;2\nb;3;4\n", ("a", "b")),
        ("x\ty\tscore\n1\t2\t0.5\n3\t4\t0.25\n", ()),
        ("\ufeffx, y ,Name\r\n1, 2,a\r\n\r\n3, 4,b\r\n", ("a", "b")),
        ('index,x,y,name\n1,1,2,a\n2,3e0,4,"b"', ("a", "b")),
    ],
)
def test_tables_of_many_programs(tmp_path, text, names):
    points = read_points(file_with(tmp_path, text))
    np.testing.assert_array_equal(points.coordinates, [[2.0, 1.0], [4.0, 3.0]])
    assert points.names == names


@pytest.mark.parametrize("header", ["x,y,z", "z,y,x", "Y,Z,X"])
def test_coordinates_in_any_order(tmp_path, header):
    values = {"x": "1", "y": "2", "z": "3"}
    text = f"{header}\n{','.join(values[axis.lower()] for axis in header.split(','))}\n"
    np.testing.assert_array_equal(read_points(file_with(tmp_path, text)).coordinates, [[3.0, 2.0, 1.0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 bytes"),
        ("\n\n", "header"),
        ("1,2\n3,4\n", "columns x, y"),
        ("a,b\n1,2\n", "columns x, y"),
        ("x,y\n1,2\n3\n", "line 3 has 1 values"),
        ("x,y\n1,2\n3,4,5\n", "line 3 has 3 values"),
        ("x,y\n1,2\n\n3,four\n", "line 4: y is 'four'"),
        ("x,y\nnan,2\n", "line 2: x is 'nan'"),
        ("x,y\n1,inf\n", "line 2: y is 'inf'"),
        ("x,y\n1,\n", "line 2: y is ''"),
        ("x,y,x\n1,2,3\n", "'x' occurs twice"),
        ("x,y,X\n1,2,3\n", "x occurs twice"),
        ('x,y\n1,"2\n', "not a table"),
    ],
)
def test_malformed_tables_are_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(UnreadableFileError, match=message):
        read_points(file_with(tmp_path, text))


def test_a_picture_is_no_table(tmp_path):
    (tmp_path / "points.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")
    with pytest.raises(UnreadableFileError, match="not a table"):
        read_points(tmp_path / "points.csv")
    with pytest.raises(UnreadableFileError, match="no such file"):
        read_points(tmp_path / "nothing.csv")


def test_tables_survive(tmp_path):
    rows = [{"pair": "a", "error": 0.5}, {"pair": "b, c", "error": None, "note": "two\nlines"}]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == [
        {"pair": "a", "error": "0.5", "note": ""},
        {"pair": "b, c", "error": "", "note": "two\nlines"},
    ]
    write_table(tmp_path / "t.csv", rows, ["error"])
    assert read_table(tmp_path / "t.csv") == [{"error": "0.5"}]
