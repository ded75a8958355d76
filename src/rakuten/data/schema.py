"""TODO."""

import re

import pandas as pd

# Rakuten publishes no names for the codes; the wording is ours.
LABELS: dict[int, str] = {
    10: "livres d'occasion",
    40: "jeux vidéo importés, accessoires",
    50: "accessoires de jeu vidéo",
    60: "consoles",
    1140: "figurines, produits dérivés",
    1160: "cartes à collectionner",
    1180: "jeux de figurines, wargames",
    1280: "jouets pour enfants",
    1281: "jeux de société",
    1300: "modélisme, drones",
    1301: "chaussettes bébé, petits jeux",
    1302: "loisirs de plein air",
    1320: "puériculture",
    1560: "meubles d'intérieur",
    1920: "linge de maison",
    1940: "épicerie",
    2060: "décoration",
    2220: "animalerie",
    2280: "journaux et revues",
    2403: "lots de livres et revues, mangas",
    2462: "lots de consoles et jeux",
    2522: "papeterie",
    2582: "mobilier de jardin",
    2583: "piscine et spa",
    2585: "outillage de jardin",
    2705: "livres neufs",
    2905: "jeux à télécharger",
}
INDEX = "index"  # unnamed in the challenge's files
X_COLUMNS = (INDEX, "designation", "description", "productid", "imageid")
Y_COLUMNS = (INDEX, "prdtypecode")

CHALLENGE_NAMES = {
    "X_train.csv": "X_train_update.csv",
    "Y_train.csv": "Y_train_CVw08PX.csv",
    "X_test.csv": "X_test_update.csv",
}


def label_of(code: int) -> str:
    """The code's name, or "" for a code outside the challenge's 27."""
    return LABELS.get(code, "")


def image_name(imageid: str | int, productid: str | int) -> str:
    return f"image_{imageid}_product_{productid}.jpg"


# The sample catalogue marks its rows by their ids alone, so that its scores are called
# synthetic wherever the rows end up. A real row fits by a chance of one in 10^9.
_PRIME = 999_999_937


def synthetic_imageid(productid: int) -> int:
    """The imageid that the sample catalogue gives a productid below 999,999,937 (one to one)."""
    return 1_000_000_000 + productid * 48_271 % _PRIME


def is_synthetic(frame: pd.DataFrame) -> bool:
    """Whether any row (columns productid, imageid) was written by the sample catalogue."""
    ids = frame[["productid", "imageid"]].apply(pd.to_numeric, errors="coerce").dropna().astype("int64")
    known = ids[ids["productid"].between(0, _PRIME - 1)]
    return bool((known["imageid"] == 1_000_000_000 + known["productid"] * 48_271 % _PRIME).any())


def is_synthetic_image(name: str) -> bool:
    """Whether a picture's name is one that the sample catalogue gives."""
    ids = re.fullmatch(r"image_([0-9]{1,18})_product_([0-9]{1,9})\.jpg", name)
    return ids is not None and int(ids[1]) == synthetic_imageid(int(ids[2]))


INTEGER_PATTERN = r"[0-9]{1,18}"


def normalise_id(text: str) -> str:
    return str(int(text)) if re.fullmatch(INTEGER_PATTERN, text) else text
