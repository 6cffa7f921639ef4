#!/usr/bin/env bash
# gradio 6.31.0: `.then` does not run after an event that raised an error, though it is documented to.
#
# Expected: `.then` is "triggered after directly preceding event is completed, regardless of success or failure"
# (its docstring), and `.failure` if it "fails".
# Seen: after an event that raises `gr.Error`, at once or after a yield, `.failure` runs and `.then` does not.
# After an event that a user cancelled both run. So a step that has to follow an error as well as a
# success, such as making a button usable again, needs both `.then` and `.failure`, and runs twice when cancelled.
#
# Needs Chromium (CHROMIUM=/path/to/it, default /usr/bin/chromium); exits with 77 where there is none.
# Last run: 2026-11-29, Python 3.11.7, the Python part alone, in an environment that had these versions:
#   gradio 6.31.0, event that succeeds: followed by then success
#   gradio 6.31.0, event that raises: followed by failure
#   gradio 6.31.0, event that raises_late: followed by failure
#   gradio 6.31.0, event that runs: followed by then failure
set -euo pipefail
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
if [[ ! -x $CHROMIUM ]]; then
  echo "skipped: no Chromium at $CHROMIUM; name one: CHROMIUM=/path/to/chromium bash $0" >&2
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gradio==6.31.0 playwright==1.65.2
GRADIO_ANALYTICS_ENABLED=False "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON_CODE' || { cat "$folder/log" >&2; exit 1; }
import os
import time

import gradio as gr
from playwright import sync_api

WAIT_MS = 120_000


def succeeds():
    """Completes."""
    return "done"


def raises():
    """Fails at once."""
    raise gr.Error("no")


def raises_late():
    """Fails after it has shown something."""
    yield "begun"
    raise gr.Error("no")


def runs():
    """Runs until it is cancelled."""
    for i in range(3000):
        time.sleep(0.2)
        yield f"begun {i}"


with gr.Blocks() as blocks:
    for name, call in {
        "succeeds": succeeds,
        "raises": raises,
        "raises_late": raises_late,
        "runs": runs,
    }.items():
        shown = gr.Textbox(elem_id=f"{name}-shown")
        event = gr.Button(name).click(call, None, shown)
        for follower in ("then", "success", "failure"):
            box = gr.Textbox(elem_id=f"{name}-{follower}")
            getattr(event, follower)(lambda: "ran", None, box)
    gr.Button("cancel").click(None, cancels=[event])
_, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)


def text(page, element):
    """Returns the locator of a text box's text."""
    return page.locator(f"#{element} textarea, #{element} input")


seen = {}
with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"]
    )
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(address, timeout=WAIT_MS)
    for name, sign in {
        "succeeds": "success",
        "raises": "failure",
        "raises_late": "failure",
        "runs": "then",
    }.items():
        page.get_by_role("button", name=name, exact=True).click()
        if name == "runs":
            begun = text(page, "runs-shown")
            page.wait_for_function(
                "box => box.value.startsWith('begun')", arg=begun.element_handle()
            )
            page.get_by_role("button", name="cancel", exact=True).click()
        sync_api.expect(text(page, f"{name}-{sign}")).to_have_value("ran", timeout=WAIT_MS)
        # The other followers had the same trigger: what has not run ten seconds later does not run.
        page.wait_for_timeout(10_000)
        seen[name] = [
            follower
            for follower in ("then", "success", "failure")
            if text(page, f"{name}-{follower}").input_value() == "ran"
        ]
        print(f"gradio {gr.__version__}, event that {name}: followed by", *seen[name], flush=True)
    browser.close()
blocks.close()
assert seen["succeeds"] == ["then", "success"]
assert seen["raises"] == seen["raises_late"] == ["failure"], "then after an error"
assert seen["runs"] == ["then", "failure"], "after a cancelled event"
PYTHON_CODE
