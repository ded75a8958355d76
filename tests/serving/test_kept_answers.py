from threading import Event, Thread

from rakuten.serving.kept_answers import KeptAnswers


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_an_answer_is_kept_for_twenty_times_as_long_as_it_took() -> None:
    clock, calls = Clock(), []

    def compute() -> int:
        calls.append(clock.time)
        clock.time += 1.0
        return len(calls)

    kept = KeptAnswers(clock)
    assert [kept.get("a", compute), kept.get("a", compute)] == [1, 1]
    clock.time = 20.9
    assert kept.get("a", compute) == 1
    clock.time = 21.1
    assert kept.get("a", compute) == 2
    assert kept.get("b", compute) == 3


def test_an_answer_that_is_quick_is_not_kept() -> None:
    answers = iter(range(3))
    kept = KeptAnswers(Clock())
    assert [kept.get("a", lambda: next(answers)) for _ in range(3)] == [0, 1, 2]


def test_while_an_answer_is_computed_again_others_get_the_last_one() -> None:
    clock, started, go_on = Clock(), Event(), Event()
    kept = KeptAnswers(clock)

    def slow(answer: str) -> str:
        clock.time += 1.0
        return answer

    def blocked() -> str:
        started.set()
        go_on.wait(10)
        return slow("new")

    assert kept.get("a", lambda: slow("old")) == "old"
    clock.time += 100
    thread = Thread(target=kept.get, args=("a", blocked))
    thread.start()
    started.wait(10)
    assert kept.get("a", lambda: slow("another")) == "old"
    go_on.set()
    thread.join(10)
    assert kept.get("a", lambda: slow("another")) == "new"
