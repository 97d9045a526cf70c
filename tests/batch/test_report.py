"""The report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import faceblur
from faceblur_batch.driver import status_of, write_report_so_far
from faceblur_batch.planner import Phase
from support.batches import PIXELS, Batch

EVIL = "<script>alert(1)</script>\"'.png"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def reported(batch: Batch) -> tuple[dict[str, object], str]:
    return json.loads(batch.ledger.get("report.json") or b""), (batch.ledger.get("report.html") or b"").decode()


def with_problems() -> Batch:
    batch = Batch(3)
    batch.add("empty.png", PIXELS + b"empty")
    image = batch.add(EVIL)
    batch.blurrer.errors[image] = [faceblur.UnreadableImageError("is <b>truncated", reason="UNREADABLE_IMAGE")]
    return batch


def test_a_job_that_ends_has_a_report() -> None:
    batch = with_problems()
    assert batch.run() is Phase.COMPLETED
    values, _ = reported(batch)
    assert values["phase"] == "completed"
    assert values["open"] == 0
    summary = values["summary"]
    assert isinstance(summary, dict)
    assert (summary["blurred"], summary["no_face"], summary["refused"]) == (3, 1, 1)
    assert summary["reasons"] == {"refused UNREADABLE_IMAGE": 1}
    assert values["problems"] == [
        {"key": EVIL, "outcome": "refused", "reason": "UNREADABLE_IMAGE", "message": "is <b>truncated"}
    ]
    histograms = values["histograms"]
    assert isinstance(histograms, dict)
    assert dict(histograms["faces"])["1"] == 3
    assert dict(histograms["bytes"])["< 64 KiB"] == 5


def test_the_page_fetches_and_runs_nothing_whatever_objects_are_called() -> None:
    batch = with_problems()
    assert batch.run() is Phase.COMPLETED
    _, text = reported(batch)
    page = Page(text)
    assert "script" not in page.tags
    assert page.links == []
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert page.tags.count("svg") >= 4


def test_labels_have_room_and_a_chart_of_nothing_is_left_out() -> None:
    batch = with_problems()
    assert batch.run() is Phase.COMPLETED
    _, text = reported(batch)
    labels = re.findall(r'<text x="(\d+)" y="\d+" text-anchor="end">([^<]+)<', text)
    assert "UNREADABLE_IMAGE" in [name for _, name in labels]
    assert all(int(right) >= 7 * len(name) for right, name in labels)  # no letter of that size is wider on average
    nothing = Batch(0)
    assert nothing.run() is Phase.COMPLETED
    assert "svg" not in Page(reported(nothing)[1]).tags


def test_no_picture_is_in_the_report_unless_asked_for() -> None:
    batch = with_problems()
    assert batch.run() is Phase.COMPLETED
    status = status_of(batch.ledger, batch.generation)
    write_report_so_far(batch.ledger, batch.generation, status, samples=2)
    _, text = reported(batch)
    assert len(Page(text).links) == 2
    assert all(link.startswith("data:image/png;base64,") for link in Page(text).links)


def test_the_rate_is_that_of_the_job_whenever_the_report_is_written() -> None:
    batch = with_problems()
    assert batch.run() is Phase.COMPLETED
    values, _ = reported(batch)
    again = write_report_so_far(batch.ledger, batch.generation, status_of(batch.ledger, batch.generation))
    assert again["reported"] != values["reported"]  # by the clock of this machine
    assert again["seconds"] == values["seconds"]
    assert again["pictures_per_second"] == values["pictures_per_second"] > 0


def test_a_job_that_was_stopped_has_a_report_of_what_there_is() -> None:
    batch = Batch(30)
    planner = batch.start()
    while not planner.status().planned:
        planner.step()
    batch.work_one()
    values = write_report_so_far(batch.ledger, batch.generation, status_of(batch.ledger, batch.generation))
    assert values["open"] + values["summary"]["objects"] == 30
    assert 0 < values["summary"]["objects"] < 30
    assert batch.ledger.get("root.json") is None
