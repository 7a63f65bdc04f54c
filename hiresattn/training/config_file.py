"""Options of a run from a TOML file: names, types and bounds are checked, and errors name the file."""

import tomllib
import typing
from pathlib import Path
from typing import Any

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.option_types import did_you_mean, fits, type_words
from hiresattn.training.options import TrainOptions


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a run's options: the names of ``TrainOptions``, with ``-`` or ``_``, and ``preset``.

    Lists stand for tuples.

    Args:
        path: The TOML file; its keys stand at the top, in no table.

    Returns:
        Names and values of what the file has.

    Raises:
        NotFoundError: If there is no such file.
        ConfigError: If it is no TOML, or a key is unknown (its nearest neighbour is given) or of a wrong type.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: no such file; give a TOML file of options such as epochs = 40"
        ) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: not readable as TOML ({why})") from error
    hints = typing.get_type_hints(TrainOptions) | {"preset": str}
    values: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in hints:
            raise ConfigError(f"{path}: unknown key {key!r}{did_you_mean(name, hints)}")
        if name in values:
            raise ConfigError(f"{path}: {key!r} is there twice, with - and with _")
        if not fits(value, hints[name]):
            raise ConfigError(
                f"{path}: {key} = {value!r} is of a wrong type; it takes {type_words(hints[name])}"
            )
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        TrainOptions(**{name: value for name, value in values.items() if name != "preset"})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return values
