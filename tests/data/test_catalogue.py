"""Public sets: fetched whole or not at all, split exactly as published. Their publisher is a server on this machine."""

import csv
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from publisher import Publisher, publishing, zipped

from modalign.data.catalogue import ENTRIES, RECEIPT, SERVER, Entry, get, offer
from modalign.data.catalogue.multiregeval import Subvolumes
from modalign.data.displacement import DisplacedPair
from modalign.errors import InvalidInputError, OutputError, UnreadableFileError
from modalign.geometry import Grid, Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.io import read_json, write_image
from modalign.io.archives import unpack
from modalign.io.download import Patience, RemoteFile, download

HURRIED = Patience(tries=3, pause=0.0, timeout=5.0)
CONTENT = np.random.default_rng(0).bytes(50_000)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as publisher:
        yield publisher


@pytest.fixture
def remote(publisher: Publisher) -> RemoteFile:
    publisher.publish(1, {"a.bin": CONTENT})
    described = publisher.records[1]["files"][0]
    return RemoteFile(described["links"]["self"], "a.bin", described["size"], described["checksum"])


# Downloads


def test_a_file_comes_whole_and_with_its_progress(remote: RemoteFile, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = download(remote, tmp_path, lambda done, size: told.append((done, size)), HURRIED)
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_connection_that_breaks_is_taken_up_where_it_ended(
    remote: RemoteFile, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.cuts = [20_000, 20_000]
    assert download(remote, tmp_path, None, HURRIED).read_bytes() == CONTENT
    assert [asked for _, asked in publisher.asked] == [None, "bytes=20000-", "bytes=40000-"]


def test_a_part_of_an_earlier_run_is_not_fetched_again(
    remote: RemoteFile, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.cuts = [30_000, 0, 0, 0, 0]
    with pytest.raises(UnreadableFileError, match="30,000 bytes are kept"):
        download(remote, tmp_path, None, HURRIED)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin.part"]
    publisher.cuts.clear()
    publisher.asked.clear()
    assert download(remote, tmp_path, None, HURRIED).read_bytes() == CONTENT
    assert [asked for _, asked in publisher.asked] == ["bytes=30000-"]


def test_a_whole_part_is_only_checked(remote: RemoteFile, publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert download(remote, tmp_path, None, HURRIED).read_bytes() == CONTENT
    unsized = RemoteFile(remote.url, "b.bin")
    (tmp_path / "b.bin.part").write_bytes(CONTENT)
    assert download(unsized, tmp_path, None, HURRIED).read_bytes() == CONTENT  # the server says that nothing is missing
    assert [asked for _, asked in publisher.asked] == ["bytes=50000-"]


def test_a_server_without_ranges_sends_everything_anew(
    remote: RemoteFile, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100)
    assert download(remote, tmp_path, None, HURRIED).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_page_is_not(
    remote: RemoteFile, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.refusals = [503, 429]
    assert download(remote, tmp_path, None, HURRIED).read_bytes() == CONTENT
    publisher.asked.clear()
    with pytest.raises(UnreadableFileError, match="answers 404"):
        download(RemoteFile(f"{publisher.address}/nothing", "nothing"), tmp_path, None, HURRIED)
    assert len(publisher.asked) == 1


def test_another_content_than_stated_is_removed(remote: RemoteFile, publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["/files/1/a.bin"] = b"y" * len(CONTENT)
    with pytest.raises(UnreadableFileError, match=r"md5 checksum .* where its publisher states"):
        download(remote, tmp_path, None, HURRIED)
    assert list(tmp_path.iterdir()) == []
    publisher.files["/files/1/a.bin"] = b"y" * 10
    with pytest.raises(UnreadableFileError, match="of 10 bytes, where its publisher states 50,000"):
        download(remote, tmp_path, None, HURRIED)


def test_an_interruption_keeps_what_is_there(remote: RemoteFile, tmp_path: Path) -> None:
    def interrupt(done: int, size: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(remote, tmp_path, interrupt, HURRIED)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin.part"]


def test_addresses_names_and_checksums_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no address of the web"):
        download(RemoteFile("file:///etc/passwd", "x"), tmp_path, None, HURRIED)
    for name in ("../x", "/etc/x", "a/b", ".."):
        with pytest.raises(InvalidInputError, match="no name"):
            RemoteFile("https://a.b/c", name)
    with pytest.raises(InvalidInputError, match="checksum"):
        RemoteFile("https://a.b/c", "x", None, "crc32:1")


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"connection fails .*nothing came"):
        download(RemoteFile("http://127.0.0.1:9/x", "x"), tmp_path, None, HURRIED)


# Archives


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "..\\evil"])
def test_no_path_of_an_archive_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    archive, inner = tmp_path / "a.zip", tmp_path / "inner"
    archive.write_bytes(zipped({"good": b"1", name: b"2"}))
    with pytest.raises(UnreadableFileError, match="leads out of its folder"):
        unpack(archive, inner)
    assert list(inner.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(link)
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(UnreadableFileError, match="holds a link"):
            unpack(tmp_path / name, tmp_path / "inner")


def test_tar_files_are_unpacked_and_damaged_archives_named(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("folder/a.txt")
    entry.size = 3
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(entry, io.BytesIO(b"abc"))
    unpack(tmp_path / "a.tar.gz", tmp_path / "inner")
    assert (tmp_path / "inner/folder/a.txt").read_bytes() == b"abc"
    for name in ("b.zip", "b.tar.gz"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(UnreadableFileError, match="cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "inner")


# Sets


def fetched(entry: Entry, publisher: Publisher, folder: Path) -> Path:
    return get(entry, offer(entry, publisher.server, HURRIED), folder, None, HURRIED)


def test_a_set_appears_once_it_is_whole(publisher: Publisher, tmp_path: Path) -> None:
    entry = ENTRIES["zurich-summer"]
    publisher.publish(entry.record, {"z.zip": zipped({"images_tif/x.txt": b"1"}), "readme.md": b"hello"})
    publisher.cuts = [20]
    folder = fetched(entry, publisher, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [entry.name]
    assert (folder / "images_tif/x.txt").read_bytes() == b"1"
    assert (folder / "readme.md").read_bytes() == b"hello"
    receipt = read_json(folder / RECEIPT)
    assert receipt["licence"] == "cc-by-4.0"
    assert receipt["files"][0]["checksum"].startswith("md5:")
    publisher.asked.clear()
    assert fetched(entry, publisher, tmp_path) == folder
    assert len(publisher.asked) == 1  # the record alone


def test_an_unsafe_or_wrong_archive_leaves_no_set(publisher: Publisher, tmp_path: Path) -> None:
    entry = ENTRIES["zurich-summer"]
    publisher.publish(entry.record, {"z.zip": zipped({"../evil": b"1"})})
    with pytest.raises(UnreadableFileError, match="leads out"):
        fetched(entry, publisher, tmp_path)
    assert not (tmp_path / entry.name).exists()
    assert not (tmp_path / "evil").exists()


def test_places_that_are_taken_are_left_alone(publisher: Publisher, tmp_path: Path) -> None:
    entry = ENTRIES["zurich-summer"]
    publisher.publish(entry.record, {"z.zip": zipped({"a": b"1"})})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        fetched(entry, publisher, tmp_path / "file")
    (tmp_path / entry.name).mkdir()
    (tmp_path / entry.name / "mine").write_text("mine")
    with pytest.raises(OutputError, match="was not made by modalign"):
        fetched(entry, publisher, tmp_path)
    assert (tmp_path / entry.name / "mine").read_text() == "mine"


def test_only_the_files_of_the_set_are_fetched(publisher: Publisher) -> None:
    files = dict.fromkeys(("Zurich_patches.zip", "Balvan_patches.zip", "Eliceiri_patches.zip", "RIRE.zip"), b"1")
    publisher.publish(5557568, files)
    for name, file in zip(("zurich", "cytological", "histological", "radiological"), files, strict=True):
        offered = offer(ENTRIES[f"multiregeval-{name}"], publisher.server, HURRIED)
        assert [f.name for f in offered.files] == [file]
    publisher.publish(5557568, {"other.zip": b"1"})
    with pytest.raises(UnreadableFileError, match=r"lists no file called \*zurich\*; it lists other.zip"):
        offer(ENTRIES["multiregeval-zurich"], publisher.server, HURRIED)


def test_records_that_are_not_understood_are_named(publisher: Publisher) -> None:
    entry = ENTRIES["bf-shg"]
    with pytest.raises(UnreadableFileError, match="404"):
        offer(entry, publisher.server, HURRIED)
    publisher.records[entry.record] = {"message": "moved"}
    with pytest.raises(UnreadableFileError, match="no record of files"):
        offer(entry, publisher.server, HURRIED)
    publisher.publish(entry.record, {"../evil.zip": b"1"})
    with pytest.raises(UnreadableFileError, match="no record of files"):
        offer(entry, publisher.server, HURRIED)


def test_the_real_addresses_are_those_of_the_publications() -> None:
    assert SERVER == "https://zenodo.org/api/records"
    assert {e.record for e in ENTRIES.values()} == {3874362, 5914759, 5557568}
    assert all(entry.doi == f"10.5281/zenodo.{entry.record}" for entry in ENTRIES.values())


# Layouts


def gray(seed: int, shape: tuple[int, ...] = (20, 24), dtype: type = np.uint8) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 255, (1, *shape)).astype(dtype), Grid(shape), ("gray",))


def colour(seed: int, shape: tuple[int, ...] = (20, 24)) -> Image:
    data = np.random.default_rng(seed).integers(0, 255, (3, *shape)).astype(np.uint8)
    return Image(data, Grid(shape), ("red", "green", "blue"))


def table(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as sink:
        writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def row_of(name: str, applied: Rigid, sides: tuple[int, ...]) -> dict[str, object]:
    """A row of the published tables: corners before and after the transform that was applied, x first."""
    corners = np.array(list(product(*((0.0, float(n)) for n in sides))))
    row: dict[str, object] = {"Filename": name, "X1_Recover": "", "AngleDegree": 7.0, "Tx": 1.5, "Ty": -2.0}
    for which, places in (("Ref", corners), ("Trans", applied.map_points(corners))):
        for number, place in enumerate(places, 1):
            row |= {f"{axis}{number}_{which}": value for axis, value in zip("XYZ", place[::-1], strict=False)}
    return row


def applied(ndim: int, degrees: float, sides: tuple[int, ...]) -> Rigid:
    center = (np.array(sides, dtype=float) - 1) / 2
    return Rigid.about(center, rotation_matrix(ndim, degrees), np.arange(1.0, ndim + 1.0))


Names = Callable[[int], list[str]]


def multiregeval(root: Path, folds: tuple[str, ...], names: Names, suffix: str, moving: Callable[..., Image]) -> None:
    for number, fold in enumerate(folds, 1):
        for level, (k, name) in product(range(1, 5), enumerate(names(number))):
            place = root / fold / f"patch_tlevel{level}"
            for kind in "RT":
                write_image(place / "A" / "test" / f"{name}_{kind}{suffix}", gray(k))
                write_image(place / "B" / "test" / f"{name}_{kind}{suffix}", moving(k + 50))
            rows = [row_of(n, applied(2, 3.0 * level, (20, 24)), (20, 24)) for n in names(number)]
            table(place / "info_test.csv", rows)


def assert_displaced(pairs: list[DisplacedPair], expected: Rigid) -> None:
    """``fixed_to_moving`` undoes what was applied: the displaced patch shows at y what lies at applied(y)."""
    for pair in pairs:
        assert corner_error(pair.fixed.grid, pair.fixed_to_moving, expected.inverse()) < 1e-6
        assert pair.rotation_degrees == (7.0,)
        assert pair.shift == (-2.0, 1.5)


def test_zurich_patches_are_split_by_tile_and_turned_into_red_green_blue(tmp_path: Path) -> None:
    names = [["zh7_01_01", "zh9_01_02"], ["zh10_01_01"], ["zh14_02_03"]]
    folds = ("fold1", "fold2", "fold3")
    multiregeval(tmp_path / "x" / "Zurich_patches", folds, lambda n: names[n - 1], ".png", colour)
    entry = ENTRIES["multiregeval-zurich"]
    for fold in (1, 2, 3):
        split = entry.pairs(tmp_path, fold)
        assert [p.name for p in split.test] == names[fold - 1]
        assert {p.name for p in split.train} == {n for group in names for n in group} - set(names[fold - 1])
    pair = entry.pairs(tmp_path, 1).test[0]
    assert pair.moving.channels == ("red", "green", "blue")
    assert np.array_equal(pair.moving.data, colour(50).data[::-1])  # the files hold blue first
    assert np.array_equal(pair.fixed.data, gray(0).data)
    displaced = entry.displaced_pairs(tmp_path, 2, 1)
    assert [p.specimen for p in displaced] == names[0]
    assert_displaced(displaced, applied(2, 6.0, (20, 24)))
    with pytest.raises(InvalidInputError, match="fold 1 to 3, not 4"):
        entry.pairs(tmp_path, 4)
    with pytest.raises(InvalidInputError, match="level 1 to 4, not 5"):
        entry.displaced_pairs(tmp_path, 5)


def test_cytological_and_histological_patches(tmp_path: Path) -> None:
    lines = ["DU145", "PNT1A", "LNCaP"]
    multiregeval(
        tmp_path / "Balvan_patches",
        ("fold1", "fold2", "fold3"),
        lambda n: [f"{lines[n - 1]}_do_1_f15_02_01"],
        ".png",
        gray,
    )
    split = ENTRIES["multiregeval-cytological"].pairs(tmp_path, 2)
    assert [p.name for p in split.test] == ["PNT1A_do_1_f15_02_01"]
    assert [p.name for p in split.train] == ["DU145_do_1_f15_02_01", "LNCaP_do_1_f15_02_01"]
    multiregeval(tmp_path / "Eliceiri_patches", ("",), lambda n: ["1B_A4", "2B_D9"], ".tif", colour)
    entry = ENTRIES["multiregeval-histological"]
    assert [[p.name for p in part] for part in entry.pairs(tmp_path)] == [[], ["1B_A4", "2B_D9"]]
    assert np.array_equal(entry.pairs(tmp_path).test[0].moving.data, colour(50).data)
    assert_displaced(entry.displaced_pairs(tmp_path, 1), applied(2, 3.0, (20, 24)))


def test_bf_shg_cores_and_test_patches(tmp_path: Path) -> None:
    for k, name in enumerate(["1B_C1", "2B_E2"]):
        write_image(tmp_path / "BioData/TrainSet" / f"{name}_SHG.tif", gray(k))
        write_image(tmp_path / "BioData/TrainSet" / f"{name}_BF.tif", colour(k))
    for kind in "RT":
        write_image(tmp_path / "BioData/TestSet" / f"{kind}_1B_A1_SHG.tif", gray(7))
        write_image(tmp_path / "BioData/TestSet" / f"{kind}_1B_A1_BF.tif", colour(7))
    entry = ENTRIES["bf-shg"]
    assert [[p.name for p in part] for part in entry.pairs(tmp_path)] == [["1B_C1", "2B_E2"], ["1B_A1"]]
    with pytest.raises(UnreadableFileError, match=r"holds no metadata.csv"):
        entry.displaced_pairs(tmp_path, 1)
    table(tmp_path / "metadata.csv", [row_of("1B_A1_", applied(2, -20.0, (20, 24)), (20, 24))], ";")
    (pair,) = entry.displaced_pairs(tmp_path, 1)
    assert_displaced([pair], applied(2, -20.0, (20, 24)))
    (tmp_path / "BioData/TrainSet/1B_C1_BF.tif").unlink()
    with pytest.raises(UnreadableFileError, match="1B_C1 in one modality only"):
        entry.pairs(tmp_path)


def test_zurich_tiles(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 4096, (4, 12, 14)).astype(np.uint16)
    for number in (10, 12):
        image = Image(data + number, Grid((12, 14)), ("blue", "green", "red", "infrared"))
        write_image(tmp_path / "Zurich_dataset_v1.0/images_tif" / f"zh{number}.tif", image)
    train, test = ENTRIES["zurich-summer"].pairs(tmp_path)
    assert ([p.name for p in train], [p.name for p in test]) == (["zh10"], ["zh12"])
    assert np.array_equal(train[0].fixed.data, (data + 10)[2::-1])
    assert np.array_equal(train[0].moving.data, (data + 10)[3:])
    with pytest.raises(InvalidInputError, match="publishes no displaced pairs"):
        ENTRIES["zurich-summer"].displaced_pairs(tmp_path, 1)


def test_radiological_subvolumes_are_displaced_as_the_table_tells(tmp_path: Path) -> None:
    """A bright voxel of T2 lies where ``fixed_to_moving`` says."""
    grid = Grid((10, 24, 26), (2.0, 1.25, 1.25), unit="millimeter")
    dot = np.zeros((1, *grid.shape), dtype=np.float32)
    dot[0, 5, 11, 12] = 100
    for patient, kind in product(("109", "108"), ("T1", "T2")):
        write_image(tmp_path / f"RIRE/patient_{patient}/mr_{kind}/patient_{patient}_mr_{kind}.mha", Image(dot, grid))
    sets = Subvolumes((12, 20, 20), (("109",), ("108",)))
    motion = applied(3, 10.0, (20, 30, 32))
    table(tmp_path / "RIRE_patches/fold1/patch_tlevel2/info_test.csv", [row_of("109_3", motion, (20, 30, 32))])
    train, test = sets.load(tmp_path, 1)
    assert ([p.name for p in train], [p.name for p in test]) == (["108"], ["109"])
    assert test[0].fixed.grid.spacing == (1.0, 1.0, 1.0)
    assert test[0].fixed.grid.shape == (12, 20, 20)
    assert np.array_equal(test[0].fixed.data, test[0].moving.data)
    (pair,) = sets.displaced(tmp_path, 1, 2)
    assert (pair.specimen, pair.draw) == ("109", 3)
    places = []
    for image in (pair.fixed, pair.moving):
        weights = np.clip(image.data[0], 0, None) ** 2
        indices = np.indices(weights.shape).reshape(3, -1).astype(float)
        places.append(image.grid.index_to_world((indices * weights.ravel()).sum(1) / weights.sum()))
    assert np.linalg.norm(pair.fixed_to_moving.map_points(places[0]) - places[1]) < 0.3


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    for entry in ENTRIES.values():
        with pytest.raises(UnreadableFileError, match=r"holds no|no such folder"):
            entry.pairs(tmp_path)
        with pytest.raises(UnreadableFileError, match="modalign data get"):
            entry.pairs(tmp_path / "nowhere")
