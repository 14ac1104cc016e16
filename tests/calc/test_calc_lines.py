"""`citycard calc`: every answer and every error code, line by line."""

import io
import json
import string
from pathlib import Path

import pyemv
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calc import run

FOLDER = Path(__file__).parents[1] / "vectors"
KEY = "0123456789ABCDEFFEDCBA9876543210"
PBOC = {"op": "diversify", "method": "pboc", "algorithm": "sm4", "key": KEY, "factors": ["1234567890123456"]}
EMV = {"op": "diversify", "method": "emv-a", "algorithm": "3des", "key": KEY, "pan": "9901234567890123", "psn": "45"}
GP = {"op": "diversify", "method": "gp-kdf3", "algorithm": "aes", "key": KEY, "kdd": "00010203040506070809", "purpose": "enc"}
SCP03_FILE = json.loads((FOLDER / "scp03_pysim.json").read_text())


def scp03_request(test, **change):
    return {
        "op": "scp03",
        "keys": {name: test[name] for name in ("enc", "mac", "dek")},
        "level": test["level"],
        "host_challenge": test["host_challenge"],
        "initialize_update_response": test["initialize_update_response"],
        "apdus": [command["plain"] for command in test["commands"]],
    } | change


SCP03 = scp03_request(SCP03_FILE["tests"][2])
(SCP02_TEST,) = json.loads((FOLDER / "scp02_pysim.json").read_text())["tests"]
SCP02 = scp03_request(SCP02_TEST, op="scp02", i="15")
AN10922 = {"op": "diversify", "method": "an10922", "algorithm": "aes", "key": KEY, "input": "04782E21801D80"}
SP800 = {"op": "diversify", "method": "sp800-108", "algorithm": "aes", "key": KEY, "label": "AA", "context": "BBCC", "length": 16}
EMV_C = {"op": "diversify", "method": "emv-c", "algorithm": "aes", "key": KEY, "pan": "9901234567890123", "psn": "45"}


def load(name):
    return [pytest.param(test, id=f"{name}-{test['id']}") for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


def calc(*lines):
    """(answers, exit status) for requests given as objects or raw text."""
    out = io.StringIO()
    status = run([line if isinstance(line, str | bytes) else json.dumps(line) + "\n" for line in lines], out)
    return [json.loads(line) for line in out.getvalue().splitlines()], status


def one(request):
    answers, status = calc(request)
    assert status == (2 if "error" in answers[0] else 0)
    return answers[0]


def code(request):
    return one(request)["error"]["code"]


# -- answers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", load("kcv_published") + load("kcv_definition"))
def test_kcv(test):
    request = {"op": "kcv", "algorithm": test["algorithm"], "key": test["key"].lower(), "method": test["method"]}
    assert one(request) == {"kcv": test["kcv"]}


@pytest.mark.parametrize(("algorithm", "expected"), [("3des", "08D7B4"), ("sm4", "2677F4"), ("aes", "CDFBF8")])
def test_kcv_default_method(algorithm, expected):
    assert one({"op": "kcv", "algorithm": algorithm, "key": KEY}) == {"kcv": expected}


def test_kcv_of_a_24_byte_3des_key():
    assert one({"op": "kcv", "algorithm": "3des", "key": KEY + KEY[:16]}) == {"kcv": "08D7B4"}


@pytest.mark.parametrize("test", load("diversify_pboc"))
def test_pboc(test):
    request = {"op": "diversify", "method": "pboc"} | {name: test[name] for name in ("algorithm", "key", "factors")}
    answer = one(request)
    assert answer["key"] == test["derived"]
    assert answer["kcv"] == one({"op": "kcv", "algorithm": test["algorithm"], "key": answer["key"]})["kcv"]


@pytest.mark.parametrize("test", load("diversify_emv"))
def test_emv(test):
    request = {"op": "diversify", "algorithm": "3des"} | {name: test[name] for name in ("method", "key", "pan", "psn")}
    assert one(request)["kcv"].startswith(test["kcv_prefix"])


@pytest.mark.parametrize("test", load("diversify_gp"))
def test_gp(test):
    answer = one({"op": "diversify"} | {name: test[name] for name in ("method", "algorithm", "key", "kdd", "purpose")})
    assert answer["key"] == test.get("derived", answer["key"])
    assert answer["kcv"] == test.get("kcv", answer["kcv"])


def test_emv_parity_psn_and_kcv_method():
    assert one(EMV)["key"] == "F84315C7B95BD3B0C74694922C3808B0"
    raw = bytes.fromhex(one(EMV | {"parity": "none"})["key"])
    odd = bytes.fromhex(one(EMV)["key"])
    assert raw != odd
    assert [a & 0xFE for a in raw] == [b & 0xFE for b in odd]
    without = {name: EMV[name] for name in EMV if name != "psn"}
    assert one(without) == one(EMV | {"psn": "00"})
    assert one(EMV | {"algorithm": "sm4", "pan": "6228000100001117", "psn": "01"})["key"] == "1A10E845ABFD72FE01E257CE6C2F237E"
    assert len(one(EMV | {"kcv_method": "cmac"})["kcv"]) == 10


def test_pboc_parity_after_each_level_and_default_none():
    request = PBOC | {"algorithm": "3des", "factors": ["1122334455667788"] * 3}
    raw, odd = bytes.fromhex(one(request)["key"]), bytes.fromhex(one(request | {"parity": "odd"})["key"])
    assert [a & 0xFE for a in raw] == [b & 0xFE for b in odd]
    assert all(byte.bit_count() % 2 for byte in odd)
    assert one(request)["kcv"] == one(request | {"parity": "odd"})["kcv"]


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=40)
@given(st.binary(min_size=16, max_size=16), st.text("0123456789", min_size=12, max_size=19), st.text("0123456789", min_size=2, max_size=2))
def test_emv_equals_pyemv(key, pan, psn):
    for method, oracle in (("emv-a", pyemv.kd.derive_icc_mk_a), ("emv-b", pyemv.kd.derive_icc_mk_b)):
        answer = one(EMV | {"method": method, "key": key.hex(), "pan": pan, "psn": psn})
        assert answer["key"] == oracle(key, pan, psn).hex().upper()


@pytest.mark.parametrize("test", [pytest.param(test, id=test["id"]) for test in SCP03_FILE["tests"]])
@pytest.mark.parametrize("i", [{}, {"i": "70"}])
def test_scp03(test, i):
    assert one(scp03_request(test, **i)) == {
        "card_cryptogram_ok": True,
        "external_authenticate": test["external_authenticate"],
        "apdus": [command["wrapped"] for command in test["commands"]],
    }


def test_scp03_wrong_cryptogram_is_an_answer():
    answers, status = calc(SCP03 | {"host_challenge": "00" * 8})
    assert answers == [{"card_cryptogram_ok": False, "external_authenticate": None, "apdus": []}]
    assert status == 0


def test_scp03_level_00_returns_commands_unchanged_in_upper_case():
    answer = one(SCP03 | {"level": "00", "apdus": ["80f28002024f0000", "80f22002", "80ca006600"]})
    assert answer["apdus"] == ["80F28002024F0000", "80F22002", "80CA006600"]
    assert answer["external_authenticate"][:10] == "8482000010"


def test_scp03_no_apdus():
    assert one(SCP03 | {"apdus": []})["apdus"] == []


@pytest.mark.parametrize("test", load("diversify_an10922"))
def test_an10922(test):
    names = ("algorithm", "key", "input", "key_version")
    answer = one({"op": "diversify", "method": "an10922"} | {name: test[name] for name in names if name in test})
    assert answer["key"] == test["derived"]
    assert answer["kcv"] == one({"op": "kcv", "algorithm": test["algorithm"], "key": answer["key"]})["kcv"]


def test_an10922_is_raw_without_a_version_and_odd_on_request():
    request = AN10922 | {"algorithm": "3des"}
    raw, odd = bytes.fromhex(one(request)["key"]), bytes.fromhex(one(request | {"parity": "odd"})["key"])
    assert raw != odd
    assert [a & 0xFE for a in raw] == [byte & 0xFE for byte in odd]
    assert all(byte.bit_count() % 2 for byte in odd)
    assert len(one(request | {"key": KEY + "00" * 8})["key"]) == 48


@settings(max_examples=40)
@given(st.sampled_from([16, 24, 32]), st.binary(min_size=32, max_size=32), st.binary(max_size=40), st.binary(max_size=40))
def test_sp800_108_equals_kbkdf(length, master, label, context):
    oracle = KBKDFCMAC(AES, Mode.CounterMode, length, 4, 4, CounterLocation.BeforeFixed, label=label, context=context, fixed=None)
    answer = one(SP800 | {"key": master.hex(), "label": label.hex(), "context": context.hex(), "length": length})
    assert answer["key"] == oracle.derive(master).hex().upper()


@pytest.mark.parametrize("length", [16, 24, 32])
def test_emv_c_gives_the_masters_length(length):
    master = bytes(range(length))
    y = bytes(7) + bytes.fromhex("990123456789012345")
    blocks = Cipher(AES(master), modes.ECB()).encryptor().update(y + bytes(255 - byte for byte in y))
    answer = one(EMV_C | {"key": master.hex()})
    assert answer["key"] == blocks[:length].hex().upper()
    without = {name: EMV_C[name] for name in EMV_C if name != "psn"}
    assert one(without) == one(EMV_C | {"psn": "00"})


@pytest.mark.parametrize("key", ["00" * 16, "FE" * 16, KEY[:16] * 2])
def test_weak_keys_are_allowed_here(key):
    for request in (PBOC | {"algorithm": "3des"}, EMV, GP | {"method": "gp-emv", "algorithm": "3des"}, AN10922 | {"algorithm": "3des"}):
        assert "key" in one(request | {"key": key})
    assert "kcv" in one({"op": "kcv", "algorithm": "3des", "key": key})


@pytest.mark.parametrize("i", ["15", "55"])
def test_scp02(i):
    assert one(SCP02 | {"i": i, "id": 1}) == {
        "id": 1,
        "card_cryptogram_ok": True,
        "external_authenticate": SCP02_TEST["external_authenticate"],
        "apdus": [command["wrapped"] for command in SCP02_TEST["commands"]],
    }


def test_scp02_wrong_cryptogram_is_an_answer():
    answers, status = calc(SCP02 | {"host_challenge": "00" * 8})
    assert answers == [{"card_cryptogram_ok": False, "external_authenticate": None, "apdus": []}]
    assert status == 0


def test_scp02_levels_and_cases():
    apdus = ["80f28002024f0000", "80f22002", "80ca006600", "80e2000003aabbcc"]
    plain, maced, encrypted = (one(SCP02 | {"level": level, "apdus": apdus}) for level in ("00", "01", "03"))
    assert plain["apdus"] == [apdu.upper() for apdu in apdus]
    assert [answer["external_authenticate"][:10] for answer in (plain, maced, encrypted)] == ["8482000010", "8482010010", "8482030010"]
    # header and Lc, plain data, C-MAC, and Le if and only if it was there
    assert [apdu[:10] for apdu in maced["apdus"]] == ["84F280020A", "84F2200208", "84CA006608", "84E200000B"]
    assert [len(apdu) // 2 for apdu in maced["apdus"]] == [16, 13, 14, 16]
    assert [apdu[:10] for apdu in encrypted["apdus"]] == ["84F2800210", "84F2200208", "84CA006608", "84E2000010"]
    assert [len(apdu) // 2 for apdu in encrypted["apdus"]] == [22, 13, 14, 21]
    assert maced["apdus"][0][10:14] == "4F00"
    assert encrypted["apdus"][0][10:14] != "4F00"
    # the dek is looked at for its length only
    assert one(SCP02 | {"keys": SCP02["keys"] | {"dek": "00" * 16}}) == one(SCP02)


# -- lines -----------------------------------------------------------------------------------------------------------------


def test_order_blank_lines_and_status():
    lines = [PBOC | {"id": 1}, "\n", "  \t\n", "{", PBOC | {"id": 2}, '{"op":"kcv","id":3}']
    answers, status = calc(*lines)
    assert [answer.get("id") for answer in answers] == [1, None, 2, 3]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, "bad-json", None, "missing-field"]
    assert status == 2


def test_nothing_in_nothing_out():
    assert calc() == ([], 0)
    assert calc("", "\n", "   ") == ([], 0)


def test_lines_are_answered_as_they_come():
    out = io.StringIO()

    def lines():
        for count in range(3):
            assert len(out.getvalue().splitlines()) == count
            yield json.dumps(PBOC)

    assert run(lines(), out) == 0


@pytest.mark.parametrize("identity", ["a", "", 7, 1.5, True, None, [1, {"x": None}], {"a": "b"}, "市民卡", "\ud800"])
def test_id_is_echoed_whatever_it_is(identity):
    assert one(PBOC | {"id": identity})["id"] == identity
    assert one({"op": "none", "id": identity}) == {"id": identity, "error": one({"op": "none"})["error"]}


def test_bytes_lines():
    assert calc(json.dumps(PBOC).encode())[1] == 0
    assert calc(b'{"op":"\xff"}')[0][0]["error"]["code"] == "bad-json"


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[]", "1", '"op"', "null", "true", "{}{}", '{"op":"kcv",}', "{'op':1}", '{"op":NaN}', '{"id":Infinity,"op":"kcv"}'),
        *('{"op":"kcv","op":"kcv"}', '{"op":"scp03","keys":{"enc":"","enc":""}}', "[" * 100_000, "\ufeff{}", '{"id":' + "9" * 5000 + "}"),
    ],
)
def test_bad_json(line):
    assert code(line) == "bad-json"


def test_an_id_that_cannot_be_written_is_bad_value():
    assert one('{"op":"kcv","id":1e999}')["error"]["code"] == "bad-value"


# -- errors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "request_"),
    [
        ("missing-field", {}),
        ("bad-value", {"op": 1}),
        ("bad-value", {"op": None}),
        ("unknown-op", {"op": "KCV"}),
        ("unknown-op", {"op": ""}),
        ("missing-field", {"op": "scp02"}),
        # kcv
        ("missing-field", {"op": "kcv", "key": KEY}),
        ("missing-field", {"op": "kcv", "algorithm": "aes"}),
        ("unknown-field", {"op": "kcv", "algorithm": "aes", "key": KEY, "parity": "none"}),
        ("unknown-field", {"op": "kcv", "algorithm": "aes", "key": KEY, "kcv_method": "cmac"}),
        ("bad-value", {"op": "kcv", "algorithm": "AES", "key": KEY}),
        ("bad-value", {"op": "kcv", "algorithm": True, "key": KEY}),
        ("bad-value", {"op": "kcv", "algorithm": "aes", "key": 12}),
        ("bad-value", {"op": "kcv", "algorithm": "aes", "key": None}),
        ("bad-value", {"op": "kcv", "algorithm": "aes", "key": KEY, "method": "zero"}),
        ("bad-hex", {"op": "kcv", "algorithm": "aes", "key": KEY[:-1]}),
        ("bad-hex", {"op": "kcv", "algorithm": "aes", "key": KEY[:-1] + "g"}),
        ("bad-hex", {"op": "kcv", "algorithm": "aes", "key": KEY[:-2] + " 1"}),
        ("bad-hex", {"op": "kcv", "algorithm": "aes", "key": KEY + "\n"}),
        ("bad-hex", {"op": "kcv", "algorithm": "aes", "key": KEY[:-2] + "０１"}),
        ("bad-length", {"op": "kcv", "algorithm": "aes", "key": ""}),
        ("bad-length", {"op": "kcv", "algorithm": "sm4", "key": KEY + KEY[:16]}),
        ("bad-length", {"op": "kcv", "algorithm": "3des", "key": KEY * 2}),
        ("bad-length", {"op": "kcv", "algorithm": "3des", "key": KEY[:16]}),
        # diversify, common
        ("missing-field", {"op": "diversify"}),
        ("bad-value", PBOC | {"method": "PBOC"}),
        *(("unknown-field", PBOC | {"method": method}) for method in ("emv-c", "an10922", "sp800-108")),
        ("bad-value", PBOC | {"algorithm": "aes"}),
        ("bad-length", PBOC | {"algorithm": "3des", "key": KEY + KEY[:16]}),
        ("bad-value", PBOC | {"parity": "odd"}),
        ("bad-value", PBOC | {"parity": "even"}),
        ("bad-value", GP | {"parity": "odd"}),
        ("bad-value", PBOC | {"kcv_method": "x"}),
        ("unknown-field", PBOC | {"comment": ""}),
        # pboc
        ("missing-field", {name: PBOC[name] for name in PBOC if name != "factors"}),
        ("bad-length", PBOC | {"factors": []}),
        ("bad-length", PBOC | {"factors": ["1234567890123456"] * 9}),
        ("bad-length", PBOC | {"factors": ["12345678901234"]}),
        ("bad-hex", PBOC | {"factors": ["123456789012345x"]}),
        ("bad-value", PBOC | {"factors": "1234567890123456"}),
        ("bad-value", PBOC | {"factors": [1]}),
        ("unknown-field", PBOC | {"pan": "9901234567890123"}),
        ("unknown-field", PBOC | {"kdd": "00" * 10}),
        # emv
        ("unknown-field", EMV | {"factors": []}),
        ("bad-value", EMV | {"algorithm": "aes"}),
        ("bad-length", EMV | {"pan": "12345678901"}),
        ("bad-length", EMV | {"pan": "1" * 20}),
        ("bad-value", EMV | {"pan": "990123456789012X"}),
        ("bad-value", EMV | {"pan": 9901234567890123}),
        ("bad-value", EMV | {"pan": "９９０１２３４５６７８９０１２３"}),
        ("bad-length", EMV | {"psn": "1"}),
        ("bad-length", EMV | {"psn": "001"}),
        ("bad-value", EMV | {"psn": "0x"}),
        ("bad-value", EMV | {"psn": 1}),
        # gp
        ("bad-value", GP | {"algorithm": "3des"}),
        ("bad-value", GP | {"method": "gp-emv"}),
        ("bad-length", GP | {"kdd": "00" * 9}),
        ("bad-value", GP | {"purpose": "ENC"}),
        ("missing-field", {name: GP[name] for name in GP if name != "purpose"}),
        ("unknown-field", GP | {"psn": "00"}),
        # emv-c
        ("bad-value", EMV_C | {"algorithm": "3des"}),
        ("bad-value", EMV_C | {"parity": "odd"}),
        ("bad-length", EMV_C | {"key": KEY[:30]}),
        ("bad-length", EMV_C | {"pan": "1" * 11}),
        ("unknown-field", EMV_C | {"factors": []}),
        ("missing-field", {name: EMV_C[name] for name in EMV_C if name != "pan"}),
        # an10922
        ("bad-value", AN10922 | {"algorithm": "sm4"}),
        ("bad-length", AN10922 | {"input": ""}),
        ("bad-length", AN10922 | {"input": "00" * 32}),
        ("bad-length", AN10922 | {"algorithm": "3des", "input": "00" * 16}),
        ("bad-hex", AN10922 | {"input": "0"}),
        ("bad-value", AN10922 | {"input": 1}),
        ("missing-field", {name: AN10922[name] for name in AN10922 if name != "input"}),
        ("bad-length", AN10922 | {"algorithm": "3des", "key": KEY * 2}),
        ("bad-length", AN10922 | {"key": KEY[:16]}),
        ("unknown-field", AN10922 | {"key_version": "55"}),
        ("bad-length", AN10922 | {"algorithm": "3des", "key_version": "0055"}),
        ("bad-length", AN10922 | {"algorithm": "3des", "key_version": ""}),
        ("bad-value", AN10922 | {"algorithm": "3des", "key_version": 55}),
        ("bad-value", AN10922 | {"algorithm": "3des", "key_version": "55", "parity": "odd"}),
        ("bad-value", AN10922 | {"parity": "odd"}),
        ("unknown-field", AN10922 | {"psn": "00"}),
        # sp800-108
        ("bad-value", SP800 | {"algorithm": "3des"}),
        *(("missing-field", {name: SP800[name] for name in SP800 if name != gone}) for gone in ("label", "context", "length")),
        *(("bad-value", SP800 | {"length": length}) for length in (0, -16, 15, 33, 16.0, "16", True, None, 10**30)),
        ("bad-hex", SP800 | {"label": "A"}),
        ("bad-hex", SP800 | {"context": "label"}),
        ("bad-value", SP800 | {"context": ["00"]}),
        ("bad-value", SP800 | {"parity": "odd"}),
        ("unknown-field", SP800 | {"purpose": "enc"}),
        # scp02
        ("missing-field", {name: SCP02[name] for name in SCP02 if name != "i"}),
        ("missing-field", {name: SCP02[name] for name in SCP02 if name != "host_challenge"}),
        ("unknown-field", SCP02 | {"aid": "A000000151000000"}),
        *(("bad-value", SCP02 | {"i": i}) for i in ("00", "05", "1A", "75", "70", 15, None)),
        ("bad-length", SCP02 | {"i": "0015"}),
        *(("bad-value", SCP02 | {"level": level}) for level in ("02", "10", "11", "13", "33")),
        ("bad-length", SCP02 | {"keys": SCP02["keys"] | {"dek": KEY[:30]}}),
        ("bad-length", SCP02 | {"keys": dict.fromkeys(("enc", "mac", "dek"), KEY + KEY[:16])}),
        ("missing-field", SCP02 | {"keys": {"enc": KEY, "dek": KEY}}),
        ("unknown-field", SCP02 | {"keys": SCP02["keys"] | {"rmac": KEY}}),
        ("bad-length", SCP02 | {"initialize_update_response": SCP02["initialize_update_response"] + "9000"}),
        ("bad-length", SCP02 | {"initialize_update_response": SCP02["initialize_update_response"][:-2]}),
        ("bad-length", SCP02 | {"initialize_update_response": SCP03["initialize_update_response"]}),
        ("bad-value", SCP02 | {"initialize_update_response": "00" * 28}),
        ("bad-length", SCP02 | {"host_challenge": "00" * 6}),
        ("bad-length", SCP02 | {"level": "03", "apdus": ["80E20000F0" + "00" * 240]}),
        ("bad-length", SCP02 | {"apdus": ["80E20000F8" + "00" * 248]}),
        ("bad-length", SCP02 | {"apdus": ["80F220"]}),
        # scp03
        ("missing-field", {name: SCP03[name] for name in SCP03 if name != "apdus"}),
        ("unknown-field", SCP03 | {"algorithm": "aes"}),
        ("bad-value", SCP03 | {"keys": KEY}),
        ("missing-field", SCP03 | {"keys": {"enc": KEY, "mac": KEY}}),
        ("unknown-field", SCP03 | {"keys": {"enc": KEY, "mac": KEY, "dek": KEY, "kek": KEY}}),
        ("bad-length", SCP03 | {"keys": {"enc": KEY, "mac": KEY, "dek": KEY[:30]}}),
        ("bad-length", SCP03 | {"keys": {"enc": KEY * 2, "mac": KEY, "dek": KEY}}),
        ("bad-value", SCP03 | {"level": "10"}),
        ("bad-value", SCP03 | {"level": 33}),
        ("bad-length", SCP03 | {"level": "0033"}),
        ("bad-hex", SCP03 | {"level": "3"}),
        ("bad-length", SCP03 | {"host_challenge": "00" * 7}),
        ("bad-length", SCP03 | {"initialize_update_response": SCP03["initialize_update_response"][:-2]}),
        ("bad-length", SCP03 | {"initialize_update_response": SCP03["initialize_update_response"][:-6]}),
        ("bad-length", SCP03 | {"initialize_update_response": SCP03["initialize_update_response"] + "9000"}),
        ("bad-value", SCP03 | {"initialize_update_response": "00" * 10 + "300270" + "00" * 19}),
        ("unsupported", SCP03 | {"initialize_update_response": "00" * 10 + "300371" + "00" * 35}),
        ("bad-value", SCP03 | {"initialize_update_response": "00" * 10 + "300340" + "00" * 16}),
        ("bad-value", SCP03 | {"level": "33", "initialize_update_response": "00" * 10 + "300330" + "00" * 19}),
        ("bad-value", SCP03 | {"level": "11", "initialize_update_response": "00" * 10 + "300300" + "00" * 16}),
        ("bad-value", SCP03 | {"i": "60"}),
        ("unsupported", SCP03 | {"i": "71"}),
        ("bad-value", SCP03 | {"i": 70}),
        ("bad-value", SCP03 | {"apdus": "80F22002"}),
        ("bad-length", SCP03 | {"apdus": ["80F220"]}),
        ("bad-length", SCP03 | {"apdus": ["80F2200203AABB"]}),
        ("bad-length", SCP03 | {"apdus": ["80F2200202AABBCC00"]}),
        ("bad-value", SCP03 | {"apdus": ["80F22002000001AA"]}),
        ("bad-length", SCP03 | {"apdus": ["80E20000F0" + "00" * 240]}),
        ("bad-length", SCP03 | {"level": "11", "apdus": ["80E20000F8" + "00" * 248]}),
    ],
)
def test_errors(expected, request_):
    assert code(request_) == expected


@pytest.mark.parametrize(("level", "longest"), [("33", 239), ("11", 247), ("00", 255)])
def test_longest_apdu(level, longest):
    apdus = [f"80E20000{longest:02X}" + "00" * longest]
    assert "error" not in one(SCP03 | {"level": level, "apdus": apdus})
    assert "error" not in one(SCP02 | {"level": {"33": "03", "11": "01"}.get(level, level), "apdus": apdus})


@pytest.mark.parametrize(
    "request_",
    [
        *(PBOC | {"algorithm": KEY}, PBOC | {KEY: 1}, {"op": KEY}, PBOC | {"key": KEY + "zz"}),
        *(EMV | {"pan": KEY}, SCP03 | {"level": KEY}, '{"key":"' + KEY),
    ],
)
def test_messages_never_repeat_a_key(request_):
    answer = one(request_)
    assert KEY not in json.dumps(answer)


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(string.hexdigits, max_size=40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5
)


@settings(max_examples=300)
@given(st.sampled_from([PBOC, EMV, EMV_C, GP, AN10922, SP800, SCP02, SCP03, {"op": "kcv", "algorithm": "aes", "key": KEY}]), st.data())
def test_any_change_of_one_field_gives_an_answer_or_a_code(request_, data):
    name = data.draw(st.sampled_from(sorted(request_)))
    answer = one(request_ | {name: data.draw(values)})
    codes = ("bad-json", "unknown-op", "unknown-field", "missing-field", "bad-hex", "bad-length", "bad-value", "unsupported")
    assert "error" not in answer or answer["error"]["code"] in codes


@given(st.text())
def test_any_text_gives_one_line_or_none(line):
    answers, _ = calc(line)
    assert len(answers) == (1 if line.strip() else 0)
