"""Addresses that somebody signs for a while, and signs anew when a server refuses them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit

from hiresattn.errors import OpenError
from hiresattn.files import is_remote
from hiresattn.pyramid.storage.web import ascii_url

#: Statuses by which servers refuse a signature, or one whose time is over.
REFUSED = (400, 401, 403)
#: What is added to a refusal of an address that was signed again.
AGAIN = "and so when its address was signed anew; check what signs it"


class Address:
    """A path or address, as it is named in messages and as it is asked for.

    Args:
        name: As it is named.
        sign: Called with it, to sign it; None = it is asked for as it is.

    Raises:
        OpenError: If the signer fails.
    """

    def __init__(self, name: str, sign: Callable[[str], str] | None = None) -> None:
        self._given, self._sign = name, sign
        self._lock = threading.Lock()
        self.name = name if sign is None or not is_remote(name) else name.partition("?")[0]
        self.now = self._signed()

    @property
    def signed(self) -> bool:
        """Whether it is asked for in another way than it is named."""
        return self.now != self._given

    def renew(self, refused: str) -> bool:
        """Sign it anew, unless that was done since ``refused`` was taken; whether it is worth another try."""
        if self._sign is None:
            return False
        with self._lock:
            if self.now == refused:
                self.now = self._signed()
        return True

    def hidden(self, text: str) -> str:
        """A message that names it without its signature."""
        if self._sign is None:
            return text
        for known in (self.now, ascii_url(self.now)):
            text = text.replace(known, self.name)
            query = urlsplit(known).query
            text = text.replace(f"?{query}", "") if query else text
        return text

    def _signed(self) -> str:
        if self._sign is None:
            return self._given
        try:
            return str(self._sign(self._given))
        except Exception as error:
            raise OpenError(f"{self.name}: its address can't be signed ({error}); mend the signer") from error


_OPENING: ContextVar[Address | None] = ContextVar("_OPENING", default=None)


@contextmanager
def opening(address: Address) -> Iterator[None]:
    """Within this, the file that is opened by ``address.now`` is that of this address."""
    before = _OPENING.set(address)
    try:
        yield
    finally:
        _OPENING.reset(before)


def address_of(source: str) -> Address:
    """The address of a file that is opened by its name: that which is being opened, else one that nobody signs."""
    address = _OPENING.get()
    return address if address is not None and address.now == source else Address(source)
