"""Every rule: a good row made bad in one way is rejected by that rule and its column, and the message gives nothing away."""

from __future__ import annotations

import io

import pytest

from engine.orders import RULES, OrderSource, Reject, Rules, read_orders, region_set
from engine.orders.columns import NAMES
from engine.orders.rules import card_check_character, id_check_character, luhn_fits, masked_id, masked_pan
from engine.orders.synthetic import row as synthetic_row
from keys.errors import InvalidInput, NotFound

KEY = b"0123456789abcdef"
# Rules that need more than one bad value in one row; proven in the tests of framing and duplicates.
ELSEWHERE = {
    "line-too-long", "quote-unterminated", "quote-misplaced", "duplicate-person", "duplicate-card-number", "duplicate-pan",
    "duplicate-person-issued", "duplicate-card-number-issued",
}  # fmt: skip


def good(index: int = 1, **changes: str) -> dict[str, str]:
    row = dict(zip(NAMES, synthetic_row(index), strict=True))
    return row | changes


def file_of(*rows: dict[str, str], encoding: str = "utf-8") -> bytes:
    lines = [",".join(NAMES)] + [",".join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows]
    return "\r\n".join(lines).encode(encoding) + b"\r\n"


def rejects_of(octets: bytes, rules: Rules | None = None) -> list[Reject]:
    return [reject for batch in read_orders(OrderSource(io.BytesIO(octets)), rules or Rules(), KEY) for reject in batch.rejects]


def citizen(seventeen: str) -> str:
    return seventeen + id_check_character(seventeen)


GOOD = good()
ID = GOOD["social_security_number"]
WRONG_PAN = next(GOOD["pan"][:-1] + d for d in "0123456789" if not luhn_fits(GOOD["pan"][:-1] + d))

CASES: list[tuple[str, str, dict[str, str]]] = [
    ("sequence-format", "sequence", {"sequence": "1a"}),
    ("sequence-format", "sequence", {"sequence": "1" * 19}),
    ("sequence-format", "sequence", {"sequence": "١"}),
    ("field-missing", "sequence", {"sequence": ""}),
    ("id-format", "social_security_number", {"social_security_number": ID[:17]}),
    ("id-format", "social_security_number", {"social_security_number": ID + "1"}),
    ("id-format", "social_security_number", {"social_security_number": "A" + ID[1:]}),
    ("id-format", "social_security_number", {"social_security_number": ID[:17] + "A"}),
    ("id-format", "social_security_number", {"social_security_number": "11010519491231002x", "birth_date": "19491231", "sex": "2"}),
    ("id-check-digit", "social_security_number", {"social_security_number": ID[:17] + ("1" if ID[17] != "1" else "2")}),
    (
        "id-region-unknown",
        "social_security_number",
        {"social_security_number": citizen("99010519491231002"), "birth_date": "19491231", "sex": "2"},
    ),
    ("id-birth-mismatch", "birth_date", {"birth_date": "19700101"}),
    ("sex-mismatch", "sex", {"sex": "2" if GOOD["sex"] == "1" else "1"}),
    ("sex-unknown", "sex", {"sex": "3"}),
    ("sex-unknown", "sex", {"sex": "男"}),
    ("name-missing", "name", {"name": ""}),
    ("name-missing", "name", {"name": " \u3000"}),
    ("name-character", "name", {"name": "王 芳"}),
    ("name-character", "name", {"name": "买买提•吐尔逊"}),
    ("name-character", "name", {"name": "买买提・吐尔逊"}),
    ("name-character", "name", {"name": "买买提.吐尔逊"}),
    ("name-character", "name", {"name": "·王芳"}),
    ("name-character", "name", {"name": "王芳·"}),
    ("name-character", "name", {"name": "买买提··吐尔逊"}),
    ("name-character", "name", {"name": "Wang"}),
    ("name-too-long", "name", {"name": "王" * 31}),
    ("name-too-long", "name", {"name": "王" * 14 + "𬭎" * 8 + "王"}),
    ("name-too-long", "name", {"name": "王" * 20_000}),
    ("character-unassigned", "name", {"name": "王\ue000"}),
    ("character-unassigned", "address", {"address": "郑州\U000f0000"}),
    ("character-unassigned", "name", {"name": "王\ufffd"}),
    ("control-character", "name", {"name": "王\x07芳"}),
    ("control-character", "name", {"name": "王\n芳"}),
    ("control-character", "name", {"name": "王\x00芳"}),
    ("control-character", "address", {"address": "郑州\t市"}),
    ("control-character", "address", {"address": "郑州\u202e市"}),
    ("control-character", "pan", {"pan": GOOD["pan"] + "\x00"}),
    ("ethnicity-unknown", "ethnicity", {"ethnicity": "57"}),
    ("ethnicity-unknown", "ethnicity", {"ethnicity": "00"}),
    ("ethnicity-unknown", "ethnicity", {"ethnicity": "1"}),
    ("date-invalid", "issue_date", {"issue_date": "20260229"}),
    ("date-invalid", "expiry_date", {"expiry_date": "2036-11-23"}),
    ("date-invalid", "birth_date", {"birth_date": "18991231"}),
    ("birth-after-issue", "birth_date", {"issue_date": "19000101"}),
    ("expiry-before-issue", "expiry_date", {"expiry_date": "20200101"}),
    ("expiry-before-issue", "expiry_date", {"expiry_date": GOOD["issue_date"]}),
    ("region-unknown", "issuing_region", {"issuing_region": "999999"}),
    ("region-unknown", "issuing_region", {"issuing_region": "4101000"}),
    ("card-number-format", "card_number", {"card_number": "a1234567" + "4"}),
    ("card-number-format", "card_number", {"card_number": "12345678"}),
    ("card-number-check", "card_number", {"card_number": "123456789"}),
    ("card-number-check", "card_number", {"card_number": "12345678A"}),
    ("bank-code-format", "bank_code", {"bank_code": "icbc"}),
    ("bank-code-format", "bank_code", {"bank_code": "I"}),
    ("pan-not-digits", "pan", {"pan": "62ABC91049432773000"}),
    ("pan-length", "pan", {"pan": "621226000000"}),
    ("pan-length", "pan", {"pan": GOOD["pan"] + "00"}),
    ("pan-luhn", "pan", {"pan": WRONG_PAN}),
    ("phone-format", "phone", {"phone": "0371-"}),
    ("phone-format", "phone", {"phone": "1" * 16}),
    ("field-too-long", "address", {"address": "郑" * 86}),
    ("field-too-long", "photo_file", {"photo_file": "a" * 61 + ".jpg"}),
    ("kind-unknown", "kind", {"kind": "第一次"}),
    ("outlet-format", "outlet", {"outlet": "Z 003"}),
    ("photo-file-format", "photo_file", {"photo_file": "../1.jpg"}),
    ("photo-file-format", "photo_file", {"photo_file": ".jpg"}),
    ("photo-file-format", "photo_file", {"photo_file": "1.gif"}),
    ("photo-file-format", "photo_file", {"photo_file": ".a.jpg"}),
]


@pytest.mark.parametrize(("rule", "field", "changes"), CASES, ids=lambda value: str(value)[:40])
def test_one_bad_value_breaks_its_rule(rule: str, field: str, changes: dict[str, str]) -> None:
    rejects = rejects_of(file_of(good(0), good(1, **changes), good(2)))
    assert {reject.line for reject in rejects} == {3} or "\n" in "".join(changes.values())
    assert (field, rule) in [(reject.field, reject.rule) for reject in rejects]


def test_every_rule_is_proven() -> None:
    proven = {rule for rule, _, _ in CASES} | {"column-missing", "column-extra"} | ELSEWHERE
    assert proven == set(RULES)


def test_messages_hold_no_personal_data() -> None:
    """Neither the values of a defective row nor parts of them of more than six characters come back in its messages."""
    for _, _, changes in CASES:
        bad = good(1, **changes)
        for reject in rejects_of(file_of(bad)):
            assert reject.rule in RULES
            for field in ("social_security_number", "name", "pan", "phone", "address", "birth_date", "card_number", "photo_file"):
                value = bad[field]
                assert len(value) < 5 or value not in reject.message
            assert bad["social_security_number"][6:14] not in reject.message


def test_masks() -> None:
    assert masked_id("11010519491231002X") == "11**************2X"
    assert masked_pan("6299992310208077029") == "629999*********7029"
    assert masked_id("12345") == "*****"
    assert masked_pan("123456") == "******"


@pytest.mark.parametrize(
    "changes",
    [
        {"phone": ""},
        {"phone": "+86-371-12345678"[:15]},
        {"phone": "0371-1234567"},
        {"address": ""},
        {"address": "郑州市\r\n中原区"},
        {"address": '郑州市,"东"路'},
        {"address": "郑" * 85},
        {"photo_file": ""},
        {"photo_file": "a.b-c_1.JPEG"},
        {"kind": "first"},
        {"kind": "renewal"},
        {"ethnicity": "98"},
        {"name": "王" * 30},
        {"name": "𬭎𬭎𬭎𬭎𬭎𬭎𬭎𬭎"},
        {"name": "龴龵"},
        {"name": "〇㛃䶮𠅤"},
        {"outlet": "a-B_9"},
        {"sequence": "0"},
        {"issue_date": "20240229"},
        {"pan": "4222222222222"},
    ],
    ids=str,
)
def test_unusual_but_good(changes: dict[str, str]) -> None:
    assert rejects_of(file_of(good(1, **changes))) == []


def test_all_broken_rules_are_reported_at_once() -> None:
    bad = good(1, name="", sex="9", pan="12", kind="?", issuing_region="", card_number="x")
    assert {r.rule for r in rejects_of(file_of(bad))} == {
        "name-missing", "sex-unknown", "pan-length", "pan-luhn", "kind-unknown", "field-missing", "card-number-format",
    }  # fmt: skip


def test_wrong_number_of_fields() -> None:
    lines = file_of(good(0), good(1), good(2)).split(b"\r\n")
    lines[2] = b",".join(lines[2].split(b",")[:9])
    lines[3] += b",more"
    rejects = rejects_of(b"\r\n".join(lines))
    assert [(r.line, r.rule, r.field) for r in rejects] == [(3, "column-missing", "expiry_date"), (4, "column-extra", "photo_file")]
    assert "9 fields" in rejects[0].message
    assert "17" in rejects[0].message


def test_name_is_never_cut_inside_a_character() -> None:
    name = "王" * 14 + "𬭎王"  # 28 bytes, then a four-byte character that begins in the field and would end outside
    batch = next(iter(read_orders(OrderSource(io.BytesIO(file_of(good(1, name=name)))), Rules(), KEY)))
    assert batch.columns["name_field"].tolist() == [("王" * 14).encode("gb18030")]
    assert batch.columns["name_extension"].tolist() == ["𬭎王".encode("gb18030")]


def test_parameters() -> None:
    kaifeng = good(1, issuing_region="410200")
    assert [r.rule for r in rejects_of(file_of(kaifeng))] == ["region-unknown"]
    assert rejects_of(file_of(kaifeng), Rules(regions=region_set("henan"))) == []
    assert [r.rule for r in rejects_of(file_of(good(1, name="王" * 16)), Rules(extension_bytes=0))] == ["name-too-long"]
    assert rejects_of(file_of(good(1, name="JOHN SMITH")), Rules(extra_name_characters="ABCDEFGHIJKLMNOPQRSTUVWXYZ ")) == []
    assert [r.rule for r in rejects_of(file_of(good(1)), Rules(pan_digits=(16, 16)))] == ["pan-length"]


@pytest.mark.parametrize(
    "parameters",
    [{"regions": frozenset()}, {"regions": frozenset({"41"})}, {"name_bytes": 3}, {"extension_bytes": -1}, {"pan_digits": (19, 13)},
     {"extra_name_characters": "\ue000"}, {"name_bytes": 100, "extension_bytes": 100}],
)  # fmt: skip
def test_senseless_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Rules(**parameters)  # type: ignore[arg-type]
    assert caught.value.reason == "RULES_INVALID"
    with pytest.raises(NotFound):
        region_set("atlantis")


def test_published_check_digits() -> None:
    assert id_check_character("11010519491231002") == "X"
    assert id_check_character("44052418800101001") == "4"
    assert card_check_character("12345678") == "8"
    assert card_check_character("A1234567") == "4"
    assert luhn_fits("4111111111111111")
    assert not luhn_fits("4111111111111112")
