"""The README is tested: its tree, its settings, its numbers' source and every command that it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from quality_table import quality_table, with_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell_lines():
    """Commands of all sh blocks, continued lines joined, comments dropped."""
    text = "".join(blocks("sh")).replace("\\\n", " ")
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def cvdm_commands():
    return sorted({line for line in shell_lines() if shlex.split(line)[0] in ("cvdm", ".venv/bin/cvdm")})


def test_the_tree_names_every_source_file_once_in_few_words():
    """Each module of the three packages stands in the tree with its job, and nothing else does."""
    (tree,) = blocks("text")
    listed = re.findall(r"^  ([\w/]+(?:\.py|/)) +(.+)$", tree, re.MULTILINE)
    packages = re.findall(r"^(cvdm|flows|service)/", tree, re.MULTILINE)
    assert packages == ["cvdm", "flows", "service"]
    present = [
        path.name + "/" * path.is_dir()
        for package in packages
        for path in (ROOT / package).iterdir()
        if path.name not in ("__init__.py", "__pycache__") and (path.is_dir() or path.suffix == ".py")
    ]
    assert sorted(name for name, _ in listed) == sorted(present)
    for name, job in listed:
        assert len(job.split()) <= 8, f"{name}: {job}"


def test_the_settings_table_is_the_code():
    """The table in the README is the one that the settings describe themselves with."""
    from flows.settings import settings_table

    assert settings_table() in README


@pytest.mark.parametrize("line", cvdm_commands())
def test_every_cvdm_command_exists_with_its_options(line):
    """Sub-commands and options that the README shows are known, and none that is required is left out."""
    import typer

    from flows.cli import app

    arguments = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):  # a group
        command = command.commands[arguments.pop(0)]
    known = {o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts)}
    used = {argument.split("=")[0] for argument in arguments if argument.startswith("-")}
    assert used <= known | {"--help"}
    for parameter in command.params:
        if parameter.required and parameter.param_type_name == "option":
            assert used & set(parameter.opts), f"{parameter.name} is required"


def test_every_make_target_exists():
    """The targets that the README names are in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_linked_file_exists():
    """Relative links and pictures lead somewhere."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_continuous_integration_runs_the_readmes_test_command():
    """What is tested on landing is what a newcomer is told to run."""
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in "\n".join(shell_lines())


def test_the_table_of_the_data_gate_is_the_code():
    """Thresholds and remedies in docs/validation.md are those that are in force."""
    from flows.validation.quantities import quantities_table

    assert quantities_table() in (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")


def test_the_table_of_quality_is_what_the_shipped_models_scored():
    """Its numbers come from models/*.evaluation.json and from nowhere else."""
    assert with_table(README, quality_table()) == README
