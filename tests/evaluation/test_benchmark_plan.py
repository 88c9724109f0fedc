"""A plan says what it says, or one line says what is wrong with it."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from modalign.data.pairs import Pair
from modalign.errors import BatchError, FileError
from modalign.evaluation.benchmark.cases import read_cases
from modalign.evaluation.benchmark.plan import ENCODER_KINDS, DatasetPlan, EncoderPlan, Plan, RegistrarPlan, read_plan
from modalign.evaluation.benchmark.protocols import Comir, MultiRegEval, Natural
from modalign.evaluation.peers import PEERS, Elastix
from modalign.io import write_image
from modalign.registration import ENGINES
from modalign.registration.fft_search import FftSearch

DATASET = '[[datasets]]\nname = "tissue"\npairs = "pairs.csv"\nwidth = 48\n'
PROTOCOL = '[[protocols]]\nkind = "comir"\n'
REGISTRAR = '[[registrars]]\nname = "fft-search"\n'
MINIMAL = DATASET + PROTOCOL + REGISTRAR


@pytest.fixture
def folder(tmp_path: Path, make_pair: Callable[..., Pair]) -> Path:
    pair = make_pair(0, (40, 44))
    for number in range(3):
        write_image(tmp_path / f"f{number}.png", pair.fixed)
        write_image(tmp_path / f"m{number}.png", pair.moving)
    return tmp_path


def table(folder: Path, *lines: str, columns: str = "name,fixed,moving") -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return path


def plan(folder: Path, text: str) -> Plan:
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    return read_plan(folder / "plan.toml")


def test_a_short_plan_has_the_published_settings(folder: Path) -> None:
    made = plan(folder, MINIMAL)
    assert [encoder.kind for encoder in made.encoders] == ["identity"]
    assert [registrar.method for registrar in made.registrars] == [FftSearch()]
    assert made.protocols == (Comir(30.0, 1, 0.0),)
    assert (made.success, made.seed) == (0.02, 0)


def test_a_long_plan_is_read_to_the_letter(folder: Path) -> None:
    made = plan(
        folder,
        """
        [benchmark]
        seed = 7
        success = 0.05
        reference = "gradient / fft"
        verdict = true
        worst = 3

        [[datasets]]
        name = "tissue"
        pairs = "pairs.csv"
        only = ["a*", "b2"]
        width = 300

        [[datasets]]
        name = "raw"
        pairs = "raw.csv"

        [[protocols]]
        kind = "comir"
        max_rotation_degrees = 180
        draws = 4
        mirror_fraction = 0.5
        datasets = ["tissue"]

        [[protocols]]
        kind = "multiregeval"
        levels = [2, 4]
        datasets = ["tiss*"]

        [[protocols]]
        kind = "natural"
        datasets = ["raw"]

        [[encoders]]
        name = "learned"
        kind = "comir"
        model = "models/{dataset}"
        datasets = ["tissue"]

        [[encoders]]
        name = "gradient"
        kind = "gradient"

        [[registrars]]
        name = "fft"
        engine = "fft-search"
        options = { max_rotation_degrees = 25 }

        [[registrars]]
        name = "elastix"
        encoders = ["grad*"]
        datasets = ["raw"]
        """,
    )
    assert made.protocols_of("tissue") == [
        Comir(180, 4, 0.5, ("tissue",)),
        MultiRegEval((2, 4), 1, ("tiss*",)),
    ]
    assert made.protocols_of("raw") == [Natural(("raw",))]
    combined = {
        name: [(encoder.name, registrar.name) for encoder, registrar in made.combinations(name)]
        for name in ("tissue", "raw")
    }
    assert combined == {
        "tissue": [("learned", "fft"), ("gradient", "fft")],
        "raw": [("gradient", "fft"), ("gradient", "elastix")],
    }
    assert [r.method for r in made.registrars] == [FftSearch(max_rotation_degrees=25), Elastix()]
    assert (made.seed, made.success, made.verdict, made.worst) == (7, 0.05, True, 3)
    lines = [f"{name},f{i}.png,m{i}.png" for i, name in enumerate(("a1", "b1", "b2"))]
    table(folder, *lines)
    assert [case.name for case in made.cases(made.datasets[0])] == ["a1", "b2"]


TWICE = 'name = "fft-search"\nengine = "features"\n'
WRONG = {
    "not TOML": ("[[datasets]\n", "plan.toml: not valid TOML"),
    "nothing": ("# later", "nothing is said of datasets, protocols, registrars; write at least one [[datasets]]"),
    "part": (MINIMAL + "[[engines]]\n", "unknown part engines; a plan has benchmark, datasets, protocols, registrars"),
    "general key": (MINIMAL + "[benchmark]\nsucces = 0.1\n", "benchmark has no succes; known are seed, success,"),
    "dataset key": (
        MINIMAL.replace("width", "size"),
        "dataset 'tissue' has no size; known are name, pairs, only, width",
    ),
    "protocol key": (PROTOCOL + "level = 1\n" + DATASET + REGISTRAR, "protocol comir has no level; known are max_rot"),
    "protocol": (MINIMAL.replace('"comir"', '"random"'), "protocol 'random'; known are comir, multiregeval, natural"),
    "no protocol kind": (DATASET + "[[protocols]]\ndraws = 1\n" + REGISTRAR, "unknown kind of protocol None; known"),
    "engine": (MINIMAL.replace("fft-search", "ftt"), f"'ftt'; known are {', '.join([*ENGINES, *PEERS])}"),
    "engine option": (MINIMAL + "options = { angle = 3 }\n", "fft-search has no angle; known are "),
    "encoder": (
        MINIMAL + '[[encoders]]\nname = "a"\nkind = "mind"\n',
        f"unknown kind of encoder 'mind'; known are {', '.join(ENCODER_KINDS)}",
    ),
    "encoder called like a kind": (
        MINIMAL + '[[encoders]]\nname = "gradient"\n',
        "the encoder 'gradient' is of kind identity: name another kind",
    ),
    "model of another kind": (
        MINIMAL + '[[encoders]]\nname = "a"\nkind = "gradient"\nmodel = "m"\n',
        "a model belongs to the kind comir",
    ),
    "comir without model": (
        MINIMAL + '[[encoders]]\nname = "a"\nkind = "comir"\n',
        "the encoder 'a' is of kind comir and needs a model folder",
    ),
    "two datasets": (DATASET + MINIMAL, "two datasets are called 'tissue'"),
    "two registrars": (MINIMAL + "[[registrars]]\n" + TWICE, "two registrars are called 'fft-search'"),
    "two protocols": (MINIMAL + PROTOCOL, "two protocols of the dataset 'tissue' make '±30°'"),
    "levels that overlap": (
        MINIMAL
        + '[[protocols]]\nkind = "multiregeval"\nlevels = [1, 2]\n[[protocols]]\nkind = "multiregeval"\nlevels = [2]\n',
        "two protocols of the dataset 'tissue' make 'level 2'",
    ),
    "reference": (MINIMAL + '[benchmark]\nreference = "sift"\n', "no row is called 'sift'; there are originals / fft"),
    "width missing": (
        MINIMAL.replace("width = 48", ""),
        "is displaced and needs a width of at least 16 pixels",
    ),
    "width too small": (MINIMAL.replace("48", "8"), "needs a width of at least 16 pixels, not 8"),
    "name of a folder": (MINIMAL.replace("tissue", "a/b"), "the dataset name 'a/b' is no name for a folder"),
    "registrar of no encoder": (
        MINIMAL + 'encoders = ["originals", "comir"]\n',
        "registrar 'fft-search': encoders: nothing is called 'comir'; there are originals",
    ),
    "registrar of no dataset": (
        MINIMAL + 'datasets = ["tis*", "typo*"]\n',
        "registrar 'fft-search': datasets: nothing is called 'typo*'; there are tissue",
    ),
    "encoder of no dataset": (
        MINIMAL + '[[encoders]]\nname = "a"\ndatasets = ["typo"]\n',
        "encoder 'a': datasets: nothing is called 'typo'; there are tissue",
    ),
    "no patterns": (MINIMAL + "encoders = []\n", "encoders: an empty list matches nothing; there are originals"),
    "nothing combined": (
        MINIMAL + 'datasets = ["b"]\n' + DATASET.replace("tissue", "b"),
        "the dataset 'tissue' has no protocol, encoder or registrar",
    ),
    "no protocol": (
        MINIMAL.replace("comir", 'comir"\ndatasets = ["other"]\n#'),
        "protocol ±30°: datasets: nothing is called 'other'; there are tissue",
    ),
    "no pairs": ('[[datasets]]\nname = "x"\n' + PROTOCOL + REGISTRAR, "dataset 'x' has no pairs"),
    "no name": (MINIMAL.replace('name = "fft-search"', 'engine = "fft-search"'), "registrar '' has no name"),
    "part as one table": (MINIMAL.replace("[[protocols]]", "[protocols]"), "written as [[protocols]]"),
    "part as a text": ('datasets = "x"\n' + PROTOCOL + REGISTRAR, "written as [[datasets]]"),
    "general as a text": ('benchmark = "x"\n' + MINIMAL, "written as [benchmark], not 'x'"),
    "width as text": (MINIMAL.replace("48", '"a"'), "dataset 'tissue': width is a whole number, not 'a'"),
    "width as fraction": (MINIMAL.replace("48", "48.5"), "width is a whole number, not 48.5"),
    "only as text": (DATASET + 'only = "a"\n' + PROTOCOL + REGISTRAR, "only is a list, each a text, not 'a'"),
    "no draws": (PROTOCOL + "draws = 0\n" + DATASET + REGISTRAR, "draws must be at least 1, not 0"),
    "draws as truth": (PROTOCOL + "draws = true\n" + DATASET + REGISTRAR, "draws is a whole number, not True"),
    "levels from 0": (
        DATASET + '[[protocols]]\nkind = "multiregeval"\nlevels = [0]\n' + REGISTRAR,
        "levels are some of 1, 2, 3, 4, each once, not [0]",
    ),
    "levels as number": (
        DATASET + '[[protocols]]\nkind = "multiregeval"\nlevels = 2\n' + REGISTRAR,
        "levels is a list, each a whole number, not 2",
    ),
    "rotation": (PROTOCOL + "max_rotation_degrees = 200\n" + DATASET + REGISTRAR, "0° to 180°"),
    "rotation nan": (PROTOCOL + "max_rotation_degrees = nan\n" + DATASET + REGISTRAR, "is a finite number, not nan"),
    "seed": (MINIMAL + "[benchmark]\nseed = 1.5\n", "benchmark: seed is a whole number, not 1.5"),
    "success": (MINIMAL + "[benchmark]\nsuccess = 2\n", "success is a fraction of the width between 0 and 1, not 2"),
    "negative seed": (MINIMAL + "[benchmark]\nseed = -5\n", "seed is not negative, but -5 is"),
    "negative worst": (MINIMAL + "[benchmark]\nworst = -2\n", "worst is not negative, but -2 is"),
    "verdict": (MINIMAL + '[benchmark]\nverdict = "yes"\n', "verdict is true or false, not 'yes'"),
    "folder": (MINIMAL + '[benchmark]\nfolder = "/"\n', "benchmark has no folder; known are seed, success, ref"),
    "options as text": (MINIMAL + 'options = "a"\n', "options is a table, not 'a'"),
    "option as text": (
        MINIMAL + 'options = { max_rotation_degrees = "a" }\n',
        "fft-search: max_rotation_degrees is a finite number, not 'a'",
    ),
    "option out of range": (
        MINIMAL + "options = { max_rotation_degrees = -3 }\n",
        "options of 'fft-search'",
    ),
    "option of a list": (
        MINIMAL + '[[registrars]]\nname = "features"\noptions = { transform = "bent" }\n',
        "features: transform is one of rigid, similarity, affine, not 'bent'",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_plan_is_said_in_one_line(folder: Path, text: str, said: str) -> None:
    with pytest.raises(BatchError) as caught:
        plan(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "plan.toml"))
    assert said in message
    assert len(message.splitlines()) == 1


def test_the_documented_plan_says_everything_that_a_plan_may_say(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "benchmark.md"
    short, text = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert [r.name for r in plan(tmp_path, short).registrars] == ["fft-search", "simpleitk-mi"]
    made, told = plan(tmp_path, text), tomllib.loads(text)
    for part, kinds in (
        ("datasets", [DatasetPlan]),
        ("encoders", [EncoderPlan]),
        ("registrars", [RegistrarPlan]),
        ("protocols", [Comir, MultiRegEval, Natural]),
    ):
        keys = {key for entry in told[part] for key in entry} - ({"kind"} if part == "protocols" else set())
        assert keys == {entry.name for kind in kinds for entry in fields(kind)}
    assert set(told["benchmark"]) | set(told) == {entry.name for entry in fields(Plan)} - {"folder"} | {"benchmark"}
    for key in set(told["benchmark"]) - {"reference"}:  # what the page shows is the default
        assert getattr(made, key) == getattr(Plan, key)
    for protocol in made.protocols:
        assert protocol == type(protocol)(datasets=protocol.datasets)
    for name in (*ENCODER_KINDS, *PEERS):
        assert f"`{name}`" in page.read_text(encoding="utf-8")


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(FileError, match=str(path)):
            read_plan(path)


def test_one_method_may_have_other_draws_on_every_set(folder: Path) -> None:
    other = DATASET.replace("tissue", "second")
    text = DATASET + other + REGISTRAR
    for name, draws in (("tissue", 2), ("second", 5)):
        text += f'{PROTOCOL}draws = {draws}\ndatasets = ["{name}"]\n'
    made = plan(folder, text)
    assert [[p.draws for p in made.protocols_of(name)] for name in ("tissue", "second")] == [[2], [5]]


def test_no_pair_is_called_as_the_plan_says(folder: Path) -> None:
    table(folder, "a1,f0.png,m0.png", "a2,f1.png,m1.png")
    made = plan(folder, DATASET + 'only = ["b*", "c"]\n' + PROTOCOL + REGISTRAR)
    with pytest.raises(BatchError, match=r"dataset 'tissue': only: nothing is called 'b\*'; there are a1, a2"):
        made.cases(made.datasets[0])


def test_the_table_of_pairs(folder: Path) -> None:
    path = table(folder, "f0.png,m0.png,", "f1.png,m1.png,animal", columns="fixed,moving,specimen")
    first, second = read_cases(path)
    assert (first.name, first.specimen, first.fixed, first.mask) == ("f0", "f0", folder / "f0.png", None)
    assert (second.name, second.specimen) == ("f1", "animal")
    assert second.files == (folder / "f1.png", folder / "m1.png")


TABLES = {
    "no moving": (["a,f0.png"], "name,fixed", "no column 'moving'; known are name, specimen, fixed"),
    "other column": (["f0.png,m0.png,3"], "fixed,moving,angle", "unknown column 'angle'; known are"),
    "no rows": ([], "fixed,moving", "the table has no rows"),
    "missing file": (["f0.png,m0.png", "f1.png,m9.png"], "fixed,moving", "line 3: there is no file "),
    "empty cell": ([",m0.png"], "fixed,moving", "line 2: no file is named in fixed"),
    "half of the landmarks": (
        ["f0.png,m0.png,m1.png"],
        "fixed,moving,fixed_landmarks",
        "line 2: no file is named in moving_landmarks",
    ),
    "twice": (["A,f0.png,m0.png", "a,f1.png,m1.png"], "name,fixed,moving", "line 3: the name 'a' occurs twice"),
    "folder": (["a/b,f0.png,m0.png"], "name,fixed,moving", "line 2: the pair's name 'a/b' is no name for a folder"),
}


@pytest.mark.parametrize(("lines", "columns", "said"), TABLES.values(), ids=TABLES)
def test_what_is_wrong_with_a_table_is_said_with_its_line(
    folder: Path, lines: list[str], columns: str, said: str
) -> None:
    with pytest.raises(BatchError) as caught:
        read_cases(table(folder, *lines, columns=columns))
    assert said in str(caught.value)
    assert "pairs.csv" in str(caught.value)
