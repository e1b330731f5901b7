"""What file names say: which case a file belongs to, whether it is a mask, and whose.

Two files of one name are not always named alike: composed or not (macOS), ``Case1`` and ``case1``, ``1`` and ``001``.
They belong together where they would become the same case. Nothing here opens or lists a file.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

LONGEST = 200
"""Characters of a case name: what is put in front and behind of it must fit into the 255 bytes of a file name."""
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
"""Names that Windows gives to devices."""
ACCENTS = "\u0300-\u036f"

SEPARATORS = r"[-_. ]+"
MASK_WORDS = r"masks?|segm?s?|segmentations?|labels?|label[-_. ]?maps?|gt|ground[-_. ]?truth|annotations?"
LESS_CERTAIN = rf"{MASK_WORDS}|roi|lesions?|infections?|contours?|manual"
"""Images may be called like this, too: taken for masks only beside a file of the remaining name."""
LUNG_WORDS = rf"{MASK_WORDS}|lungs?"
IMAGE_SUFFIX = re.compile(rf"(?:_0000|{SEPARATORS}(?:ct|image|img))$", re.IGNORECASE)
IMAGE_WORDS = r"volumes?|vol|images?|img|im|ct|scan|slice|case|patient|original|orig|raw"


def composed(text: str) -> str:
    """A name in the form in which accents are part of their letters, whatever the file system made of it."""
    return unicodedata.normalize("NFC", text)


def padded(stem: str, digits: int = 3) -> str:
    """``stem`` as a case name: its last number zero-padded, ASCII letters, digits, ``.``, ``-`` and ``_`` alone.

    Latin letters lose their accents. Letters of other scripts are encoded (Punycode, RFC 3492), since not every reader
    of image files on every system takes them in a file name; so different names stay different. Empty where there is
    neither letter nor digit.
    """
    plain = re.sub(f"(?<=[A-Za-z])[{ACCENTS}]+", "", unicodedata.normalize("NFKD", stem))
    kept = (c if c in ".-" or unicodedata.category(c)[0] in "LMN" else "_" for c in composed(plain))
    clean = re.sub("_+", "_", "".join(kept)).strip("_.")
    numbered = re.sub(r"([0-9]+)(?!.*[0-9])", lambda match: match.group(1).zfill(digits), clean)
    return numbered if numbered.isascii() else numbered.encode("punycode").decode("ascii")


def fault_of(case: str) -> str | None:
    """Why a name cannot be a case's, with the remedy; ``None`` where it can."""
    if not re.search("[A-Za-z0-9]", case):
        return "has neither letter nor digit in its name, of which the case's name is made; rename it"
    if len(case) > LONGEST:
        return f"has too long a name, {len(case)} characters; rename it to at most {LONGEST}"
    if RESERVED.fullmatch(case):
        return f"would become the case {case}, a name that Windows keeps for itself; rename it"
    return None


def masks_among(stems: Iterable[str]) -> set[str]:
    """The names that are those of masks: ``c1_mask``, ``c1.seg``, ``c1-label``, ``c1Mask``, ``segmentation-1``.

    A word that may as well be part of an image's name makes a mask where the remaining name is another file's.
    """
    names = list(stems)
    certain = {stem for stem in names if _without(stem, MASK_WORDS) != stem}
    others = {form.lower() for stem in names if stem not in certain for form in (stem, _without_suffix(stem))}
    beside = {stem for stem in names if any(rest.lower() in others for rest in _remaining(stem))}
    return certain | beside


def _remaining(stem: str) -> list[str]:
    """What a name is without a word that may stand for a mask, with or without a separator."""
    found = (_without(stem, LESS_CERTAIN), re.sub(rf"(?i)(?:{SEPARATORS})?(?:{LESS_CERTAIN})$", "", stem))
    return [rest for rest in found if rest not in {stem, ""}]


@dataclass(frozen=True)
class Pairing:
    """Which masks belong to which images.

    Attributes:
        image_of: Mask to image, for the masks that have one.
        by_whole_name: The images whose whole name a mask bears, so that no part of it is a mark of images.
    """

    image_of: dict[str, str]
    by_whole_name: frozenset[str]


def pairing(images: Iterable[str], masks: Iterable[str], words: str = MASK_WORDS) -> Pairing:
    """Pair masks and images by name, the most literal agreement first; where two images agree alike, none is taken.

    Args:
        images: Names without ending.
        masks: Likewise.
        words: What marks the name of a mask, as a regular expression.
    """
    forms = {image: (image, _without_suffix(image), _bare(image)) for image in images}
    literally: Callable[[str], str] = str
    tables = [(level, key, _table(forms, level, key)) for key in (literally, _alike) for level in range(3)]
    image_of: dict[str, str] = {}
    whole: set[str] = set()
    for mask in masks:
        rest = _without(mask, words)
        wanted = (mask, rest, _without_suffix(rest), _bare(rest), *_remaining(mask))
        found = ((level, table[key(form)]) for level, key, table in tables for form in wanted if key(form) in table)
        level, image = next(found, (None, None))
        if image is not None:
            image_of[mask] = image
            whole |= {image} if level == 0 else set()
    return Pairing(image_of, frozenset(whole))


def _table(forms: dict[str, tuple[str, str, str]], level: int, key: Callable[[str], str]) -> dict[str, str]:
    images = defaultdict(set)
    for image, of_image in forms.items():
        images[key(of_image[level])].add(image)
    return {name: found.pop() for name, found in images.items() if len(found) == 1}


def case_stems(images: Iterable[str], pairings: Iterable[Pairing]) -> dict[str, str]:
    """Image to the name of its case: without ``_0000``, ``_ct`` and the like, unless that is part of the name.

    It is where a mask bears it, too (``slice_0000``), and where only some of the images have it and no mask tells.
    """
    names = list(images)
    by_whole_name = {image for pairs in pairings for image in pairs.by_whole_name}
    paired = {image for pairs in pairings for image in pairs.image_of.values()}
    tell = {image for image in paired - by_whole_name if IMAGE_SUFFIX.search(image)}
    marks = bool(tell) or (not paired and all(IMAGE_SUFFIX.search(image) for image in names))
    return {image: _without_suffix(image) if marks and image not in by_whole_name else image for image in names}


def _alike(name: str) -> str:
    return padded(name).lower()


def _without_suffix(stem: str) -> str:
    return IMAGE_SUFFIX.sub("", stem) or stem


def _bare(stem: str) -> str:
    return _without(_without_suffix(stem), IMAGE_WORDS)


def _without(stem: str, words: str) -> str:
    """``stem`` without these words at its end or beginning, set off by a separator, a capital letter or a digit."""
    end = rf"(?:^|{SEPARATORS}|(?<=[a-z0-9])(?=[A-Z]))(?i:{words})$"
    start = rf"^(?i:{words})(?:{SEPARATORS}|(?=\d)|(?<=[a-z])(?=[A-Z]))"
    return re.sub(start, "", re.sub(end, "", stem))
