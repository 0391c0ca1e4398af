"""The sample that ships is a report of records as they are today, and says in words what its page says."""

import json
import re
from pathlib import Path

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, records
from stepbench.reporting import embedded

SAMPLE = Path(__file__).parents[1] / "docs" / "sample"


def test_the_records_that_the_sample_carries_have_todays_schema(tmp_path: Path) -> None:
    page = (SAMPLE / "writeup.html").read_text(encoding="utf-8")
    packed = {name: embedded.unpack(text) for name, text in re.findall(r'id="packed:([^"]*)">([^<]*)<', page)}
    carried = {path: text for name, part in packed.items() if name != embedded.CSV for path, text in part.items()}
    assert len(carried) > 20
    for path, text in carried.items():
        file = tmp_path / "record.json"
        file.write_text(text, encoding="utf-8")
        record = records.read(file)
        assert json.loads(text)["experiment"] == record.experiment
        cell = experiments.load(record.experiment).cell
        assert set(record.cell) == {axis.name for axis in cells.axes(cell)}, f"{path}: run make sample"


def test_the_sample_is_small_and_its_words_are_those_of_its_page() -> None:
    assert sum(file.stat().st_size for file in SAMPLE.glob("*.html")) < 6 * 2**20
    assert (SAMPLE / "writeup.html").stat().st_size < 3 * 2**20
    assert (SAMPLE / "first-screen.png").stat().st_size > 10_000
    page = re.sub(r"<script.*?</script>|<[^>]*>", " ", (SAMPLE / "writeup.html").read_text("utf-8"), flags=re.DOTALL)
    front = (SAMPLE.parents[1] / "README.md").read_text("utf-8")
    (told,) = re.findall(r"^That is \[a report\].*?(?=^## )", front, re.DOTALL | re.MULTILINE)
    for words in (told, (SAMPLE / "README.md").read_text("utf-8")):
        numbers = set(re.findall(r"\d[\d.,]*\d", words))
        assert len(numbers) > 5
        assert {number for number in numbers if number not in page} == set()
