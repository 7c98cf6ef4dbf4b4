"""The splitter against a model that sees everything at once, for every way to cut the input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procession.process._lines import Line, LineSplitter

BROKEN = [b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"\xed\xa0\x80", b"\xed\xa0"]
VALID = [b"\n", b"\r", b"\r\n", b"a", b"bcdefgh", b"\0", *(text.encode() for text in ("é", "日", "😀", "\x85\u2028"))]
ATOMS = st.sampled_from([*BROKEN, *VALID])
DATA = st.lists(ATOMS, max_size=60).map(b"".join) | st.binary(max_size=80)
MAX_LINE = st.sampled_from([16, 17, 18, 19, 23, 64, 65536])


def model(data: bytes, max_line: int) -> list[tuple[str, bool]]:
    """Whole lines of bytes first; then pieces, each as long as it can be without cutting a character."""
    *ended, last = data.split(b"\n")
    found: list[tuple[str, bool]] = []
    for raw in [line.removesuffix(b"\r") for line in ended]:
        *pieces, rest = _pieces(raw, max_line)
        found += [(piece, True) for piece in pieces] + [(rest, False)]
    if last:
        found += [(piece, True) for piece in _pieces(last, max_line)]
    return found


def _pieces(raw: bytes, max_line: int) -> list[str]:
    found = []
    while len(raw) > max_line:
        cut = max_line
        for back in (1, 2, 3):  # would one more byte change how the end of this piece reads?
            lead = raw[cut - back]
            if lead >= 0xC0:
                if _is_beginning(raw[cut - back : cut]):
                    cut -= back
                break
        found.append(raw[:cut].decode("utf-8", "backslashreplace"))
        raw = raw[cut:]
    return [*found, raw.decode("utf-8", "backslashreplace")]


def _is_beginning(end: bytes) -> bool:
    """Whether some valid character begins with these bytes and is longer."""
    second = [bytes([byte]) for byte in range(0x80, 0xC0)]
    tails = [
        b"\x80",
        b"\x80\x80",
        *second,
        *(byte + b"\x80" for byte in second),
        *(byte + b"\x80\x80" for byte in second),
    ]
    for tail in tails:
        try:
            if len((end + tail).decode("utf-8", "surrogatepass")) == 1:  # whoever wants them may have surrogates
                return True
        except UnicodeDecodeError:
            continue
    return False


@given(DATA, MAX_LINE, st.data())
def test_every_chunking_gives_what_the_model_gives(data: bytes, max_line: int, draw: st.DataObject):
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    splitter = LineSplitter(max_line=max_line)
    found: list[Line] = []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += splitter.feed(data[start:stop], 0.0)
        assert len(splitter.rest()) <= max_line + 1
    found += splitter.end(0.0)
    assert [(str(line), line.partial) for line in found] == model(data, max_line)
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    assert "".join(line + ("" if line.partial else "\n") for line in found) == text


@given(DATA, MAX_LINE, st.data())
def test_the_undelivered_bytes_go_on_where_the_lines_ended(data: bytes, max_line: int, draw: st.DataObject):
    cut = draw.draw(st.integers(0, len(data)))
    splitter = LineSplitter(max_line=max_line)
    before = splitter.feed(data[:cut], 0.0)
    after_cut = splitter.feed(data[cut:], 0.0)
    if draw.draw(st.booleans()):
        before, after_cut = before + after_cut, splitter.end(0.0)
    if not after_cut:
        return
    undelivered = draw.draw(st.integers(0, len(after_cut)))
    delivered = before + after_cut[: len(after_cut) - undelivered]
    anew = LineSplitter(max_line=max_line)
    rest = anew.feed(splitter.rest(undelivered), 0.0) + anew.end(0.0)
    assert [(str(line), line.partial) for line in delivered + rest] == model(data, max_line)
