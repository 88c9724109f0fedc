"""What an undisturbed batch leaves, to compare every disturbed one with."""

from pathlib import Path

import pytest
from cheap_tasks import cheap_tasks, done_by, records_in

from modalign.batch.processes import Processes

COUNT = 12


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The records of twelve tasks, done by one worker."""
    out = tmp_path_factory.mktemp("undisturbed")
    done_by(Processes(1), cheap_tasks(COUNT, out), out)
    found = records_in(out)
    assert len(found) == COUNT
    return found


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder to give signs in."""
    path = tmp_path / "stage"
    path.mkdir()
    return path
