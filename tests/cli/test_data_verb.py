"""``modalign data``: what it shows, what it asks, and what is there afterwards."""

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from publisher import Publisher, publishing, zipped

from modalign.data.catalogue import ENTRIES, RECEIPT

NAME = "zurich-summer"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as publisher:
        publisher.publish(ENTRIES[NAME].record, {"z.zip": zipped({"images_tif/zh10.tif": b"1"})})
        yield publisher


def test_the_list_names_every_set_in_words_and_in_json(run) -> None:
    ran = run("data", "list")
    assert ran.status == 0
    assert all(name in ran.out for name in ENTRIES)
    facts = json.loads(run("data", "list", "--json").out)
    assert [fact["name"] for fact in facts] == list(ENTRIES)
    assert {fact["licence"] for fact in facts} == {None}  # the publisher's record tells it, and is asked by get


def test_a_set_is_fetched_with_its_licence_shown(run, publisher: Publisher, tmp_path: Path) -> None:
    ran = run("data", "get", NAME, "--to", tmp_path, "--accept-licence", "--server", publisher.server)
    assert ran.status == 0
    assert ran.out.strip() == str(tmp_path / NAME)
    for shown in ("cc-by-4.0", "doi.org/10.5281/zenodo.5914759", "please cite", "z.zip (", "100%"):
        assert shown in ran.err
    assert (tmp_path / NAME / RECEIPT).is_file()


def test_a_licence_that_is_not_accepted_fetches_nothing(run, publisher: Publisher, tmp_path: Path) -> None:
    ran = run("data", "get", NAME, "--to", tmp_path, "--server", publisher.server)
    assert ran.status == 2
    assert "was not accepted" in ran.err
    assert "--accept-licence" in ran.err
    assert list(tmp_path.iterdir()) == []
    assert [path for path, _ in publisher.asked if "/files/" in path] == []


class Terminal(StringIO):
    """Where a person types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("no\n", 2), ("", 2)])
def test_a_person_is_asked(
    typed: str, status: int, run, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", screen)
    assert run("data", "get", NAME, "--to", tmp_path, "--server", publisher.server).status == status
    assert "Do you accept this licence?" in screen.getvalue()
    assert (tmp_path / NAME).exists() == (status == 0)


def test_mistakes_are_one_line_and_say_what_would_have_worked(run, publisher: Publisher, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("mine")
    options = ("--accept-licence", "--server", publisher.server)
    for arguments, words in (
        (("data", "get", "zurich", "--to", tmp_path), f"there are {', '.join(ENTRIES)}"),
        (("data", "get", NAME, "--to", taken), "is a file"),
        (("data", "get", "bf-shg", "--to", tmp_path), "answers 404"),
        (("data", "get", NAME, "--to", tmp_path, "--server", "here"), "begins with http:// or https://, not 'here'"),
    ):
        ran = run(*arguments[:3], *options, *arguments[3:])
        assert ran.status == 2
        complaint = ran.err.strip().splitlines()[-1]
        assert complaint.startswith("modalign: ")
        assert words in complaint
        assert "Traceback" not in ran.err
    assert taken.read_text() == "mine"


def test_a_set_to_be_completed_by_hand_says_how(run, publisher: Publisher, tmp_path: Path) -> None:
    name = "multiregeval-radiological"
    publisher.publish(ENTRIES[name].record, {"RIRE_patches.zip": zipped({"RIRE_patches/fold1/x.csv": b"1"})}, None)
    ran = run("data", "get", name, "--to", tmp_path, "--accept-licence", "--server", publisher.server)
    assert ran.status == 0
    assert "licence: none is stated" in ran.err
    assert "by hand" in ran.err.splitlines()[-1]
    assert "insight-journal.org" in ran.err.splitlines()[-1]


def test_help_names_both_actions(run) -> None:
    ran = run("data", "--help")
    assert ran.status == 0
    assert "list" in ran.out
    assert "get" in ran.out
