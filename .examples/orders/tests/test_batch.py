from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shared.delivery.batch import BatchBooks, OrderResult, Rejection
from shared.delivery.batch_activity import MAX_REASON
from shared.delivery.index_ranges import from_ranges

# https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-custom-orchestration-status
MOST_UNITS = 8_192
REJECTION = Rejection(3, "b-3", "no such city", 422)


def units(status: object) -> int:
    """The UTF-16 code units of a status as the host's JSON writer has it: it escapes no letters."""
    return len(json.dumps(status, ensure_ascii=False).encode("utf-16-le")) // 2


def rejections(*indices: int) -> list[Rejection]:
    return [Rejection(index, f"b-{index}", "no", 422) for index in indices]


@pytest.mark.parametrize("rejection", [REJECTION, Rejection(0, "b-0", "given up")])
def test_a_rejection_comes_back_as_it_went(rejection: Rejection) -> None:
    assert Rejection.from_json(json.loads(json.dumps(rejection.to_json()))) == rejection


def test_a_rejection_without_a_status_has_no_such_member() -> None:
    assert Rejection(0, "b-0", "given up").to_json() == {"index": 0, "externalId": "b-0", "reason": "given up"}


def test_the_result_of_a_chunk_comes_back_as_it_went() -> None:
    result = OrderResult([0], [1], [REJECTION], [4, 5], [5], 12.5, "busy")

    assert OrderResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_result_of_a_chunk_leaves_out_what_says_nothing() -> None:
    assert OrderResult().to_json() == {}
    assert OrderResult(deferred=[1], retry_after=0.0).to_json() == {"deferred": [1], "retryAfter": 0.0}


def test_the_least_and_the_most_that_any_version_has_written_are_readable() -> None:
    assert OrderResult.from_json({}) == OrderResult(rejected=[])
    assert OrderResult.from_json({"created": [1], "colour": "red"}).created == [1]
    assert Rejection.from_json({"index": 1, "externalId": "b", "reason": "no", "colour": "red"}).status is None


def test_what_is_entered_is_counted() -> None:
    books = BatchBooks(10, set())
    books.enter(OrderResult([0, 1], [2], rejections(3), [4, 5], [5]))

    assert books.counts() == {"total": 10, "created": 2, "exists": 1, "rejected": 1, "deferred": 6}
    assert books.pending() == [4, 5, 6, 7, 8, 9]
    assert books.to_look_up == {5}


def test_the_progress_says_which_records_are_where() -> None:
    books = BatchBooks(10, set())
    books.enter(OrderResult([0, 1], [2], rejections(4), [5]))

    assert books.progress(posting=range(6, 9)) == {
        "total": 10,
        "created": 2,
        "exists": 1,
        "rejected": 1,
        "deferred": 6,
        "delivered": "0-2",
        "rejectedRecords": "4",
        "posting": "6-8",
    }


def test_a_status_has_no_ranges_of_nothing() -> None:
    assert BatchBooks(2, set()).progress().keys() == {"total", "created", "exists", "rejected", "deferred"}


def test_the_result_names_the_rejected_in_their_order() -> None:
    books = BatchBooks(4, set())
    books.enter(OrderResult(rejected=rejections(3)))
    books.enter(OrderResult(created=[0], rejected=rejections(1)))

    assert [rejection["index"] for rejection in books.result()["rejections"]] == [1, 3]
    assert books.result()["deferred"] == 1


class Books(RuleBasedStateMachine):
    """Rounds of a batch with any outcomes, in chunks of any size that come back in any order."""

    @initialize(total=st.integers(1, 60), looks=st.booleans())
    def begin(self, total: int, looks: bool) -> None:  # noqa: FBT001 - a rule's argument
        self.books = BatchBooks(total, set(range(total)) if looks else set())
        self.ended: dict[int, str] = {}
        self.uncertain = set(self.books.to_look_up)

    @rule(data=st.data())
    def post_some(self, data: st.DataObject) -> None:
        pending = self.books.pending()
        if not pending:
            return
        chunk = data.draw(st.lists(st.sampled_from(pending), unique=True, max_size=20))
        kinds = st.sampled_from(["created", "exists", "rejected", "deferred", "uncertain"])
        fates = {index: data.draw(kinds) for index in chunk}

        def of(*kind: str) -> list[int]:
            return [index for index, fate in fates.items() if fate in kind]

        deferred = of("deferred", "uncertain")
        result = OrderResult(
            of("created"), of("exists"), rejections(*of("rejected")), deferred, of("uncertain"), None, "busy"
        )
        self.books.enter(OrderResult.from_json(json.loads(json.dumps(result.to_json()))))
        self.ended |= {index: fate for index, fate in fates.items() if index not in deferred}
        self.uncertain |= set(of("uncertain"))

    @invariant()
    def every_record_is_in_exactly_one_book(self) -> None:
        books = self.books
        all_books = [*books.created, *books.exists, *books.rejected, *books.pending()]
        assert sorted(all_books) == list(range(books.total))
        counts = books.counts()
        assert counts.pop("total") == sum(counts.values())

    @invariant()
    def every_record_is_in_the_book_of_its_fate(self) -> None:
        books = self.books
        assert books.created == {index for index, fate in self.ended.items() if fate == "created"}
        assert books.exists == {index for index, fate in self.ended.items() if fate == "exists"}
        assert books.rejected.keys() == {index for index, fate in self.ended.items() if fate == "rejected"}

    @invariant()
    def no_uncertain_record_is_forgotten(self) -> None:
        assert self.books.to_look_up == self.uncertain

    @invariant()
    def the_status_tells_the_same_as_the_books(self) -> None:
        books, posting = self.books, self.books.pending()[::2]
        status = json.loads(json.dumps(books.progress(posting)))
        told = [from_ranges(status.get(name, "")) for name in ("delivered", "rejectedRecords", "posting")]
        assert told == [books.created | books.exists, set(books.rejected), set(posting)]


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=15)
test_every_record_is_in_exactly_one_book_at_any_time = Books.TestCase


def status_of(kinds: str, reason: str) -> dict[str, Any]:
    """What a batch of 1,000 records shows while it waits or posts; `kinds` repeats: each record's fate."""
    fates = (kinds * 1_000)[:1_000]
    of = {kind: [index for index, fate in enumerate(fates) if fate == kind] for kind in "cerdp"}
    books = BatchBooks(1_000, set())
    books.enter(OrderResult(of["c"], of["e"], rejections(*of["r"]), of["d"]))
    waiting = {"nextRound": "2026-01-31T23:59:59.999999+00:00", "reason": reason}
    return {**books.progress(posting=of["p"]), **waiting}


@pytest.mark.parametrize("kinds", ["cr", "cp", "rp", "crp", "cdrp", "cpr", "cd", "c", "r", "p", "ecrp", "ccrrpp"])
@pytest.mark.parametrize("letter", ["x", "ü", "\N{ROCKET}", '"', "\\"])
def test_the_status_of_the_most_scattered_thousand_fits_with_the_longest_reason(kinds: str, letter: str) -> None:
    assert units(status_of(kinds, letter * MAX_REASON)) <= MOST_UNITS


@given(st.text("cerdp", min_size=1, max_size=200))
def test_the_status_of_any_thousand_fits(kinds: str) -> None:
    assert units(status_of(kinds, "\N{ROCKET}" * MAX_REASON)) <= MOST_UNITS


def test_the_reasons_of_a_thousand_rejections_are_cut_and_those_of_a_few_are_not() -> None:
    def result(count: int) -> list[str]:
        books = BatchBooks(1_000, set())
        books.enter(OrderResult(rejected=[Rejection(index, f"b-{index}", "語" * 400) for index in range(count)]))
        return [rejection["reason"] for rejection in books.result()["rejections"]]

    assert result(300) == ["語" * 400] * 300
    assert result(1_000) == ["語" * 149 + "…"] * 1_000
    # As the Durable SDK writes it, in one message of the Durable Task Scheduler.
    assert len(json.dumps(result(1_000))) < 1024 * 1024
