"""What several decisions about a product amount to, and how far people agree. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np
from sklearn.metrics import cohen_kappa_score

from rakuten.data.taxonomy import Taxonomy
from rakuten.review.tables import Answer, ReviewDecision, State

NO_CODE = 0  # stands for "none of the codes" among answers


def standing_decisions(decisions: Iterable[ReviewDecision]) -> dict[str, ReviewDecision]:
    """Each person's last decision about a product that was not taken back.

    Args:
        decisions: about one product, in the order in which they were made.
    """
    by_person: dict[str, list[ReviewDecision]] = {}
    for decision in decisions:
        made = by_person.setdefault(decision.person, [])
        if decision.answer != Answer.UNDO:
            made.append(decision)
        elif made:
            made.pop()
    return {person: made[-1] for person, made in by_person.items() if made}


def answers(standing: Mapping[str, ReviewDecision], taxonomy: Taxonomy) -> dict[str, int]:
    """The prdtypecode that each person gave, NO_CODE for none of the codes; without those who skipped the product.

    A decision for a code that was merged since is one for the code that it became part of.

    Args:
        standing: from `standing_decisions`.
    """
    return {
        person: NO_CODE if decision.prdtypecode is None else taxonomy.follow_code(decision.prdtypecode)
        for person, decision in standing.items()
        if decision.answer in (Answer.CODE, Answer.NO_CODE)
    }


def outcome(answer_by_person: Mapping[str, int], agreement: int) -> tuple[State, int | None]:
    """Whether a product is decided, and the answer.

    It is decided as soon as `agreement` people give the same answer and no other answer is as frequent.

    Args:
        answer_by_person: from `answers`.
        agreement: how many people must agree.

    Returns:
        The state, and the answer of a decided product: a prdtypecode or NO_CODE; None otherwise.
    """
    counts = Counter(answer_by_person.values()).most_common(2)
    if not counts or sum(count for _, count in counts) < agreement:
        return State.OPEN, None
    (answer, count), *others = counts
    if count >= agreement and all(other < count for _, other in others):
        return State.DECIDED, answer
    return (State.DISPUTED, None) if others else (State.OPEN, None)


def cohen_kappa(answers_by_product: Iterable[Mapping[str, int]]) -> tuple[float, int] | None:
    """Cohen's kappa of each two people on the products that both decided, averaged by the number of these products.

    Args:
        answers_by_product: `answers` of each product.

    Returns:
        kappa, from -1 to 1 (1: they always agree, 0: no more than by chance), and the number of pairs of answers; None
        if no two people decided the same product. Where both gave one and the same answer throughout, kappa, which is
        undefined there, counts as 1.
    """
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for answer_by_person in answers_by_product:
        for one, other in combinations(sorted(answer_by_person), 2):
            pairs.setdefault((one, other), []).append((answer_by_person[one], answer_by_person[other]))
    if not pairs:
        return None
    kappas = [_kappa(np.array(both)) for both in pairs.values()]
    sizes = [len(both) for both in pairs.values()]
    return float(np.average(kappas, weights=sizes)), sum(sizes)


def _kappa(both: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> float:
    if len(np.unique(both)) == 1:
        return 1.0
    return float(cohen_kappa_score(both[:, 0], both[:, 1]))
