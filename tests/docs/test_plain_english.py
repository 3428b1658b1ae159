"""README.md and docs/ are easy to read: short sentences, short paragraphs, links that lead on."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "pipeline" / "conf" / "sources" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
MOST_WORDS_OF_A_SENTENCE = 35
MOST_WORDS_OF_A_PARAGRAPH = 80
ABBREVIATIONS = ("e.g.", "i.e.", "et al.", "vs.", "Fig.")
README_WORDS = 1000


def paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs, items of lists and cells of tables; no code, headings or comments."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    for block in re.split(r"\n\s*\n", text):
        if block.startswith(("    ", "#")):
            continue
        for part in re.split(r"\n(?=\s*(?:[*-]|\d+\.) |\|)", f"\n{block}"):
            rows = part.strip().split("|") if part.strip().startswith("|") else [part]
            yield from (" ".join(plain(row).split()) for row in rows if row.strip(" -:\n"))


def plain(markdown: str) -> str:
    """Return the words that a reader sees; code in backticks counts as one word."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"`[^`]*`", "Code", text, flags=re.DOTALL)
    return re.sub(r"^\s*(?:[*-]|\d+\.) ", "", text.strip("\n")).replace("**", "").replace("*", "")


def sentences(paragraph: str) -> list[str]:
    for abbreviation in ABBREVIATIONS:
        paragraph = paragraph.replace(abbreviation, abbreviation.replace(".", ""))
    return re.split(r"(?<=[.!?])[)\"]?\s+(?=[^a-z])", paragraph)


def words(text: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def test_it_sees_what_is_too_long() -> None:
    long = "A sentence of " + "word " * 40 + "ends.\n\n* An item.\n* Another one"
    assert [words(s) for p in paragraphs(long) for s in sentences(p)] == [44, 2, 2]
    table = "| a | b c |\n| --- | ---: |\n| `x y z` and more | [d e](http://f) |"
    assert list(paragraphs(table)) == ["a", "b c", "Code and more", "d e"]
    assert list(paragraphs("    code is none\n\n# nor a heading\n\ntext")) == ["text"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_and_paragraphs_are_short(page: Path) -> None:
    found = list(paragraphs(page.read_text()))
    assert found
    long = [p for p in found if words(p) > MOST_WORDS_OF_A_PARAGRAPH]
    assert not long, f"paragraphs of more than {MOST_WORDS_OF_A_PARAGRAPH} words"
    long = [s for p in found for s in sentences(p) if words(s) > MOST_WORDS_OF_A_SENTENCE]
    assert not long, f"sentences of more than {MOST_WORDS_OF_A_SENTENCE} words"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To files and their headings; of addresses the form alone is seen, as tests use no network."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            assert urlsplit(target).scheme == "https" and "." in urlsplit(target).netloc, target
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        if heading:
            assert heading in anchors(path.read_text()), target


def anchors(text: str) -> set[str]:
    """Return the names by which GitHub's pages link to headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert sum(map(words, paragraphs(text))) <= README_WORDS


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    named = set(re.findall(r"\]\(([\w.]+)\)", index))
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")}
    assert pages - {"README.md"} <= named
