"""How a recorded chip answers the commands of the proof: constants from the recording, and few answers that its own keys and data make.

A run of commands is looked at once for a profile; what results is one recipe for each command, which every other card follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from engine.load.layout import Layout
from engine.personalize.applet_crypto import BLOCK, application_cryptogram, ecb, load_mac1
from engine.profiles.compile import CardKey, ber_length
from keys.errors import Unsupported

OK: Final = b"\x90\x00"
_SELECT, _READ_RECORD, _READ_BINARY, _INTERNAL, _EXTERNAL, _CHALLENGE, _LOAD, _OPTIONS, _CRYPTOGRAM = (
    0xA4, 0xB2, 0xB0, 0x88, 0x82, 0x84, 0x50, 0xA8, 0xAE,
)  # fmt: skip


class Card(Protocol):
    """What a recipe needs of the chip it is followed on."""

    def key(self, index: int) -> bytes:
        """A card key by its place in the profile's keys, 16 bytes."""

    def image(self, start: int, end: int) -> bytes:
        """Bytes of the card's image."""

    def random(self, size: int) -> bytes:
        """A random number."""


# What a command is answered with: always the same, or made for the card.
Recipe = bytes | Callable[[Card, bytes], bytes]
# Keys of the profile that a chip must know to answer its proof.
PROVEN: Final = frozenset({"internal-authenticate", "initialize-for-load", "generate-ac"})


class Recipes:
    """Recipes for the proof of one profile; `constants` are answers of the recording by command."""

    def __init__(self, layout: Layout, constants: Mapping[bytes, bytes]) -> None:
        self._layout = layout
        self._constants = constants
        self._known: dict[tuple[bytes, tuple[bytes, ...]], tuple[list[Recipe], bytes]] = {}

    def of(self, df: bytes, commands: Sequence[bytes]) -> tuple[list[Recipe], bytes]:
        """A recipe for each command, and the DF that is selected after the last; `df` is the one before the first.

        Raises Unsupported NOT_RECORDED for a command that the recorded chip has never heard.
        """
        signature = (df, tuple([c if c[1] == _SELECT else c[:4] for c in commands]))
        found = self._known.get(signature)
        if found is None:
            found = self._known[signature] = self._made(df, commands)
        return found

    def _made(self, df: bytes, commands: Sequence[bytes]) -> tuple[list[Recipe], bytes]:
        recipes: list[Recipe] = []
        options = b""
        for command in commands:
            if command[1] == _SELECT:
                df = command[5 : 5 + command[4]]
                recipes.append(self._constant(command))
                continue
            if command[1] == _OPTIONS:
                options = command[7 : 5 + command[4]]
            recipes.append(self._recipe(df, command, options))
        return recipes, df

    def _recipe(self, df: bytes, command: bytes, options: bytes) -> Recipe:
        makers: dict[int, Callable[[], Recipe]] = {
            _READ_RECORD: lambda: self._read(df, command),
            _READ_BINARY: lambda: self._read(df, command),
            _INTERNAL: lambda: self._internal(df, command),
            _EXTERNAL: lambda: OK,
            _CHALLENGE: lambda: lambda card, question: card.random(question[4]) + OK,
            _LOAD: lambda: self._load(command),
            _OPTIONS: lambda: self._options(options),
            _CRYPTOGRAM: lambda: self._cryptogram(options),
        }
        return makers.get(command[1], lambda: self._constant(command))()

    def _constant(self, command: bytes) -> bytes:
        answer = self._constants.get(command)
        if answer is None:
            raise Unsupported("NOT_RECORDED", f"the recorded chip never heard the command {command[:4].hex().upper()} that the server sent")
        return answer

    def _read(self, df: bytes, command: bytes) -> Recipe:
        record = command[2] if command[1] == _READ_RECORD else 0
        sfi = command[3] >> 3 if record else command[2] & 0x1F
        place = next((r for r in self._layout.compiled.reads if (r.df, r.sfi, r.record) == (df, sfi, record)), None)
        if place is None:
            raise Unsupported("NOT_RECORDED", f"the server reads file {sfi:02X}, which the profile does not name")
        start, end = place.start, place.end
        return lambda card, _: card.image(start, end) + OK

    def _key_index(self, fits: Callable[[CardKey], bool]) -> int:
        index = next((i for i, key in enumerate(self._layout.compiled.keys) if key.prove in PROVEN and fits(key)), None)
        if index is None:
            raise Unsupported("NOT_RECORDED", "the server asks for the proof of a key that the profile does not name")
        return index

    def _internal(self, df: bytes, command: bytes) -> Recipe:
        kid, size = command[3], command[4]
        index = self._key_index(lambda key: (key.df, key.kid, BLOCK[key.algorithm]) == (df, kid, size))
        algorithm = self._layout.compiled.keys[index].algorithm
        return lambda card, question: ecb(algorithm, card.key(index), question[5 : 5 + size]) + OK

    def _load(self, command: bytes) -> Recipe:
        found = next((at for _, load, at in self._layout.compiled.loads if bytes.fromhex(load.key_index) == command[5:6]), None)
        if found is None:
            raise Unsupported("NOT_RECORDED", "the server begins a load with a key that the profile does not name")
        index, algorithm = found, self._layout.compiled.keys[found].algorithm
        # balance4 sequence2 version1 algorithm1, of a purse that nobody used
        head = bytes(6) + (b"\x01\x00" if algorithm == "3des" else b"\x01\x04")

        def answer(card: Card, question: bytes) -> bytes:
            facts = head + card.random(4)
            return facts + load_mac1(algorithm, card.key(index), facts, question[6:10], question[10:16]) + OK

        return answer

    def _transaction(self, options: bytes) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """Index of the key, and the places of the processing options and of the issuer's data, of the transaction that begins so."""
        compiled = self._layout.compiled
        found = next(((a, i) for a, spec, i in compiled.generate_acs if bytes.fromhex(spec.pdol_data) == options), None)
        if found is None:
            raise Unsupported("NOT_RECORDED", "the server begins a payment transaction that the profile does not name")
        application, index = found
        options_id, iad_id = ("9104", "9200") if compiled.keys[index].algorithm == "3des" else ("9105", "9201")
        return index, compiled.values[application.name, options_id], compiled.values[application.name, iad_id]

    def _options(self, options: bytes) -> Recipe:
        _, at, _ = self._transaction(options)
        size = b"\x77" + ber_length(at[1] - at[0])
        return lambda card, _: size + card.image(*at) + OK

    def _cryptogram(self, options: bytes) -> Recipe:
        compiled = self._layout.compiled
        index, options_at, iad_at = self._transaction(options)
        algorithm = compiled.keys[index].algorithm
        # a new card's transactions, in the order in which the profile asks for them
        atc = next(n for n, (_, _, i) in enumerate(compiled.generate_acs, 1) if i == index).to_bytes(2, "big")

        def answer(card: Card, question: bytes) -> bytes:
            iad = card.image(*iad_at)
            message = question[5 : 5 + question[4]] + card.image(*options_at)[2:4] + atc + iad
            made = application_cryptogram(algorithm, card.key(index), atc, message)
            body = b"\x9f\x27\x01\x80\x9f\x36\x02" + atc + b"\x9f\x26\x08" + made + b"\x9f\x10" + bytes([len(iad)]) + iad
            return b"\x77" + bytes([len(body)]) + body + OK

        return answer
