"""The HTML pages: each is one file of the package, with the styles and scripts that it names put in."""

import json
import re
from importlib.resources import files

from hiresattn.report.colours import DEPTH_COLOURS

#: What is replaced by a file of this folder, and by the colours of looks.
_INSERT = re.compile(r"/\*INSERT ([\w.]+)\*/")
_DEPTHS = "/*DEPTH COLOURS*/[]"


def page_template(package: str, name: str) -> str:
    """A page of the package, whole: it needs no other file.

    Args:
        package: Where it is, such as ``hiresattn.report``.
        name: Its file.
    """
    shared = files("hiresattn.report")
    page = files(package).joinpath(name).read_text(encoding="utf-8")
    whole = _INSERT.sub(lambda found: shared.joinpath(found[1]).read_text(encoding="utf-8"), page)
    return whole.replace(_DEPTHS, json.dumps(DEPTH_COLOURS))
