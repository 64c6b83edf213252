"""The part of a page that says its job runs, and how another process ends it when the job no longer can."""

from __future__ import annotations

KILLED = (
    "The job was killed, or its machine went down, before it could say why (often: out of memory). The same command "
    "goes on from its last checkpoint."
)


def close_page(path: str, kind: str, words: str) -> bool:
    """Make a page that says its job runs say how it ended, and stop reloading itself; whether there was one.

    `kind` is `killed`, `failed` or `stopped`, `words` a sentence without markup.  The function stands alone: the guard
    of a job runs its text in a process without this package.
    """
    import html
    import os
    import re

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError):
        return False
    state = f'<p class="state {kind}"><b>{kind}</b> {html.escape(words)}</p>'
    ended, found = re.subn("<!-- running -->.*?<!-- /running -->", lambda match: state, text, flags=re.DOTALL)
    if not found:
        return False
    ended = re.sub('<meta http-equiv="refresh"[^>]*>\n?', "", ended)
    with open(path + ".closing", "w", encoding="utf-8") as file:
        file.write(ended)
    os.replace(path + ".closing", path)
    return True
