"""Marks on a page: boxes to tick, kept by the browser, and saved as a file of ids.

The page stays one file that loads nothing: its policy lets this script run and no other.
"""

import base64
import hashlib
from html import escape

FILE_NAME = "bad_ids.txt"

STYLE = """
.mark { display: inline-flex; gap: .5em; align-items: center; margin: .2rem 0; cursor: pointer; }
.marks { position: sticky; bottom: 0; padding: .6rem 0; background: var(--paper);
  border-top: 1px solid var(--line); display: flex; gap: 1rem; align-items: center; }
.marks button { font: inherit; padding: .3rem .9rem; cursor: pointer; }
"""

# Ids are never put into code: they stay in attributes, and are read from there.
SCRIPT = """
"use strict";
const boxes = [...document.querySelectorAll("input[data-id]")];
const key = "marks " + document.title;
const marked = () => boxes.filter(box => box.checked).map(box => box.dataset.id);
let kept = [];
try { kept = JSON.parse(localStorage.getItem(key)) || []; } catch (error) { kept = []; }
const show = () => {
  document.getElementById("marked").textContent = marked().length + " marked";
  try { localStorage.setItem(key, JSON.stringify(marked())); } catch (error) { return; }
};
for (const box of boxes) {
  box.checked = kept.includes(box.dataset.id);
  box.addEventListener("change", show);
}
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([marked().map(id => id + "\\n").join("")]));
  link.download = document.getElementById("save").dataset.file;
  link.click();
});
show();
"""


def script_policy() -> str:
    """What the page's policy says of scripts: this one, by its hash."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"script-src 'sha256-{digest}'"


def box(identity: str, label: str) -> str:
    """A box to tick for one id, as HTML."""
    return (
        f'<label class="mark"><input type="checkbox" data-id="{escape(identity)}">'
        f"{escape(label)}</label>"
    )


def bar() -> str:
    """How many are marked, the button that saves them, and the script, as HTML."""
    return (
        f'<div class="marks"><span id="marked"></span><button id="save" data-file="{FILE_NAME}">'
        f"Save the ids</button></div>\n<script>{SCRIPT}</script>"
    )
