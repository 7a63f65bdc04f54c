"""Help: options in groups, one example each, short enough to read; the rest under `--help-all`."""

import shlex
from dataclasses import fields

import pytest
from click.testing import CliRunner

from hiresattn.training.options import TrainOptions
from hiresattn_cli.help import described, described_keys, examples
from hiresattn_cli.main import cli

COMMANDS = dict(examples())


def shown(*words, width=80):
    result = CliRunner().invoke(cli, list(words), terminal_width=width)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_groups_and_an_example_that_names_it(command):
    text = shown(*command.split(), "--help")
    groups = {one.group for one in described() if one.command == command}
    assert groups
    for title in groups:
        assert f"\n{title}:\n" in text
    assert COMMANDS[command].startswith(f"hiresattn {command} ")
    assert f"\nExample:\n  {COMMANDS[command]}\n" in text
    assert "Args:" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_words_of_every_example_are_options_of_its_command(command):
    words = shlex.split(COMMANDS[command])[1 + len(command.split()) :]
    inner = cli
    for name in command.split():
        inner = inner.commands[name]
    context = inner.make_context(command, words)  # wrong words raise
    assert context.params


def test_the_help_of_train_fits_on_60_lines():
    assert shown("train", "--help").count("\n") <= 60


def test_help_all_of_train_has_every_key_with_type_documentation_and_default():
    keys = list(described_keys())
    assert [one.option.split(" ")[0] for one in keys] == [
        "preset",
        *(field.name for field in fields(TrainOptions)),
    ]
    assert all(one.help for one in keys)
    assert {one.option: one.default for one in keys}["grid (a whole number)"] == "7"
    text = shown("train", "--help-all")
    assert text.startswith(shown("train", "--help"))
    for one in keys:
        assert f"\n  {one.option}" in text


def test_the_help_of_train_has_the_defaults_of_its_options():
    defaults = {one.option.split()[0]: one.default for one in described() if one.command == "train"}
    assert (defaults["--epochs"], defaults["--k"], defaults["--encoder"]) == ("20", "4,2", "small")
    assert defaults["--fold"] == ""


def test_every_option_is_described_with_group_and_help():
    for one in described():
        assert one.help, one
        assert one.option.startswith("-"), one
        assert "[default" not in one.help, one
