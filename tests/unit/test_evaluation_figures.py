"""Distances and diversity against what their definitions say of simple cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from generation.evaluation import distances, diversity
from generation.evaluation.inception import SIDE_PX, enlarge
from generation.evaluation.report import Figure, Report


def _features(count: int, shift: float = 0.0, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 24, generator=generator, dtype=torch.float64) * scale + shift


def test_the_frechet_distance_equals_its_definition_with_covariances() -> None:
    first, second = _features(300), _features(200, shift=0.3, scale=1.4, seed=1)
    covariances = [torch.cov(features.T) for features in (first, second)]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    means = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    expected = means + covariances[0].trace() + covariances[1].trace() - 2 * root
    assert distances.frechet(first, second) == pytest.approx(float(expected), rel=1e-6)
    assert distances.frechet(first, first) == pytest.approx(0.0, abs=1e-8)


def test_the_frechet_distance_works_with_fewer_pictures_than_features() -> None:
    first, second = _features(10), _features(12, seed=1)
    covariances = [torch.cov(features.T) for features in (first, second)]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    expected = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    expected = expected + covariances[0].trace() + covariances[1].trace() - 2 * root
    assert distances.frechet(first, second) == pytest.approx(float(expected), rel=1e-4)


def test_the_kernel_distance_has_no_bias_and_grows_with_the_difference() -> None:
    same = [distances.kernel(_features(60, seed=seed), _features(60, seed=seed + 100)) for seed in range(40)]
    assert abs(sum(same) / len(same)) < 0.01
    near, far = (distances.kernel(_features(60), _features(60, shift=shift, seed=1)) for shift in (0.2, 1.0))
    assert 0 < near < far


def test_the_kernel_distance_averages_subsets_of_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "KID_SUBSET_PICTURES", 50)
    first, second = _features(400), _features(300, shift=0.5, seed=1)
    whole = distances._squared_discrepancy(first[:300], second)
    assert distances.kernel(first, second) == pytest.approx(float(whole), rel=0.3)
    assert distances.kernel(first, second) == distances.kernel(first, second)


def test_ms_ssim_is_one_for_equal_pictures_and_falls_with_the_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1, (64, 64))
    noise = torch.randn(pictures.shape, generator=generator)
    torch.testing.assert_close(diversity.ms_ssim(pictures, pictures), torch.ones(4))
    little, much = diversity.ms_ssim(pictures, pictures + 0.1 * noise), diversity.ms_ssim(pictures, pictures + noise)
    assert (little < 1).all()
    assert (little > much).all()
    assert (diversity.ms_ssim(pictures, -pictures) < 0.2).all()


def test_pictures_of_one_caption_that_are_all_the_same_have_no_diversity() -> None:
    picture = torch.rand(2, 1, 3, 64, 64).expand(2, 3, 3, 64, 64) * 2 - 1
    assert diversity.similarity_within(picture) == pytest.approx(1.0)
    assert diversity.similarity_within(torch.rand(2, 3, 3, 64, 64) * 2 - 1) < 0.5


def test_the_inception_score_counts_what_a_classifier_is_sure_of() -> None:
    assert diversity.inception_score(torch.eye(5)) == pytest.approx(5.0)
    assert diversity.inception_score(torch.full((7, 5), 0.2)) == pytest.approx(1.0)
    assert diversity.inception_score(torch.eye(5)[[2, 2, 2]]) == pytest.approx(1.0), "sure, but always of the same"


def test_enlarging_puts_the_first_corner_where_it_was() -> None:
    picture = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    large = enlarge(picture)
    assert large.shape == (1, 3, SIDE_PX, SIDE_PX)
    assert float(large[0, 0, 0, 0]) == 0.0
    assert float(large[0, 0, -1, -1]) == pytest.approx(15.0, abs=1e-3)
    assert float(large[0, 0, 0, SIDE_PX // 2]) == pytest.approx(4 * (SIDE_PX // 2) / SIDE_PX, abs=1e-3)


def test_a_report_is_json_and_a_table(tmp_path: Path) -> None:
    report = Report("palaver evaluate image", "16 steps", 7, (Figure("FID", "drawn", 12.5, "lower is better"),))
    report.write(tmp_path / "evaluation.json")
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert (stored["step"], stored["figures"][0]["value"]) == (7, 12.5)
    assert "12.500" in report.table()
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
