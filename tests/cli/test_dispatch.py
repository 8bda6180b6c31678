# SPDX-License-Identifier: Apache-2.0
"""The command's parser: generated from the options, so every field is looked at."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt, MinLen
from hypothesis import assume, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from dual_skd import options
from dual_skd.cli.dispatch import COMMANDS, main, overview, parser_of
from dual_skd.errors import InputError
from dual_skd.options import Evaluation, Training
from dual_skd.options.arguments import given
from dual_skd.options.kinds import BY_THE_RUN, is_text, parts_of, takes_several

TRAIN = parser_of("train")


def parsed(*words: str) -> dict[str, Any]:
    return given(TRAIN.parse(words), Training)


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, wanted", [
    (["--epochs", "3"], {"epochs": 3}),
    (["--epochs=3", "--epochs", "4"], {"epochs": 4}),
    (["--patient-pattern", "(a b)_.*"], {"patient_pattern": "(a b)_.*"}),
    (["--patient_pattern=-x=(y)"], {"patient_pattern": "-x=(y)"}),
    (["--patient-pattern", "-x"], {"patient_pattern": "-x"}),
    (["--patient-pattern", ""], {"patient_pattern": ""}),
    (["--cache-dir", "2024_06"], {"cache_dir": "2024_06"}),
    (["-o", "Übung/$x/@y"], {"output_dir": "Übung/$x/@y"}),
    (["-o%x"], {"output_dir": "%x"}),
    (["--output_dir=--strange"], {"output_dir": "--strange"}),
    (["--amp"], {"amp": "true"}),
    (["--amp", "False"], {"amp": False}),
    (["--amp=true"], {"amp": "true"}),
    (["--no-amp"], {"amp": "false"}),
    (["--no_class_weights"], {"class_weights": "false"}),
    (["--image-size", "48"], {"image_size": 48}),
    (["--image-size", "48", "48", "24"], {"image_size": [48, 48, 24]}),
    (["--image_size", "48", "--image-size", "24"], {"image_size": [48, 24]}),
    (["--image-size", "[48,48,24]"], {"image_size": [48, 48, 24]}),
    (["--window", "-600", "1500.5"], {"window": [-600, 1500.5]}),
    (["--window", "lung"], {"window": "lung"}),
    (["--label-column", "a b"], {"label_column": "a b"}),
    (["--label-column", "a", "b"], {"label_column": ["a", "b"]}),
    (["--label_column=a", "--label-column", "b"], {"label_column": ["a", "b"]}),
    (["--label-column", "['a','b c']"], {"label_column": ["a", "b c"]}),
    (["--class-names", "0", "1"], {"class_names": ["0", "1"]}),
    (["--class-names", "['0','']"], {"class_names": ["0", ""]}),
    (["--class-map", "{'1': 'ill', '0': ''}"], {"class_map": {"1": "ill", "0": ""}}),
    (["--small-options", '{"width": 0.5}'], {"small_options": {"width": 0.5}}),
    (["--selection-layers", "[[0, 1], [2]]"], {"selection_layers": [[0, 1], [2]]}),
    (["--flip-axes", "0", "1"], {"flip_axes": [0, 1]}),
    (["--frame", "3"], {"frame": 3}),
])  # fmt: skip
def test_words_mean_what_the_model_says_and_data_stands_before_or_after(words, wanted):
    assert parsed("DATA", *words) == {"dataset_dir": "DATA"} | wanted
    assert parsed(*words, "--seed", "1", "DATA") == {"dataset_dir": "DATA", "seed": 1} | wanted


@pytest.mark.parametrize("words", [["--amp"], ["--no-amp"], ["--image-size", "48", "24"], ["--window", "lung"]])
def test_a_switch_or_a_list_leaves_the_data_alone(words):
    assert parsed(*words, "DATA")["dataset_dir"] == "DATA"


def test_the_last_of_several_names_is_the_data_where_it_is_a_path(tmp_path):
    assert parsed("--label-column", "a", "b", str(tmp_path)) == {
        "label_column": ["a", "b"], "dataset_dir": str(tmp_path)
    }  # fmt: skip
    assert parsed("--label-column", "a", "demo") == {"label_column": "a", "dataset_dir": "demo"}
    assert parsed("--label-column", "a", "b") == {"label_column": ["a", "b"]}
    assert parsed("--", "-DATA") == {"dataset_dir": "-DATA"}


@pytest.mark.parametrize("words, said", [
    (["--epoch", "3"], "Unknown option --epoch (did you mean epochs?)"),
    (["--imagesize=3"], "Unknown option --imagesize (did you mean image-size"),
    (["--no-epochs"], "Unknown option --no-epochs (did you mean epochs"),
    (["-x=3"], "Unknown option -x;"),
    (["-x"], "Unknown option -x;"),
    (["--epochs"], "--epochs is given without a value, expected a whole number of at least 1"),
    (["--learning-rate", "--epochs", "3"], "--learning-rate is given without a value"),
    (["--config"], "--config: expected one argument"),
    (["E"], "Unrecognized arguments: E"),
])  # fmt: skip
def test_what_no_command_takes_is_one_sentence_and_ends_with_2(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("DATA", *words)
    message = capsys.readouterr().err
    assert said in message and message.startswith("Error: ") and message.count("\n") == 1


def test_a_command_that_does_not_exist_is_told_the_near_one(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("Error: Unknown command trian (did you mean train?)")


# --- every field ------------------------------------------------------------------------------------------------------


def values_of(kind: Any, limits: list[Any]) -> st.SearchStrategy:
    """Values that a kind takes."""
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return values_of(inner, [*limits, *more])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is list:
        least, most = next(((one.min_length, one.max_length) for one in limits if isinstance(one, Len)), (0, None))
        return st.lists(values_of(get_args(kind)[0], []), min_size=least, max_size=most or 3)
    if get_origin(kind) is dict:
        return st.dictionaries(names.filter(lambda name: name not in BY_THE_RUN), names, max_size=2)
    if kind in (int, float):
        low = next((one.ge for one in limits if isinstance(one, Ge)), None)
        above = next((one.gt for one in limits if isinstance(one, Gt)), None)
        high = next((one.le for one in limits if isinstance(one, Le)), None)
        below = next((one.lt for one in limits if isinstance(one, Lt)), None)
        if kind is int:
            return st.integers(low, high if below is None else below - 1)
        bounds = {"min_value": above if low is None else low, "max_value": below if high is None else high}
        strict = {"exclude_min": above is not None, "exclude_max": below is not None}
        return st.floats(**bounds, **strict, allow_nan=False, allow_infinity=False)
    if kind is bool:
        return st.booleans()
    if kind is str:
        return names.filter(bool) if any(isinstance(one, MinLen) for one in limits) else names
    return st.one_of([values_of(one, []) for one in get_args(kind)])  # a union whose words stand for all of it


names = st.text(max_size=12)
# a name in brackets reads as a list on every command line
single = names.filter(lambda name: not name.startswith("["))


def example_of(draw: Any, name: str) -> Any:
    if name == "fold":
        return draw(st.integers(0, 999))
    if name == "flip_axes":
        return draw(st.lists(st.integers(0, 1), max_size=2))
    field = Training.model_fields[name]
    kind, limits = draw(st.sampled_from(parts_of(field.annotation, field.metadata)))
    value = draw(values_of(kind, limits))
    return draw(single) if isinstance(value, str) and is_text(field) and takes_several(field) else value


def in_capitals(found: dict[str, Any]) -> dict[str, Any]:
    """Settings with the capital words that stand for places."""
    words = {"dataset_dir": "DATA", "output_dir": "OUT"}
    places = {
        name: words.get(name, name.upper())
        for name, mark in options.marks(Training).items()
        if mark.path and name in found and found[name] is not None and found[name] not in mark.words
    }
    return found | places


def words_of(command: str) -> list[str]:
    """The words of a command, as bash takes them, which knows $'\\x1f'; shlex doesn't."""

    def plain(found: re.Match[str]) -> str:
        return shlex.quote(ast.literal_eval(f"'{found[1]}'"))

    return shlex.split(re.sub(r"(?<=[ =])\$'((?:[^'\\]|\\.)*)'", plain, command))


@pytest.mark.parametrize("name", Training.model_fields)
@settings(max_examples=25)
@for_all(data=st.data())
def test_any_value_is_in_the_command_of_a_run_which_makes_the_same_run(name, data):
    value = example_of(data.draw, name)
    with_it = {
        "fold": {"folds": 1000}, "selection_student": {"method": "dual"}, "image_size": {"spatial_dims": 3},
        "teacher_checkpoint": {"method": "distill"},
    }.get(name, {})  # fmt: skip
    teacher = {"teacher_checkpoint": "model.pt"} if value in ("distill", "teacher") else {}
    try:
        run = options.resolved(options.read(Training, {name: value} | with_it | teacher))
    except InputError as error:
        assume(not re.search("a list of [23] for|window is", str(error)))
        raise
    multi_label = run.loss == "bce" if run.loss else data.draw(st.booleans())
    made = options.settings(run, multi_label=multi_label)
    command = words_of(options.training_command(made))
    assert command[:2] == ["dual-skd", "train"]
    again = options.resolved(options.read(Training, parsed(*command[2:])))
    assert options.settings(again, multi_label=multi_label) == in_capitals(made)
    option = f"--{name.replace('_', '-')}"
    beside = {} if name == "teacher_checkpoint" else with_it  # a teacher and its method need each other
    others = options.settings(options.resolved(options.read(Training, beside)), multi_label=multi_label)
    if name not in ("dataset_dir", "output_dir") and name in made and made[name] != others[name]:
        assert any(word.partition("=")[0] == option for word in command)


@pytest.mark.parametrize("name, kind", [("train", Training), ("evaluate", Evaluation)])
def test_every_option_is_in_the_whole_help_and_the_everyday_ones_in_the_short_one(name, kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            main([name, flag])
        shown[flag] = capsys.readouterr().out
        assert max(map(len, shown[flag].splitlines())) <= 80 and "](" not in shown[flag] and "`" not in shown[flag]
    places = parser_of(name).places
    for option, marks in options.marks(kind).items():
        words = f"--{option.replace('_', '-')}"
        if words not in places:
            assert f" {words} " in shown["--help-all"].replace("\n", " \n")
            assert (f" {words} " in shown["--help"].replace("\n", " \n")) == marks.everyday, option


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_an_example_that_the_command_takes(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([name, "-h"])
    lines = capsys.readouterr().out.splitlines()
    assert [f"  {example}" for example in COMMANDS[name].examples] == lines[: len(COMMANDS[name].examples)]
    assert max(map(len, lines)) <= 80
    for example in COMMANDS[name].examples:
        assert parser_of(name).parse(shlex.split(example)[2:])


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_are_written_in_one_way(name):
    parser = parser_of(name)
    for action in parser._actions:
        option = action.option_strings[-1] if action.option_strings else ""
        if action.nargs == 0 or option in parser.fields:
            continue
        assert action.metavar or action.dest.isupper(), option or action.dest
        assert action.type not in (int, float) or action.metavar == {int: "N", float: "X"}[action.type], option
        assert not action.default or "default: " in action.help, option
        assert " by default" not in action.help and not action.help.startswith("default"), option


def test_the_overview_names_every_command_and_imports_nothing_heavy():
    text = overview()
    assert all(f"\n  {name} " in text for name in COMMANDS) and max(map(len, text.splitlines())) <= 80
    assert text.startswith("  dual-skd train DATA")
    code = "import sys; from dual_skd.cli import main; main(['-h']); print({'pydantic', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == text + "set()\n"


def test_a_misspelt_word_is_refused_before_anything_heavy_is_imported(tmp_path):
    words = ["train", str(tmp_path), "--preset", "volume", "--on-bad-number", "stpo"]
    code = f"import sys; from dual_skd.cli import main; print(main({words}), {{'monai', 'torch'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 set()\n"
    assert done.stderr == ("Error: Unknown on_bad_number 'stpo' (did you mean stop?); valid: stop, skip, ignore.\n")


def test_python_m_shows_the_commands_name():
    done = subprocess.run([sys.executable, "-m", "dual_skd", "check"], capture_output=True, text=True)
    assert done.returncode == 2 and "`dual-skd check -h`" in done.stderr


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="has no such shell")
@pytest.mark.parametrize(
    "line", ["{} -h | true", "{} check nowhere 2>&1 | true", "{} -h >&-", "{} check nowhere >&- 2>&-"]
)
def test_output_that_nobody_reads_ends_without_a_traceback(line, tmp_path):
    program = f"{shlex.quote(sys.executable)} -m dual_skd"
    done = subprocess.run(["bash", "-c", line.format(program)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize("words, said", [
    (["train", "a", "--dataset-dir", "b"], "DATA is a and --dataset-dir b; give one of them"),
    (["train", "a", "--cache-dir", "--no-amp"], "--cache-dir is given without a value"),
    (["train", "a", "--label-column", "--epocs=3"], "--label-column is given without a value"),
    (["export", "O", "--formats", "onxx"], "invalid choice: 'onxx'"),
])  # fmt: skip
def test_nothing_is_swallowed(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert said in capsys.readouterr().err


def test_a_list_leaves_data_where_it_is_given_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "32", "noise"):
        (tmp_path / name).mkdir()
    assert parsed("--dataset-dir", "data", "--label-column", "a", "b") == {
        "dataset_dir": "data", "label_column": ["a", "b"]
    }  # fmt: skip
    assert parsed("--dataset-dir", "data", "--image-size", "32", "32")["image_size"] == [32, 32]
    args = parser_of("learning-curve").parse(["--fractions", "0.1", "0.5", "DATA", "-o", "c"])
    assert (args.data, args.fractions) == ("DATA", [0.1, 0.5])


@pytest.mark.parametrize(
    "folder, said", [("nowhere", "There is no folder "), ("here", "No training has written into ")]
)
def test_a_folder_without_a_run_is_refused_before_anything_is_loaded(folder, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert main(["evaluate", folder]) == 1
    message = capsys.readouterr().err
    assert said in message and message.startswith("Error: ")


def test_a_folder_of_results_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "a.csv").touch()
    assert main(["train", "demo", "-o", str(tmp_path / "a.csv")]) == 1
    assert "a.csv is a file; give the name of a folder." in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name not in ("train", "evaluate", "learning-curve", "select")]
)
def test_the_whole_help_of_a_command_without_rare_options_is_its_help(name, capsys):
    shown = []
    for flag in ("-h", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            main([name, flag])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "--help-all" not in shown[0]
