"""Commands on the page can be copied, and help with what went wrong."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest

from modalign.registration import METHODS, FftSearch, Registration
from modalign.report import RegisterCommand, ReportContent, apply_commands, changed_options
from modalign.report.advice import REMEDIES, advice

Make = Callable[..., ReportContent]
VERB = {
    "--out",
    "--engine",
    "--model",
    "--fixed-pixel-size",
    "--moving-pixel-size",
    "--unit",
    "--fixed-mask",
    "--moving-mask",
}


def because(content: ReportContent, reason: str, **others) -> ReportContent:
    return replace(content, registration=Registration("fft-search", "refused", None, (reason,)), **others)


@pytest.mark.parametrize(
    ("reason", "first"),
    [
        ("the images hardly correlate anywhere (0.03); use a representation in which they look alike", "--model MODEL"),
        ("another place fits almost as well (contrast 0.10)", "--max-rotation-degrees 20"),
        ("the images overlap by only 12%", "--min-overlap 0.1"),
        ("it stretches one direction 1.4 times more than another", "--transform affine"),
        ("an image looks unlike those the model was trained on", "--fixed-mask FIXED_MASK.tif"),
    ],
)
def test_the_first_advice_answers_the_reason(make_content: Make, reason, first):
    content = replace(make_content("refused"), evidence=())
    told = advice(because(content, reason))
    assert len(told) == 4
    assert first in told[0].line
    assert len({command.line for command in told}) == 4


def test_a_missing_pixel_size_is_asked_for_only_where_it_is_missing(make_content: Make):
    content = make_content("refused")
    assert not any("--fixed-pixel-size" in command.line for command in advice(content))
    sizeless = tuple(replace(record, unit="pixel") for record in content.inputs)
    note = "the moving image has no pixel size"
    assert "--fixed-pixel-size 0.5" in advice(because(content, note, inputs=sizeless))[0].line


def test_commands_keep_what_was_given_and_no_result_is_overwritten(make_content: Make):
    content = make_content("refused", names=("a b.tif", "it's.tif"))
    lines = [shlex.split(command.line) for command in advice(content)]
    assert all(words[:4] == ["modalign", "register", "a b.tif", "it's.tif"] for words in lines)
    outs = [words[words.index("--out") + 1] for words in lines]
    assert outs == ["out-try1", "out-try2", "out-try3", "out-try4"]
    assert all(words[words.index("--max-side") + 1] == "512" for words in lines)


def test_options_of_an_engine_do_not_survive_it(make_content: Make):
    command = RegisterCommand("f", "m", "mutual-information", {"--out": ("o",)}, {"--bins": ("20",)})
    lines = [told.line for told in advice(replace(make_content("refused"), command=command))]
    searches = [line for line in lines if "--engine fft-search" in line]
    assert searches
    assert not any("--bins" in line for line in searches)
    assert all("--bins 20" in line for line in lines if "mutual-information" in line)


def test_what_was_tried_is_not_advised_again(make_content: Make):
    content = make_content("refused")
    assert any("--mirror" in command.line for command in advice(content))
    tried = replace(content, command=replace(content.command, engine_options={"--mirror": ()}))
    assert sum("--mirror" in command.purpose or "mirrored" in command.purpose for command in advice(tried)) == 0


def test_volumes_are_advised_as_images_are_but_not_to_use_methods_for_pictures(make_content: Make):
    lines = [command.line for command in advice(make_content("refused", 3, (1, 1)))]
    assert any("--mirror" in line for line in lines)
    assert not any(f"--engine {name} " in f"{line} " for name in ("features", "sift", "dense") for line in lines)


def test_no_command_no_advice(make_content: Make):
    assert advice(replace(make_content("refused"), command=None)) == ()


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda remedy: remedy.purpose[:30])
def test_remedies_use_options_that_exist(remedy):
    assert set(remedy.options) <= VERB
    for engine in set(remedy.engines) & set(METHODS):
        known = {f"--{field.name.replace('_', '-')}" for field in fields(METHODS[engine])}
        assert set(remedy.engine_options) <= known
    assert not remedy.engines or remedy.engines[0] in METHODS


def test_results_are_used_with_commands_that_quote_names():
    lines = [shlex.split(command.line) for command in apply_commands("out/transform.json", "the fixed.tif", "m.tif")]
    assert lines[0][2:6] == ["m.tif", "out/transform.json", "--like", "the fixed.tif"]
    assert [words[1] for words in lines] == ["apply", "apply", "apply", "evaluate"]


@dataclass(frozen=True)
class Options:
    size: float = 1.0
    is_strict: bool = False
    fills: bool = True
    angles: tuple[float, ...] = (0.0,)
    nested: FftSearch = FftSearch()


def test_options_as_they_were_given():
    assert changed_options(Options(), Options()) == {}
    given = Options(0.5, True, False, (-20.0, 20.0), FftSearch(mirror=True))
    assert changed_options(given, Options()) == {
        "--size": ("0.5",),
        "--is-strict": (),
        "--no-fills": (),
        "--angles": ("-20.0", "20.0"),
    }
