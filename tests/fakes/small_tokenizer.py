"""A tokenizer that cuts texts as the emulator does, as files of a model."""

from pathlib import Path
from zlib import crc32

import msgspec

PIECE = 4
"""Characters of a token."""
_VOCABULARY = 128_000
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_tokenizer(folder: Path, *texts: str, template: str | None = TEMPLATE) -> Path:
    """Write the files of a model whose tokens are those of the emulator, for these texts."""
    pieces = {text[at : at + PIECE] for text in texts for at in range(0, len(text), PIECE)}
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": rf"[\s\S]{{1,{PIECE}}}"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {"[UNK]": _VOCABULARY}
            | {piece: crc32(piece.encode()) % _VOCABULARY for piece in sorted(pieces)},
            "unk_token": "[UNK]",
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(msgspec.json.encode(tokenizer))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder
