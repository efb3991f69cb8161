"""Base scores of CVSS 3.1 against the examples that its authors published."""

import pytest

from bitactor.validation.adversarial import cvss

# Vectors and scores as the authors of CVSS and the national database published them for well-known cases.
PUBLISHED = [
    ("AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4, "medium"),
    ("AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1, "low"),
    ("AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1, "medium"),
    ("AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 8.8, "high"),
    ("AV:L/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H", 7.8, "high"),
    ("AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5, "high"),
    ("AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, "critical"),
    ("AV:N/AC:L/PR:H/UI:N/S:C/C:H/I:H/A:H", 9.1, "critical"),
    ("AV:P/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0, "none"),
    ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N", 5.5, "medium"),
    ("AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0, "critical"),
]


@pytest.mark.parametrize(("vector", "score", "rating"), PUBLISHED)
def test_base_scores_are_those_that_were_published(vector, score, rating):
    assert cvss.score(vector) == score
    assert cvss.rating(score) == rating


@pytest.mark.parametrize(
    "vector", ["", "AV:N", "AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:Z", "AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"]
)
def test_a_vector_that_is_not_whole_is_refused(vector):
    with pytest.raises(ValueError, match="CVSS|missing"):
        cvss.score(vector)
