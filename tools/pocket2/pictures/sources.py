"""Where the drawings come from: pinned packages, their licences, and what is never trained on.

Knows names; knows no pixels.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal

Use = Literal["training", "evaluation"]

# One drawing in five, by the digest of its name, is kept from training under every vendor.
_HELD_OUT_BELOW: Final = 51
_TONES: Final = re.compile(r"-(?:light|medium-light|medium|medium-dark|dark)-skin-tone")
_KEPT_TONE: Final = "medium-dark-skin-tone"
_STYLES: Final = re.compile(
    r"-(?:outline|outlined|filled|fill|line|linear|broken|bold|duotone|twotone|thin|light|regular"
    r"|rounded|round|sharp|variant|low|16|20|24|28|32|48)$"
)
# Digits are a task of their own: nobody is to have seen them.
_DIGITS: Final = re.compile(
    r"\d|(?:^|-)(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|number|numbers|numeric"
    r"|digit|digits|counter|keycap|dice|clock|oclock|hundred)(?:-|$)"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One package of drawings.

    Attributes:
        package: Its name in the npm registry.
        version: The pinned version.
        licence: SPDX identifier of the drawings.
        is_colored: Whether they bring their own colours; the others are drawn in one ink.
        use: Whether they may be trained on.
    """

    package: str
    version: str
    licence: str
    is_colored: bool = False
    use: Use = "training"

    @property
    def vendor(self) -> str:
        """The short name in files and reports."""
        return self.package.rpartition("/")[2]


def _source(name: str, version: str, licence: str, *, colored: bool = False) -> Source:
    return Source(
        package=f"@iconify-json/{name}", version=version, licence=licence, is_colored=colored
    )


# Share-alike, and the vendor that no training sees.
HELD_OUT_VENDOR: Final = Source(
    package="@iconify-json/openmoji",
    version="1.2.29",
    licence="CC-BY-SA-4.0",
    is_colored=True,
    use="evaluation",
)
SOURCES: Final = (
    _source("noto", "1.2.9", "Apache-2.0", colored=True),
    _source("noto-v1", "1.2.5", "Apache-2.0", colored=True),
    _source("twemoji", "1.2.5", "CC-BY-4.0", colored=True),
    _source("fluent-emoji", "1.2.7", "MIT", colored=True),
    _source("fluent-emoji-flat", "1.2.6", "MIT", colored=True),
    _source("emojione", "1.2.3", "CC-BY-4.0", colored=True),
    _source("fxemoji", "1.2.2", "Apache-2.0", colored=True),
    _source("streamline-emojis", "1.2.4", "CC-BY-4.0", colored=True),
    _source("streamline-ultimate-color", "1.2.2", "CC-BY-4.0", colored=True),
    _source("flat-color-icons", "1.2.3", "MIT", colored=True),
    _source("fluent-color", "1.2.21", "MIT", colored=True),
    _source("meteocons", "1.2.4", "MIT", colored=True),
    _source("fluent-emoji-high-contrast", "1.2.6", "MIT"),
    _source("emojione-monotone", "1.2.1", "CC-BY-4.0"),
    _source("game-icons", "1.2.4", "CC-BY-3.0"),
    _source("healthicons", "1.2.13", "MIT"),
    _source("icon-park-solid", "1.2.4", "Apache-2.0"),
    _source("lucide", "1.2.137", "ISC"),
    _source("maki", "1.2.5", "CC0-1.0"),
    _source("material-symbols", "1.2.93", "Apache-2.0"),
    _source("mdi", "1.2.3", "Apache-2.0"),
    _source("mingcute", "1.2.8", "Apache-2.0"),
    _source("ph", "1.2.2", "MIT"),
    _source("solar", "1.2.13", "CC-BY-4.0"),
    _source("tabler", "1.2.41", "MIT"),
    HELD_OUT_VENDOR,
)


def class_key(name: str) -> str | None:
    """What a drawing shows, the same for every vendor and style; None for what is left out.

    Left out are digits, dice and clock faces, and skin tones but one.
    """
    if _TONES.search(name) and _KEPT_TONE not in name:
        return None
    name = _without_style(name)
    return None if _DIGITS.search(name) else name.replace("-", "")


def class_words(name: str) -> str:
    """The name of a drawing as words, without its style."""
    return _without_style(name).replace("-", " ")


def is_held_out(key: str) -> bool:
    """Whether drawings of this class are kept from training, whoever drew them."""
    return hashlib.sha256(key.encode()).digest()[0] < _HELD_OUT_BELOW


def _without_style(name: str) -> str:
    name = _TONES.sub("", name)
    shorter = _STYLES.sub("", name)
    while shorter != name:
        name, shorter = shorter, _STYLES.sub("", shorter)
    return name
