"""Array types with shapes, for annotations: jaxtyping's where it is loaded, to check them; else they say nothing.

Whoever checks shapes (a type checker, the tests) loads jaxtyping first; a run doesn't pay for it.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float16, Float32, Float64, Int, Int64, UInt8
else:

    class Float:
        """``Float[Array, "n d"]`` is the array's type."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            """The type without its shape."""
            return item[0]

    Bool = Float16 = Float32 = Float64 = Int = Int64 = UInt8 = Float

__all__ = ["Bool", "Float", "Float16", "Float32", "Float64", "Int", "Int64", "UInt8"]
