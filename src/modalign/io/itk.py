"""SimpleITK, imported when it is first needed: it is large, and most runs read no file of its formats."""

from typing import Any


def simple_itk() -> Any:
    """The module SimpleITK (which has no types)."""
    import SimpleITK

    return SimpleITK
