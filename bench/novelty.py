"""How well scores tell products of unknown codes, by codes held out: `python -m bench.novelty --processed FOLDER`.

Some codes are held out as unknown; the models are trained on the others, fold by fold, and score the held-out fold
(known products) and all products of the codes held out (unknown ones). Repeated until every code was unknown once in
each repetition. Prints a table of candidates: AUROC, and the share of unknown products found at 1 % and 5 % false
alarms, as the mean over the draws. Texts of other domains and nonsense are scored too.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from bench.text_features import CountedTable
from rakuten.config import PARAMS, PROCESSED, Params, load_params
from rakuten.evaluation.folds import assign_folds
from rakuten.evaluation.novelty_flag import is_novel
from rakuten.features.encoders.factory import text_encoder
from rakuten.features.feature_set import TRAIN, FeatureBatch, FeatureSet
from rakuten.features.text_features import raw_text_features, texts_to_embed
from rakuten.models.fusion import fit_fusion, gating_context
from rakuten.models.linear import UNSEEN_CLASS_SCORE, Moments, fit_lda, fit_svm
from rakuten.models.none_class import fit_none_class
from rakuten.models.novelty import cross_fit_novelty, fit_novelty
from rakuten.models.training import ngram_blocks
from rakuten.types import IMAGE, NGRAMS, TEXT, BoolArray, FloatArray, IntArray

N_FOLDS, N_GROUPS = 3, 5  # folds of the known products; groups of codes that are unknown in turn
FALSE_ALARMS = (0.01, 0.05)
N_NEIGHBOURS = 5
N_NONE = (0, 10, 30, 100)  # products that no code fits
N_SUBSAMPLE = 500  # train rows that a small model would keep for the nearest neighbours

FOREIGN = {
    "services": [
        "Assurance habitation multirisque pour locataires", "Cours de piano à domicile pour débutants",
        "Appartement trois pièces à louer avec balcon", "Billet de train Paris Marseille aller simple",
        "Recherche cuisinier en contrat à durée indéterminée", "Vidange et révision de votre voiture au garage",
        "Abonnement annuel à la salle de sport", "Séjour d'une semaine à Majorque en pension complète",
        "Crédit immobilier à taux fixe sur vingt ans", "Coiffure et coloration sur rendez-vous",
        "Forfait mobile 50 Go sans engagement", "Déménagement entre particuliers, camion avec chauffeur",
        "Consultation chez un ostéopathe diplômé", "Garde d'enfants à la sortie de l'école",
        "Voiture d'occasion diesel 120 000 km première main", "Terrain constructible viabilisé de 800 m2",
        "Fuel domestique livré à domicile", "Bouquet de roses rouges livré en 24 heures",
        "Prothèse dentaire céramique sur mesure", "Pneus hiver 205 55 R16 montage compris",
    ],
    "other products": [
        "Poulet fermier entier label rouge 1,4 kg", "Perceuse à percussion 18 V avec deux batteries",
        "Parfum pour homme eau de toilette 100 ml", "Lave-linge hublot 8 kg classe A",
        "Soutien-gorge à armatures en dentelle noire", "Chaussures de course pour femme pointure 39",
        "Bague solitaire or blanc 18 carats diamant", "Ampoule LED E27 blanc chaud 60 W lot de 10",
        "Guitare acoustique folk table en épicéa", "Plaquettes de frein avant pour Clio",
        "Crème solaire visage indice 50", "Vin rouge de Bordeaux grand cru 2015",
        "Casque de moto intégral homologué taille L", "Papier toilette triple épaisseur 24 rouleaux",
        "Lunettes de vue monture acétate écaille", "Carreaux de faïence blanc brillant 20 x 20",
        "Tensiomètre électronique de bras", "Vélo électrique pliant 20 pouces",
        "Sac à main en cuir pleine fleur camel", "Aspirine 500 mg vingt comprimés",
    ],
    "software texts": [
        "Raises a value error if the array has fewer than two dimensions", "Merge pull request from develop",
        "def main(argv: Sequence[str] | None = None) -> int:", "segmentation fault (core dumped)",
        "SELECT id, name FROM users WHERE created_at > now()", "npm install --save-dev typescript",
        "the thread holds the lock until the queue is empty", "error: cannot find module or its declarations",
        "A copy of this license must be included in all distributions", "Unhandled exception in request handler",
        "git rebase --interactive HEAD~3", "connection refused by the remote host on port 443",
        "for (int i = 0; i < n; i++) sum += values[i];", "This function is deprecated since version two",
        "kubectl get pods --all-namespaces", "null pointer dereference in the scheduler",
    ],
}  # fmt: skip


class Rows(NamedTuple):
    """Everything that is computed once, of all products and the foreign texts after them."""

    table: pd.DataFrame
    embeddings: Mapping[str, FloatArray]  # view -> rows x width, NaN where it is missing
    counted: CountedTable
    context: FloatArray
    y: IntArray  # class column; -1: a foreign text
    fold: IntArray
    kind: Sequence[str]  # of each foreign text


class Scored(NamedTuple):
    """The scores of the models of a draw, out of fold."""

    known: IntArray  # row numbers
    y: IntArray  # their class columns among the known codes
    fold: IntArray
    scores: Mapping[str, FloatArray]  # view -> known x classes
    others: IntArray  # rows of the codes held out, and foreign texts
    other_scores: Sequence[Mapping[str, FloatArray]]  # for each fold
    extra: Mapping[str, FloatArray]  # other candidates, by name: of known rows
    other_extra: Sequence[Mapping[str, FloatArray]]


def read_rows(features: FeatureSet, params: Params) -> Rows:
    """The train rows, and the foreign texts."""
    batch, codes = features.take(np.arange(features.n_rows)), features.y()
    rng = np.random.default_rng(params.seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    nonsense = ["".join(rng.choice(letters, rng.integers(15, 80))).strip() for _ in range(40)]
    foreign = {**FOREIGN, "random letters": nonsense}
    texts = [(text, "") for each in foreign.values() for text in each]
    table = raw_text_features(texts, [0] * len(texts), params.features)
    encoder = text_encoder(params.features.text_encoder)
    embedded = np.stack([encoder.encode(text) for text in texts_to_embed(table)]).astype(np.float32)
    both = pd.concat([batch.table, table], ignore_index=True)
    embeddings = {TEXT: np.vstack([_array(batch, TEXT), embedded])}
    images = _array(batch, IMAGE)
    embeddings[IMAGE] = np.vstack([images, np.full((len(texts), images.shape[1]), np.nan, np.float32)])
    y = np.concatenate([np.unique(codes, return_inverse=True)[1], np.full(len(texts), -1)])
    fold = assign_folds(features.metadata, codes, N_FOLDS, params.seed)
    kind = [name for name, each in foreign.items() for _ in each]
    return Rows(
        both, embeddings, CountedTable(both, ngram_blocks(params)), gating_context(both), y,
        np.concatenate([fold, np.full(len(texts), -1)]), kind,
    )  # fmt: skip


def _array(batch: FeatureBatch, view: str) -> FloatArray:
    array = batch.embeddings(view)
    assert array is not None
    return np.asarray(array, dtype=np.float32)


def score_draw(rows: Rows, unknown: IntArray, params: Params) -> Scored:
    """Train without the unknown codes, fold by fold, and score all other rows."""
    is_known = (rows.y >= 0) & ~np.isin(rows.y, unknown)
    known, others = np.flatnonzero(is_known), np.flatnonzero(~is_known)
    y = np.unique(rows.y[known], return_inverse=True)[1]
    n_classes = int(y.max()) + 1
    scores = {view: np.full((len(known), n_classes), np.nan) for view in (NGRAMS, TEXT, IMAGE)}
    other_scores, other_extra = [], []
    extra: dict[str, FloatArray] = {}
    for number in range(N_FOLDS):
        held = rows.fold[known] == number
        train, test = known[~held], known[held]
        both = np.concatenate([test, others])
        fitted = {NGRAMS: _svm_scores(rows, train, y[~held], both, n_classes, params)}
        found = {"words known": -_known_share(rows, train, both)}
        for view in (TEXT, IMAGE):
            fitted[view], more = _embedding_scores(rows.embeddings[view], train, y[~held], both, n_classes)
            found |= {f"{view}: {name}": value for name, value in more.items()}
        for view, values in fitted.items():
            scores[view][held] = values[: len(test)]
        for name, values in found.items():
            extra.setdefault(name, np.full(len(known), np.nan))[held] = values[: len(test)]
        other_scores.append({view: values[len(test) :] for view, values in fitted.items()})
        other_extra.append({name: values[len(test) :] for name, values in found.items()})
    return Scored(known, y, rows.fold[known], scores, others, other_scores, extra, other_extra)


def _svm_scores(rows: Rows, train: IntArray, y: IntArray, test: IntArray, n_classes: int, params: Params) -> FloatArray:
    train_features, test_features = rows.counted.tfidf(train, train, test)
    svm = fit_svm(train_features, y, params.train.svm_c, params.seed)
    scores = np.full((len(test), n_classes), UNSEEN_CLASS_SCORE)
    scores[:, svm.classes] = svm.decision_function(test_features)
    return scores


def _known_share(rows: Rows, train: IntArray, test: IntArray) -> FloatArray:
    """Share of a product's title words that some train row has too."""
    matrix = rows.counted.counts[0][0]
    seen = np.bincount(matrix[train].indices, minlength=matrix.shape[1]) > 0
    held = matrix[test].copy()
    held.data = np.ones_like(held.data, dtype=float)
    total = np.maximum(np.asarray(held.sum(axis=1)).ravel(), 1)
    share: FloatArray = np.asarray(held @ seen.astype(float)).ravel() / total
    return share


def _embedding_scores(
    embeddings: FloatArray, train: IntArray, y: IntArray, test: IntArray, n_classes: int
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Scores of discriminant analysis, and candidates of distance: the higher, the stranger."""
    present, has = ~np.isnan(embeddings[train, 0]), ~np.isnan(embeddings[test, 0])
    train, y = train[present], y[present]
    moments = Moments.from_rows(embeddings, train, y, n_classes)
    lda = fit_lda(moments, np.arange(n_classes))
    scores = np.full((len(test), n_classes), np.nan)
    x, seen = embeddings[test[has]], embeddings[train]
    scores[has] = lda.decision_function(x)
    extra = {}
    counts = np.maximum(moments.rows, 1)[:, None]
    means = moments.sums / counts
    residual = seen - means[y]
    within = residual.T @ residual / len(seen)
    scale = np.trace(within) / len(within)
    factor = cho_factor(within + 0.1 * scale * np.eye(len(within)))
    known_means = means[moments.rows > 0]
    white = cho_solve(factor, x.T).T
    square = (x * white).sum(axis=1)
    cross = white @ known_means.T
    norm = (known_means.T * cho_solve(factor, known_means.T)).sum(axis=0)
    extra["Mahalanobis, nearest class"] = (square[:, None] - 2 * cross + norm).min(axis=1)
    centre = seen.mean(axis=0)
    total = np.cov(seen.T) + 0.1 * scale * np.eye(len(within))
    gap = x - centre
    extra["Mahalanobis, all"] = (gap * cho_solve(cho_factor(total), gap.T).T).sum(axis=1)
    extra["relative Mahalanobis"] = extra["Mahalanobis, nearest class"] - extra["Mahalanobis, all"]
    unit, unit_seen = _unit(x - centre), _unit(seen - centre)
    extra["cosine, nearest centroid"] = -(unit @ _unit(known_means - centre).T).max(axis=1)
    similarity = unit @ unit_seen.T
    extra[f"{N_NEIGHBOURS} nearest neighbours"] = -np.sort(similarity, axis=1)[:, -N_NEIGHBOURS:].mean(axis=1)
    kept = np.random.default_rng(0).permutation(len(seen))[:N_SUBSAMPLE]
    extra[f"nearest of {N_SUBSAMPLE}"] = -similarity[:, kept].max(axis=1)
    full = {}
    for name, values in extra.items():
        full[name] = np.full(len(test), np.nan)
        full[name][has] = values
    return scores, full


def _unit(x: FloatArray) -> FloatArray:
    unit: FloatArray = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return unit


def false_alarm_table(rows: Rows, draws: Sequence[Scored]) -> pd.DataFrame:
    """For each candidate the mean over the draws: AUROC, and the share that is found at each rate of false alarms."""
    results: dict[str, list[dict[str, float]]] = {}
    for draw in draws:
        for name, (known, others) in _candidates(rows, draw).items():
            results.setdefault(name, []).append(_detection(rows, draw, known, others))
    table = pd.DataFrame({name: pd.DataFrame(found).mean() for name, found in results.items()}).T
    error = pd.DataFrame({name: pd.DataFrame(found)["AUROC"].sem() for name, found in results.items()}, index=[0]).T
    return table.assign(AUROC_error=error[0]).sort_values("AUROC", ascending=False)


def fuse_draw(rows: Rows, draw: Scored) -> tuple[FloatArray, list[FloatArray]]:
    """The fused scores of the known products, out of fold, and of the others by each fold's models."""
    context, other_context = rows.context[draw.known], rows.context[draw.others]
    classes = np.arange(int(draw.y.max()) + 1)
    fused, other_fused = np.zeros((len(draw.known), len(classes))), []
    for number, other_scores in enumerate(draw.other_scores):
        train, held = draw.fold != number, draw.fold == number
        fusion = fit_fusion({v: x[train] for v, x in draw.scores.items()}, context[train], draw.y[train], classes)
        fused[held] = fusion.decision_function({v: x[held] for v, x in draw.scores.items()}, context[held])
        other_fused.append(fusion.decision_function(other_scores, other_context))
    return fused, other_fused


def _candidates(rows: Rows, draw: Scored) -> dict[str, tuple[FloatArray, Sequence[FloatArray]]]:
    """Each candidate's values of the known products, and of the others by each fold's models: higher is stranger."""
    context, other_context = rows.context[draw.known], rows.context[draw.others]
    fused, other_fused = fuse_draw(rows, draw)
    simple: Mapping[str, Callable[[Mapping[str, FloatArray], FloatArray], FloatArray]] = {
        "1 - confidence": lambda scores, fused: logsumexp(fused, axis=1) - fused.max(axis=1),
        "energy of the fused scores": lambda scores, fused: -logsumexp(fused, axis=1),
        "highest fused score": lambda scores, fused: -fused.max(axis=1),
        "words: highest score": lambda scores, fused: -scores[NGRAMS].max(axis=1),
        "meaning: highest score": lambda scores, fused: -scores[TEXT].max(axis=1),
    }
    found: dict[str, tuple[FloatArray, Sequence[FloatArray]]] = {
        name: (score(draw.scores, fused), [score(*each) for each in zip(draw.other_scores, other_fused, strict=True)])
        for name, score in simple.items()
    }
    chosen = fit_novelty(fused.max(axis=1), context)
    found["highest fused score, given the context"] = (
        chosen.unusualness(fused.max(axis=1), context),
        [chosen.unusualness(each.max(axis=1), other_context) for each in other_fused],
    )
    return found | {name: (draw.extra[name], [each[name] for each in draw.other_extra]) for name in draw.extra}


def _detection(rows: Rows, draw: Scored, known: FloatArray, others: Sequence[FloatArray]) -> dict[str, float]:
    is_foreign = rows.y[draw.others] < 0
    kinds = np.array(rows.kind)
    found: dict[str, list[float]] = {}
    for number, values in enumerate(others):
        held = known[draw.fold == number]
        held, unknown = held[~np.isnan(held)], values[~is_foreign]
        unknown = unknown[~np.isnan(unknown)]
        truth = np.r_[np.zeros(len(held)), np.ones(len(unknown))]
        found.setdefault("AUROC", []).append(roc_auc_score(truth, np.r_[held, unknown]))
        for rate in FALSE_ALARMS:
            limit = np.nanquantile(known, 1 - rate)
            found.setdefault(f"unknown codes at {rate:.0%}", []).append(float((unknown > limit).mean()))
            for kind in dict.fromkeys(rows.kind):
                share = float((values[is_foreign][kinds == kind] > limit).mean())
                found.setdefault(f"{kind} at {rate:.0%}", []).append(share)
    return {name: float(np.mean(values)) for name, values in found.items()}


def none_table(rows: Rows, draws: Sequence[Scored]) -> pd.DataFrame:
    """By the number of products that no code fits: the share of products that are flagged, as the mean over draws."""
    found: dict[int, list[dict[str, float]]] = {}
    for seed, draw in enumerate(draws):
        fused, other_fused = fuse_draw(rows, draw)
        y = rows.y[draw.others]
        unknown = np.random.default_rng(seed).permutation(np.unique(y[y >= 0]))
        is_same = np.isin(y, unknown[: (len(unknown) + 1) // 2])
        same = np.random.default_rng(seed).permutation(np.flatnonzero(is_same))
        for n_none in N_NONE:
            if len(same) > 1.1 * n_none:
                groups = {"same kinds": same[n_none:], "new kinds": np.flatnonzero((y >= 0) & ~is_same)}
                groups["foreign texts"] = np.flatnonzero(y < 0)
                flagged = _flagged(rows, draw, draw.others[same[:n_none]], fused, other_fused)
                shares = {f"false alarms at {rate:.0%}": known.mean() for rate, (known, _) in flagged.items()}
                for rate, (_, others) in flagged.items():
                    shares |= {f"{name} at {rate:.0%}": others[:, group].mean() for name, group in groups.items()}
                found.setdefault(n_none, []).append(shares)
    return pd.DataFrame({n_none: pd.DataFrame(shares).mean() for n_none, shares in found.items()}).T


def _flagged(
    rows: Rows, draw: Scored, none: IntArray, fused: FloatArray, other_fused: Sequence[FloatArray]
) -> dict[float, tuple[BoolArray, BoolArray]]:
    """By the rate of false alarms: which known products are flagged, and which others by each fold's models."""
    embeddings, context = rows.embeddings[TEXT], rows.context[draw.known]
    known_embeddings = embeddings[draw.known]
    present = ~np.isnan(known_embeddings[:, 0])
    folds = [np.flatnonzero(present & (draw.fold == number)) for number in range(N_FOLDS)]
    n_classes = int(draw.y.max()) + 1
    moments = [Moments.from_rows(known_embeddings, fold, draw.y[fold], n_classes) for fold in folds]
    none_class = fit_none_class(
        known_embeddings, present, draw.fold, moments, FeatureBatch(rows.table.iloc[none], embeddings[none])
    )
    novelty = cross_fit_novelty(fused.max(axis=1), context, draw.fold, none_class)
    fitted = fit_novelty(fused.max(axis=1), context, none_class)
    none_score = fitted.none_score(embeddings[draw.others])
    others = np.array([fitted.novelty(each.max(axis=1), rows.context[draw.others], none_score) for each in other_fused])
    return {rate: (is_novel(novelty, rate), is_novel(others, rate)) for rate in FALSE_ALARMS}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.novelty", description=__doc__)
    parser.add_argument("--processed", type=Path, default=PROCESSED)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args(argv)
    params = load_params(PARAMS)
    with threadpool_limits(1):
        rows = read_rows(FeatureSet.open(arguments.processed, TRAIN), params)
        n_codes = int(rows.y.max()) + 1
        draws = [
            score_draw(rows, unknown, params)
            for repeat in range(arguments.repeats)
            for unknown in np.array_split(np.random.default_rng(repeat).permutation(n_codes), N_GROUPS)
        ]
        sys.stdout.write(false_alarm_table(rows, draws).round(3).to_string() + "\n\n")
        sys.stdout.write(none_table(rows, draws).round(3).to_string() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
