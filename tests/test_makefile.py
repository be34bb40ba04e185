"""The Makefile prints the right commands."""

import importlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest

import command

ROOT = Path(__file__).parent.parent
STAGES = ("pad/fold0", "pad/fold1", "resize/fold0", "resize/fold1")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run `r` of two folds, nothing trained."""
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "folds.csv").write_text("id,fold\na,0\nb,1\nc,0\n")
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def make(runs: Path, *words: str, dry: bool = True) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    environment["SALTWORKS_RUNS"] = str(runs.parent)
    command = ["make", *(["-n"] if dry else []), "--no-print-directory", "PYTHON=python", "RUN=r", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def commands(runs: Path, *words: str) -> list[str]:
    """Stages that would run, as 'training.train pad/fold0 preset' or 'postprocess.submit'."""
    printed = make(runs, *words)
    assert printed.returncode == 0, printed.stderr
    found = []
    for line in printed.stdout.splitlines():
        if not line.startswith("python -m") or line.endswith("--show"):
            continue
        flags = dict(word[2:].split("=", 1) for word in line.split() if word.startswith("--") and "=" in word)
        place = f" {flags['variant']}/fold{flags['fold']}" if "fold" in flags else ""
        found.append(line.split()[2] + place)
    return found


def test_train_trains_the_whole_grid_of_the_runs_folds(runs: Path):
    assert commands(runs, "train") == ["training.plan", *(f"training.train {model}" for model in STAGES)]


def test_train_one_model(runs: Path):
    assert commands(runs, "train", "FOLD=1", "VARIANT=pad") == ["training.plan", "training.train pad/fold1"]


def test_arguments_and_preset_reach_training_and_plan(runs: Path):
    lines = make(runs, "train", "FOLD=0", "VARIANT=pad", "PRESET=fast", "ARGS=--epochs=3", "DATA=my tiles").stdout
    for stage in ("plan", "train"):
        line = next(line for line in lines.splitlines() if f"training.{stage}" in line)
        assert f"training.{stage} fast " in line and '--data="my tiles"' in line and "--epochs=3" in line


def test_submit_with_folds_makes_everything_that_is_missing(runs: Path):
    touch(runs, "pad/fold0/final.pt")
    found = commands(runs, "submit", "FOLDS=0 1", "VARIANT=pad")
    assert [line for line in found if line.startswith("training.train")] == ["training.train pad/fold1"]
    for model in ("pad/fold0", "pad/fold1"):
        assert found.index(f"training.swa {model}") < found.index(f"inference.predict {model}")
    stages = [line for line in found if line.split(".")[0] in ("datasets", "postprocess")]
    assert stages == [
        "postprocess.ensemble",
        "postprocess.threshold",
        "datasets.mosaic",
        "postprocess.rules",
        "postprocess.submit",
    ]


def test_bare_stages_train_nothing_and_say_what_is_missing(runs: Path):
    touch(runs, "pad/fold0/final.pt")
    assert commands(runs, "swa") == ["training.swa pad/fold0"]
    assert commands(runs, "predict") == ["training.swa pad/fold0", "inference.predict pad/fold0"]
    found = commands(runs, "submit")
    assert found[:2] == ["training.swa pad/fold0", "inference.predict pad/fold0"] and found[-1] == "postprocess.submit"
    assert not [line for line in found if line.startswith("training.train")]
    told = make(runs, "missing", dry=False).stderr
    assert "1 of 4 models are trained" in told and "pad/fold1 resize/fold0 resize/fold1" in told


def test_folders_that_are_no_models_of_the_grid_do_not_join(runs: Path):
    touch(runs, "pad/fold0/final.pt", "pad-old/fold0/final.pt", "pad/fold0-copy/final.pt", "pad/fold7/final.pt")
    assert commands(runs, "swa") == ["training.swa pad/fold0"]


def test_bare_stages_without_any_model_are_refused(runs: Path):
    result = make(runs, "missing", dry=False)
    assert result.returncode != 0
    assert "has no trained model: run `make train FOLD=0 RUN=r PRESET=... DATA=...` first" in result.stderr


def test_what_is_done_is_not_done_again(runs: Path):
    files = [f"pad/fold0/{name}" for name in ("final.pt", "swa.pt", "test.csv")]
    touch(runs, *files)
    (runs / "models.txt").write_text("pad/fold0\n")
    touch(runs, "ensemble.json", "threshold.json", "mosaics.csv", "rules.json", "submission.csv")
    assert commands(runs, "submit") == []


def test_another_set_of_models_makes_the_ensemble_again(runs: Path):
    files = [f"pad/fold{fold}/{name}" for fold in (0, 1) for name in ("final.pt", "swa.pt", "test.csv")]
    touch(runs, *files)
    (runs / "models.txt").write_text("pad/fold0 pad/fold1\n")
    touch(runs, "ensemble.json", "threshold.json", "mosaics.csv", "rules.json", "submission.csv")
    assert commands(runs, "submit") == []
    assert "postprocess.ensemble" in commands(runs, "submit", "FOLD=1", "VARIANT=pad")


def test_a_named_preset_is_checked_even_when_all_is_trained(runs: Path):
    touch(runs, *(f"{model}/final.pt" for model in STAGES))
    assert commands(runs, "train", "PRESET=fast") == ["training.plan"]
    assert "training.plan" in commands(runs, "swa", "PRESET=fast")
    assert "training.plan" not in commands(runs, "swa")


def test_arguments_run_their_stage_again_and_never_train_without_them(runs: Path):
    touch(runs, *(f"pad/fold0/{name}" for name in ("final.pt", "swa.pt", "test.csv")))
    (runs / "models.txt").write_text("pad/fold0\n")
    touch(runs, "ensemble.json", "threshold.json", "mosaics.csv", "rules.json", "submission.csv")
    assert commands(runs, "submit", "ARGS=--full_empty=False") == ["postprocess.rules", "postprocess.submit"]
    refused = make(runs, "submit", "FOLD=1", "VARIANT=pad", "ARGS=--epochs=1")
    assert refused.returncode != 0 and "pad/fold1 would be trained without them" in refused.stderr


def test_plan_is_of_the_whole_grid_by_default(runs: Path):
    assert '--models="pad/fold0 pad/fold1 resize/fold0 resize/fold1"' in make(runs, "plan").stdout


def test_a_run_of_two_words_is_refused(runs: Path):
    result = make(runs, "submit", "RUN=my run", dry=False)
    assert result.returncode != 0 and 'RUN="my run" is not one word' in result.stderr


def test_help_lists_every_stage(runs: Path):
    told = make(runs, dry=False).stdout
    for stage in ("demo", "test", "train", "swa", "predict", "submit"):
        assert f"make {stage} " in told


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (
            ("demo-tiles",),
            ["datasets.synthetic_satellite", "datasets.folds", "training.train", "training.swa", "inference.validate"],
        ),
        (
            ("demo-carvana",),
            ["datasets.synthetic_cars", "datasets.folds", "training.train", "training.swa", "inference.validate"],
        ),
        (("lessons",), ["datasets.synthetic", "datasets.folds", "training.train", "postprocess.curves"]),
        (("predict", "IMAGES=my photos", "CHECKPOINT=a b.pt", "ARGS=--overlays=False"), ["inference.segment"]),
    ],
)
def test_targets_for_any_images_give_flags_that_their_commands_know(runs: Path, words, modules):
    printed = make(runs, *words).stdout.replace("\\\n", " ").splitlines()
    found = [shlex.split(line[line.index("python -m ") :]) for line in printed if "python -m " in line]
    assert set(modules) <= {line[2] for line in found}
    for line in found:
        if line[2] in modules:
            module = importlib.import_module(line[2])
            command.check(getattr(module, "PRESETS", None) if line[2] == "training.train" else module.Options, line[3:])


def test_lessons_take_other_data(runs: Path):
    printed = make(runs, "lessons", "DATA=my tiles", "LESSON_TILES=1000").stdout
    assert "datasets.synthetic" not in printed
    assert printed.count('--data="my tiles"') == 14 and printed.count("--limit_tiles=1000") == 7
