"""Opens a page in Chromium without a display and prints what JavaScript finds in it, as JSON.

python browser.py PAGE WIDTH < SCRIPT
"""

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")

from PySide6.QtCore import QTimer, QUrl  # noqa: E402
from PySide6.QtWebEngineCore import QWebEnginePage  # noqa: E402
from PySide6.QtWebEngineWidgets import QWebEngineView  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

SAID: list[str] = []  # on the console


class Page(QWebEnginePage):
    def javaScriptConsoleMessage(self, level, message, line, source):
        SAID.append(f"{message} (line {line})")


def main(path: str, width: str) -> None:
    script = sys.stdin.read()
    app = QApplication([])
    view, page = QWebEngineView(), Page()
    view.setPage(page)
    view.resize(int(width), 900)
    view.show()

    def done(found: str | None) -> None:
        print(json.dumps({"found": json.loads(found) if found else None, "console": SAID}))
        app.quit()

    def loaded(good: bool) -> None:
        assert good, path
        page.runJavaScript(f"JSON.stringify((() => {{ {script} }})())", 0, done)

    page.loadFinished.connect(loaded)
    view.load(QUrl.fromLocalFile(path))
    QTimer.singleShot(60_000, lambda: app.exit(1))
    sys.exit(app.exec())


if __name__ == "__main__":
    main(*sys.argv[1:])
