"""Licence and citation: the unchanged text, and the same paper wherever it is cited."""

import hashlib
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt, as Debian ships it, too."""


def bibtex(name: str) -> str:
    (found,) = re.findall(rf"^  {name} += {{(.*)}},?$", README, re.MULTILINE)
    return str(found)


def test_the_licence_is_apaches_own_text() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert CITATION["license"] == "Apache-2.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CITATION["license"] in str(project["license"])
    assert CITATION["version"] == project["version"]


def test_citation_has_what_its_schema_requires() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= CITATION.keys()
    for entry in (CITATION["preferred-citation"], *CITATION["references"]):
        assert {"type", "title", "authors"} <= entry.keys()


def test_both_forms_cite_the_same_paper() -> None:
    paper = CITATION["preferred-citation"]
    authors = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert bibtex("author") == authors
    assert bibtex("title") == paper["title"]
    assert bibtex("year") == str(paper["year"])
    assert bibtex("url") == paper["url"]


def test_who_loads_the_authors_weights_reads_their_terms() -> None:
    for page in (README, (ROOT / "docs" / "paper.md").read_text()):
        assert "https://github.com/KangLiao929/Noise-DA" in page
        assert "**non-commercial use only**" in " ".join(page.split())
