"""Pages of the documentation that are files of the repository: the README is the first one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent
PAGES = {"README.md": "index.md"} | {
    f"{name.upper()}.md": f"{name}.md" for name in ("changelog", "contributing", "security")
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and what they link to outside of ``docs``, with links as seen from ``docs``."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in set(LINK.findall(text)) - PAGES.keys():
            if not target.startswith("docs/"):
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
        files.append(File.generated(config, page, content=LINK.sub(_moved, text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to those files lead to their pages."""
    for name, page in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    return markdown


def _moved(link: re.Match[str]) -> str:
    """Return the target of a link as seen from ``docs``."""
    return PAGES.get(link[1], link[1].removeprefix("docs/"))
