"""Whatever is done to the chain is found, and the first bad index is named."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger import audit, serials
from engine.ledger.store import Ledger
from keys.errors import Conflict, Corrupt, NotFound

LEAVES = 12


@pytest.fixture
def chain(world):
    """The path of a closed ledger with a short chain, and its head."""
    while world.see(audit.head).count < LEAVES:
        world.do(serials.define_pool, f"p{world.see(audit.head).count}", 1, 9)
    head = world.see(audit.verify)
    assert head.count == LEAVES
    world.close()
    return world.path, head


def tamper(path, *statements) -> None:
    with sqlite3.connect(path) as raw:
        for statement in statements:
            raw.execute(*statement) if isinstance(statement, tuple) else raw.execute(statement)
    raw.close()


def found(path, index: int, reason: str = "AUDIT_BROKEN", anchor=None) -> None:
    with pytest.raises(Corrupt) as caught:
        audit.verify(path, anchor)
    assert caught.value.reason == reason
    assert f"audit leaf {index}:" in caught.value.message


def test_an_untouched_chain_verifies_offline(chain):
    path, head = chain
    assert audit.verify(path) == head
    assert audit.verify(path, anchor=head) == head
    with pytest.raises(NotFound):
        audit.verify(path.with_name("other.db"))


def test_the_bytes_of_a_cards_leaves_never_change(world):
    """Exports of years must verify: what is hashed is exactly this text."""
    world.start()
    begun = world.see(audit.head).count
    attempt = world.card()
    chip, at = attempt.chip_id, world.clock.wall
    facts = [
        ("attempt.reserved", '"attempt_no":1,"job":"J1","line":1,"station":"S1"'),
        ("attempt.presented", f'"chip":"{chip}","station":"S1"'),
        (
            "attempt.intent",
            f'"chip":"{chip}","image":"{"64" * 32}","job":"J1","kvn":1,"line":1,"profile":"{"AB" * 32}","psn":0,"serials":{{"city":1}}',
        ),
        *((f"attempt.{step}", f'"chip":"{chip}"') for step in ("encoded", "verified", "printed", "good")),
        ("piece.stacked", f'"bin":"good","chip":"{chip}","state":"GOOD"'),
    ]
    wanted = [
        f'{{"at_us":{at},"facts":{{{told}}},"index":{begun + place},"kind":"{kind}","subject":"1"}}'
        for place, (kind, told) in enumerate(facts)
    ]
    read = "SELECT leaf FROM audit_leaves WHERE leaf_index >= ? ORDER BY leaf_index"
    found = world.see(lambda conn: conn.exec_driver_sql(read, (begun,)).scalars().all())
    assert found == wanted


@pytest.mark.parametrize("index", range(LEAVES))
def test_a_flipped_character_is_found(chain, index):
    tamper(chain[0], ('UPDATE audit_leaves SET leaf = replace(leaf, \'"subject":"\', \'"subject":"x\') WHERE leaf_index = ?', (index,)))
    found(chain[0], index)


@pytest.mark.parametrize("index", range(LEAVES))
def test_a_flipped_hash_is_found(chain, index):
    tamper(chain[0], ("UPDATE audit_leaves SET hash = zeroblob(32) WHERE leaf_index = ?", (index,)))
    found(chain[0], index)


@pytest.mark.parametrize("index", range(LEAVES))
def test_a_dropped_leaf_is_found(chain, index):
    tamper(chain[0], ("DELETE FROM audit_leaves WHERE leaf_index = ?", (index,)))
    found(chain[0], index, "AUDIT_TRUNCATED" if index == LEAVES - 1 else "AUDIT_BROKEN")


@pytest.mark.parametrize("index", range(LEAVES))
def test_a_dropped_leaf_is_found_even_when_the_others_close_up(chain, index):
    tamper(
        chain[0],
        ("DELETE FROM audit_leaves WHERE leaf_index = ?", (index,)),
        ("UPDATE audit_leaves SET leaf_index = -leaf_index WHERE leaf_index > ?", (index,)),
        "UPDATE audit_leaves SET leaf_index = -leaf_index - 1 WHERE leaf_index < 0",
    )
    found(chain[0], index, "AUDIT_TRUNCATED" if index == LEAVES - 1 else "AUDIT_BROKEN")


@pytest.mark.parametrize("index", range(LEAVES - 1))
def test_two_exchanged_leaves_are_found(chain, index):
    tamper(
        chain[0],
        ("UPDATE audit_leaves SET leaf_index = -1 WHERE leaf_index = ?", (index,)),
        ("UPDATE audit_leaves SET leaf_index = ? WHERE leaf_index = ?", (index, index + 1)),
        ("UPDATE audit_leaves SET leaf_index = ? WHERE leaf_index = -1", (index + 1,)),
    )
    found(chain[0], index)


@pytest.mark.parametrize("kept", range(LEAVES))
def test_a_chain_cut_short_is_found(chain, kept):
    path, head = chain
    tamper(path, ("DELETE FROM audit_leaves WHERE leaf_index >= ?", (kept,)))
    found(path, kept, "AUDIT_TRUNCATED")
    with pytest.raises(Corrupt) as caught:
        Ledger.open(path)
    assert caught.value.reason == "AUDIT_TRUNCATED"
    # With the recorded end forged as well, only a head kept elsewhere tells.
    tamper(
        path,
        (
            "UPDATE audit_head SET count = ?, hash = coalesce((SELECT hash FROM audit_leaves WHERE leaf_index = ?), zeroblob(32))",
            (kept, kept - 1),
        ),
    )
    assert audit.verify(path).count == kept
    found(path, kept, "AUDIT_TRUNCATED", anchor=head)


def test_a_rewritten_chain_is_found_by_an_earlier_head(world):
    """An old copy is restored and history goes on differently: every hash fits, the earlier record does not."""
    world.do(serials.define_pool, "common", 1, 9)
    world.close()
    old = world.path.read_bytes()
    world.reopen()
    world.do(serials.define_pool, "true history", 1, 9)
    anchor = world.see(audit.verify)
    world.close()
    for side in world.path.parent.glob("ledger.db-*"):
        side.unlink()
    world.path.write_bytes(old)
    world.reopen()
    for number in range(5):
        world.do(serials.define_pool, f"other history {number}", 1, 9)
    world.see(audit.verify)
    with pytest.raises(Corrupt, match="rewritten") as caught:
        world.see(audit.verify, anchor)
    assert f"audit leaf {anchor.count - 1}:" in caught.value.message


def test_a_missing_recorded_end_is_found(chain):
    tamper(chain[0], "DELETE FROM audit_head")
    found(chain[0], LEAVES, "AUDIT_HEAD_MISSING")


def test_an_export_verifies_and_is_never_overwritten(world, tmp_path):
    world.do(serials.define_pool, "池", 1, 9)
    path = tmp_path / "audit.jsonl"
    head = world.see(audit.export, path)
    assert audit.verify_export(path) == head == world.see(audit.verify)
    with pytest.raises(Conflict):
        world.see(audit.export, path)


@pytest.fixture
def exported(chain, tmp_path):
    path = tmp_path / "audit.jsonl"
    ledger = Ledger.open(chain[0])
    ledger.read(lambda conn: audit.export(conn, path))
    ledger.close()
    return path, path.read_text(encoding="utf-8").splitlines()


def test_everything_done_to_an_export_is_found(exported):
    path, lines = exported

    def changed(text: str, **values) -> str:
        return json.dumps(json.loads(text) | values, sort_keys=True)

    bad = {
        "leaf": [changed(lines[0], leaf="{}"), *lines[1:]],
        "hash": [*lines[:3], changed(lines[3], hash="00" * 32), *lines[4:]],
        "drop": lines[:4] + lines[5:],
        "swap": [lines[1], lines[0], *lines[2:]],
        "cut": [*lines[:5], lines[-1]],
        "no end": lines[:-1],
        "after the end": [*lines, lines[0]],
        "not json": [*lines[:2], "}{", *lines[3:]],
        "not an object": [*lines[:2], "7", *lines[3:]],
        "no fields": [*lines[:2], "{}", *lines[3:]],
        "bad hex": [*lines[:2], changed(lines[2], hash="xyz"), *lines[3:]],
        "empty": [],
    }
    for name, content in bad.items():
        path.write_text("".join(line + "\n" for line in content), encoding="utf-8")
        with pytest.raises(Corrupt):
            print(name, audit.verify_export(path))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_export_verifier(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(content)
    with pytest.raises(Corrupt):
        audit.verify_export(path)


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=20)), max_size=5), st.data())
def test_no_lines_crash_the_export_verifier(tmp_path_factory, leaves, data):
    path = tmp_path_factory.getbasetemp() / "fuzz2.jsonl"
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:
        for index, leaf in leaves:
            values = {"index": index, "leaf": leaf, "hash": data.draw(st.sampled_from(["", "00" * 32, 7, None]))}
            file.write(json.dumps(values) + "\n")
    with pytest.raises(Corrupt):
        audit.verify_export(path)
