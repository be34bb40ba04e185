"""Imports run one way, pins agree, the repository speaks of Saltworks alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("training", "inference", "postprocess")
FOUNDATIONS = {"datasets": set(), "nets": {"datasets"}, "losses": {"datasets"}}
MAY_IMPORT = FOUNDATIONS | {stage: set(FOUNDATIONS) for stage in STAGES} | {"bench": {*FOUNDATIONS, "training"}}
ROOT_MODULES = {"command", "runfolder"}


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_downwards(package: str):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = imported(path) & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package] | {package}, f"{path.relative_to(ROOT)} imports {ours}"


def test_root_modules_import_nothing_above_them():
    for module in ROOT_MODULES:
        assert not imported(ROOT / f"{module}.py") & set(MAY_IMPORT)
    assert "runfolder" not in imported(ROOT / "command.py")


def test_heavy_libraries_are_imported_lazily():
    heavy = "{'timm', 'torchvision', 'pretrainedmodels'}"
    code = f"import sys, training.train, inference.predict; print({heavy} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert seen.strip() == "set()"


def test_environment_has_the_pins_of_requirements():
    pins = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines() if line.strip()]
    conda = (ROOT / "environment.yml").read_text()
    listed = [line.strip()[2:] for line in conda.split("- pip:")[1].splitlines() if line.strip()]
    assert listed == pins
    assert all("==" in pin and "/" not in pin for pin in pins)


def test_no_large_or_data_files_are_tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        assert not path.exists() or path.stat().st_size < 1_000_000, name
        assert path.suffix not in {".pt", ".npy", ".safetensors", ".pth"}, name
