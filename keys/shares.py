"""SLIP-39 shares: any m of n word lists rebuild a secret, fewer say nothing about it (SatoshiLabs SLIP-0039, one group).

The arithmetic is the reference implementation's (`shamir_mnemonic`), which works in ordinary Python objects: they cannot be wiped, and live
for the moment of splitting or combining only. Text comes and goes as bytes that can be wiped; words are compared with the list one at a
time, and no error carries one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from shamir_mnemonic import MnemonicError, cipher, constants, rs1024, shamir, wordlist
from shamir_mnemonic.share import Share

from keys.errors import Denied, InvalidInput
from keys.secrets import BytesLike, SecretBytes

MIN_THRESHOLD: Final = 2
MAX_SHARES: Final = constants.MAX_SHARE_COUNT
SECRET_LENS: Final = (16, 32)
_WORD_LIST: Final[dict[bytes, int]] = {word.encode(): index for word, index in wordlist.WORD_INDEX_MAP.items()}
_WORDS_OF: Final[list[bytes]] = [word.encode() for word in wordlist.WORDLIST]
_LONGEST: Final = max(map(len, _WORDS_OF))
# 16 bytes are 13 words of value, 32 bytes are 26; 7 words around them
_WORD_COUNTS: Final = {20: 16, 33: 32}
_ITERATION_EXPONENT: Final = 0


class ShareInfo(NamedTuple):
    """What a share tells without its secret: the set it belongs to (15 bits), its place in it, and how many are needed."""

    set_id: int
    number: int
    threshold: int
    secret_len: int


def split(secret: SecretBytes, threshold: int, count: int) -> list[SecretBytes]:
    """`count` shares as lines of words (ASCII), any `threshold` of which rebuild `secret` (16 or 32 bytes).

    Raises InvalidInput (SHARE_COUNT, SHARE_LENGTH).
    """
    if not MIN_THRESHOLD <= threshold <= count <= MAX_SHARES:
        raise InvalidInput("SHARE_COUNT", f"{threshold} of {count} shares: needed are 2 or more of at most {MAX_SHARES}")
    if len(secret) not in SECRET_LENS:
        raise InvalidInput("SHARE_LENGTH", f"a shared secret has 16 or 32 bytes, not {len(secret)}")
    set_id = int.from_bytes(shamir.RANDOM_BYTES(2), "big") >> 1
    with secret.reveal() as raw:
        encrypted = cipher.encrypt(bytes(raw), b"", _ITERATION_EXPONENT, set_id, True)
    whole = shamir.EncryptedMasterSecret(set_id, True, _ITERATION_EXPONENT, encrypted)
    return [_line(share) for share in shamir.split_ems(1, [(threshold, count)], whole)[0]]


def parse_share(typed: BytesLike) -> SecretBytes:
    """The share in its normal form. Raises InvalidInput (SHARE_WORD, SHARE_LENGTH, SHARE_CHECKSUM, SHARE_GROUPS)."""
    return _line(_share(typed))


def share_info(share: SecretBytes) -> ShareInfo:
    """Set, place and threshold of a share; raises as `parse_share`."""
    with share.reveal() as text:
        parsed = _share(text)
    return ShareInfo(parsed.identifier, parsed.index, parsed.member_threshold, len(parsed.value))


def check_share(share: SecretBytes, earlier: Sequence[SecretBytes]) -> None:
    """Raises InvalidInput (SHARE_OTHER_SET, SHARE_REPEATED) when it does not go with the shares accepted before."""
    info = share_info(share)
    for other in map(share_info, earlier):
        if (info.set_id, info.threshold, info.secret_len) != (other.set_id, other.threshold, other.secret_len):
            raise InvalidInput("SHARE_OTHER_SET", "this share belongs to another set of shares")
        if info.number == other.number:
            raise InvalidInput("SHARE_REPEATED", "this share was entered before")


def combine_shares(shares: Sequence[SecretBytes]) -> SecretBytes:
    """The secret. Raises InvalidInput (SHARE_COUNT, and as `check_share`), Denied SHARE_DIGEST when the shares do not fit together."""
    for at, share in enumerate(shares):
        check_share(share, shares[:at])
    needed = share_info(shares[0]).threshold if shares else MIN_THRESHOLD
    if len(shares) < needed:
        raise InvalidInput("SHARE_COUNT", f"{needed} shares are needed, not {len(shares)}")
    group = shamir.ShareGroup()
    for share in shares[:needed]:
        with share.reveal() as text:
            group.add(_share(text))
    try:
        encrypted = shamir.recover_ems({0: group})
        return SecretBytes.move(bytearray(encrypted.decrypt(b"")))
    except MnemonicError:
        raise Denied("SHARE_DIGEST", "the shares do not rebuild a secret together") from None


def _line(share: Share) -> SecretBytes:
    words = [_WORD_LIST[word.encode()] for word in share.words()]
    parts = [_WORDS_OF[index] for index in words]
    length = sum(map(len, parts)) + len(parts) - 1

    def write(view: memoryview) -> None:
        at = 0
        for place, word in enumerate(parts):
            if place:
                view[at : at + 1] = b" "
                at += 1
            view[at : at + len(word)] = word
            at += len(word)

    return SecretBytes.fill(length, write)


def _indices(typed: BytesLike) -> Iterator[int]:
    word = bytearray()
    count = 0
    for character in (*typed, 0x20):
        if character not in b" \t":
            word.append(character | 0x20 if 0x41 <= character <= 0x5A else character)
            continue
        if word:
            count += 1
            index = _WORD_LIST.get(bytes(word)) if len(word) <= _LONGEST else None
            word[:] = bytes(len(word))
            word.clear()
            if index is None:
                raise InvalidInput("SHARE_WORD", f"word {count} is not in the word list of SLIP-39")
            yield index


def _share(typed: BytesLike) -> Share:
    """SLIP-0039, "Format of the share mnemonic", read from word numbers."""
    words = list(_indices(typed))
    if len(words) not in _WORD_COUNTS:
        raise InvalidInput("SHARE_LENGTH", f"a share has 20 or 33 words, not {len(words)}")
    head = _number(words[:4])
    set_id, extendable, exponent = head >> 25, bool(head >> 24 & 1), head >> 20 & 15
    custom = constants.CUSTOMIZATION_STRING_EXTENDABLE if extendable else constants.CUSTOMIZATION_STRING_ORIG
    if not rs1024.verify_checksum(words, custom):
        raise InvalidInput("SHARE_CHECKSUM", "the share's own checksum is wrong: a word was mistyped or misplaced")
    if head >> 16 & 15 or head >> 12 & 15 or head >> 8 & 15:
        raise InvalidInput("SHARE_GROUPS", "shares of several groups are not used here")
    length = _WORD_COUNTS[len(words)]
    value = _number(words[4:-3])
    if value >> 8 * length:
        raise InvalidInput("SHARE_CHECKSUM", "the share's padding is not zero")
    return Share(set_id, extendable, exponent, 0, 1, 1, head >> 4 & 15, (head & 15) + 1, value.to_bytes(length, "big"))


def _number(words: Sequence[int]) -> int:
    value = 0
    for word in words:
        value = value << constants.RADIX_BITS | word
    return value
