import pytest

from rakuten.serving.roles import Role, required_role


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/predict", Role.CLASSIFY),
        ("/metrics", Role.CLASSIFY),
        ("/review/queue", Role.REVIEW),
        ("/review/products/7/picture", Role.REVIEW),
        ("/review/decisions", Role.REVIEW),
        ("/review/anything-new", Role.REVIEW),
        ("/review/decisions.csv", Role.ADMINISTER),
        ("/review/products", Role.ADMINISTER),
        ("/review/products/", Role.ADMINISTER),
        ("/review/export", Role.ADMINISTER),
    ],
)
def test_each_path_needs_its_role(path: str, role: Role) -> None:
    assert required_role(path) == role
