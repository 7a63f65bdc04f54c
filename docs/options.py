"""Write docs/options.md from the command line and from ``TrainOptions``.

python docs/options.py
"""

from collections.abc import Iterable
from html import escape
from itertools import groupby
from pathlib import Path

from hiresattn_cli.help import Described, described, described_keys, examples

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Options

Written from the command line and from `TrainOptions` by `python docs/options.py`; a test fails when it is stale.

```console
$ hiresattn train --help
Usage: hiresattn train [OPTIONS] MANIFEST
…
```

`hiresattn COMMAND --help` shows a command's options, `hiresattn train --help-all` also
[every key of `--config`](#keys-of-config). `-v` and `-q`, before the command, say more and less on stderr.
"""


def page() -> str:
    """The whole page."""
    example = dict(examples())
    parts = [HEAD]
    for command, options in groupby(described(), lambda one: one.command):
        parts.append(f"## `{command}`\n")
        if example.get(command):
            parts.append(
                f"```bash\n{example[command]}\n```\n<!-- needs data: an example with your own files -->\n"
            )
        for title, rows in groupby(options, lambda one: one.group):
            parts.append(_table(title, rows))
    parts.append(
        "## Keys of `--config`{ #keys-of-config }\n\nA TOML file for `train --config`, such as:\n\n"
        '```toml\npreset = "quick"\nbatch_size = 16\nk = [4, 2]\n```\n\n'
        "Flags win over the file, the file over the preset. A wrong key names its nearest neighbour.\n"
    )
    parts.append(_table("key", described_keys()))
    return "\n".join(parts)


def _table(title: str, rows: Iterable[Described]) -> str:
    lines = [f"| {title} | default | |", "| --- | --- | --- |"]
    for row in rows:
        name, _, kind = row.option.partition(" (")
        name = f"{_code(name)} ({kind}" if kind else _code(name)
        cells = (name, _code(row.default) if row.default else "", row.help.replace("|", "&#124;"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Code in a cell of a table, where a bar needs to be written as an entity."""
    return f"<code>{escape(text, quote=False).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
