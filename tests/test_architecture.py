"""Who may import whom, read from the source: the house rules hold or this fails."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = {"torch", "lightning_fabric", "numpy", "scipy", "skimage", "tifffile", "imagecodecs", "yaml", "cvdm"}
# Extras that open one format each, imported only when a file of it comes.
OPTIONAL_READERS = {"zarr", "bioio_czi", "bioio_nd2", "bioio_lif"}
DOORS = {"service.client", "service.keys"}
# One file each may know the tool; everything else goes through it.
ONLY_IN = {
    "mlflow": ("flows/registry/", "service/loading.py"),
    "prefect": ("flows/",),
    "great_expectations": ("flows/",),
    "dvc": ("flows/",),
    "bentoml": ("service/",),
    **dict.fromkeys(OPTIONAL_READERS, ("cvdm/reading/",)),
}


def sources(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path):
    """Every top-level package that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def names(path):
    """Every name that a file uses, imports or reaches through a dot."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    found |= {node.id for node in nodes if isinstance(node, ast.Name)}
    return found | {alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names}


def modules(path):
    """Every module that a file imports from, whole."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}


def relative(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources("cvdm"), ids=relative)
def test_the_science_knows_no_tracker_orchestrator_or_server(path):
    """cvdm/ imports the standard library, arrays and images; its command line also a progress bar."""
    allowed = CORE | set(sys.stdlib_module_names) | ({"tqdm"} if path.name == "progress.py" else set())
    if relative(path).startswith("cvdm/reading/"):
        allowed |= OPTIONAL_READERS
    assert imports(path) <= allowed


@pytest.mark.parametrize("path", sources("cvdm"), ids=relative)
def test_the_science_reads_no_environment_and_logs_nothing(path):
    """No logging and no os.environ in cvdm/: what it needs comes in as arguments."""
    assert "logging" not in imports(path)
    assert not names(path) & {"environ", "environb", "getenv", "getenvb"}


@pytest.mark.parametrize("path", sources("flows", "service"), ids=relative)
def test_lifecycle_and_answer_meet_in_the_registry_only(path):
    """flows/ and service/ never import each other, apart from the command, the one composition root.

    Through its doors the lifecycle talks to a service as anybody does, and says who may.
    """
    other = "service" if relative(path).startswith("flows") else "flows"
    if relative(path) != "flows/cli.py" and other in imports(path):
        assert {name for name in modules(path) if name.split(".")[0] == other} <= DOORS


def test_the_client_needs_no_server_and_no_model():
    """It is imported in a process of its own, and nothing heavy comes along."""
    code = "import sys, service.client; print(sorted(set(sys.modules) & {'torch', 'mlflow', 'bentoml'}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sources("cvdm", "flows", "service"), ids=relative)
def test_each_tool_lives_at_its_edge(path):
    """A tool is imported only where the layout says."""
    for tool, places in ONLY_IN.items():
        if tool in imports(path):
            assert relative(path).startswith(places), f"{relative(path)} may not import {tool}"


def test_nothing_is_left_for_later():
    """No placeholder words in the code, and no file named after nothing."""
    vague = {"utils", "helpers", "common", "misc", "base", "manager"}
    for path in sources("cvdm", "flows", "service"):
        assert path.stem not in vague, relative(path)
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error")), (
            relative(path)
        )
