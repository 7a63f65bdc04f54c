"""Chromium over WebDriver, with the standard library only: real clicks and keys, and what a page asked for."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_KEYS = {
    "Enter": "\ue007",
    "Home": "\ue011",
    "End": "\ue010",
    "ArrowDown": "\ue015",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowLeft": "\ue012",
    "Tab": "\ue004",
}


class Browser:
    """One window."""

    def __init__(self, port, options):
        self._base = f"http://127.0.0.1:{port}"
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._base += f"/session/{made['sessionId']}"

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the driver on this computer
            self._base + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, address):
        self._ask("POST", "/url", {"url": address})

    def run(self, script, *values):
        """What a script returns; it sees ``arguments``."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(values)})

    def until(self, expression, seconds=20):
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {expression}")):
            assert time.monotonic() < end, f"{expression} stayed {found!r}"
            time.sleep(0.02)
        return found

    def find(self, css):
        return self._ask("POST", "/element", {"using": "css selector", "value": css})[_ELEMENT]

    def click(self, css):
        self._ask("POST", f"/element/{self.find(css)}/click", {})

    def click_at(self, x, y):
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}]
        moves += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = {
            "type": "pointer",
            "id": "mouse",
            "parameters": {"pointerType": "mouse"},
            "actions": moves,
        }
        self._ask("POST", "/actions", {"actions": [mouse]})

    def keys(self, *names):
        """Press keys, where the focus is."""
        acts = [
            {"type": kind, "value": _KEYS.get(name, name)} for name in names for kind in ("keyDown", "keyUp")
        ]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": acts}]})

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def console(self):
        """Messages of the page since the last call."""
        return [one["message"] for one in self._ask("POST", "/se/log", {"type": "browser"})]

    def asked(self):
        """Addresses that were asked for since the last call, those inside the page left out."""
        sent = (
            json.loads(one["message"])["message"]
            for one in self._ask("POST", "/se/log", {"type": "performance"})
        )
        urls = [
            one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]


@contextmanager
def browser(folder, *, width=1400, height=900, dark=False):
    """A browser that has never been anywhere, until the block ends."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    assert all((chromium, driver)), (
        "no Chromium, or no chromedriver: apt-get install chromium chromium-driver"
    )
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    words += ["--disable-component-update", "--no-first-run", f"--user-data-dir={folder}"]
    words += [f"--window-size={width},{height}", *(["--force-dark-mode"] if dark else [])]
    options = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": chromium, "args": words},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            line = next(line for line in process.stdout if "successfully on port" in line)
            made = Browser(int(line.rsplit(" ", 1)[1].strip(" .\n")), options)
            try:
                yield made
            finally:
                made._ask("DELETE", "")
        finally:
            process.terminate()
