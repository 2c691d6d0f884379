"""The textbook kernels carry the printed lines: every line of code and every barrier of Algorithms 2 and 3, once."""

import re

import pytest

from efcp_ref.gpu.catalogue import FOLDER, KERNELS
from efcp_ref.paper import printed

TEXTBOOK = {"sp.cu": "2", "lcg.cu": "3"}
PART = {"feedback.cu": ["1:5", "1:6", "1:7"]}  # COMPRESS and the feedback around it
SOURCES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.cu"))}


def tags(source):
    """The tags of a kernel file: those of Python, behind // in the place of #."""
    return [tag for _, tag in printed.tags(source.replace("//", "#"))]


def problems(file, source):
    """What is wrong with the tags of a textbook kernel."""
    key, found = TEXTBOOK[file], tags(source)
    lines = [line for line in printed.lines().values() if line.key == key]
    wanted = [line.tag for line in lines if line.kind == "code" or line.why == "barrier"]
    wrong = [f"missing {tag}" for tag in wanted if tag not in found]
    wrong += [f"invented {tag}" for tag in found if tag not in wanted]
    wrong += [f"doubled {tag}" for tag in set(found) if found.count(tag) > 1]
    for text in source.splitlines():
        if printed.tags(text.replace("//", "#")) and text.lstrip().startswith("//"):
            wrong.append(f"comment {text.strip()}")
    return wrong


@pytest.mark.parametrize("file", TEXTBOOK)
def test_the_tags_are_the_printed_lines_of_code_and_the_barriers(file):
    assert problems(file, SOURCES[file]) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("sp.cu", "// 2:13", "//", "missing 2:13"),
        ("lcg.cu", "// 3:26", "// 3:27", "doubled 3:27"),
        ("lcg.cu", "// 3:22", "// 3:23", "invented 3:23"),
        ("lcg.cu", "// 3:29", "// 3:31", "invented 3:31"),
    ],
)
def test_a_planted_mistake_is_found(file, old, new, complaint):
    assert SOURCES[file].count(old) == 1
    assert complaint in problems(file, SOURCES[file].replace(old, new))


def test_lines_are_in_the_order_of_printing_but_for_those_that_a_reading_moves():
    moved = {"2:2", "2:6", "3:4", "3:5"}  # R16: T before mem; thread numbers before their count
    for file in TEXTBOOK:
        numbers = [int(tag.split(":")[1]) for tag in tags(SOURCES[file]) if tag not in moved]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("file", TEXTBOOK)
def test_every_reading_of_a_line_is_marked_there(file):
    wanted = {tag: set(line.reading) for tag, line in printed.lines().items() if line.key == TEXTBOOK[file]}
    marked = {}
    for text in SOURCES[file].splitlines():
        for _, tag in printed.tags(text.replace("//", "#")):
            marked[tag] = set(re.findall(r"\bR\d+", text))
    for tag in marked:
        assert wanted[tag] <= marked[tag], (tag, wanted[tag], marked[tag])


def test_the_other_files_claim_no_line_of_algorithms_2_and_3():
    for file in sorted(set(SOURCES) - set(TEXTBOOK)):
        assert tags(SOURCES[file]) == PART.get(file, []), file


def test_every_file_opens_with_its_idea_and_its_claim_and_is_in_the_catalogue():
    assert {about.file for about in KERNELS.values()} == set(SOURCES)
    for file, text in SOURCES.items():
        head = text[: text.index("\n#")]
        assert "Claims: at most" in head, file
        assert "Launch: " in head or file in ("mfac.cu", "cholesky.cu"), file
        assert file in TEXTBOOK or "idea" in head or file in ("feedback.cu", "mfac.cu", "cholesky.cu", "lcg_global.cu")


def test_a_claim_of_registers_is_what_the_catalogue_checks():
    for name, about in KERNELS.items():
        claimed = [int(n) for n in re.findall(r"(\d+)(?= registers| with 128)", SOURCES[about.file].split("\n#")[0])]
        assert claimed, name
        assert about.registers >= min(claimed), name
