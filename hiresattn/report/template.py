"""The HTML pages: each is one file of the package, with the style and the functions that all have in common."""

from importlib.resources import files

_STYLE, _SCRIPT = "/*SHARED STYLE*/", "/*SHARED SCRIPT*/"


def page_template(package: str, name: str) -> str:
    """A page of the package, whole: it needs no other file.

    Args:
        package: Where it is, such as ``hiresattn.report``.
        name: Its file.
    """
    shared = files("hiresattn.report")
    page = files(package).joinpath(name).read_text(encoding="utf-8")
    style, script = (shared.joinpath(f"shared.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return page.replace(_STYLE, style).replace(_SCRIPT, script)
