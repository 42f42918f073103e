import twopm_flower.datasets
import twopm_flower.models


def test_every_exported_name_exists_once():
    for package in (twopm_flower.datasets, twopm_flower.models):
        names = package.__all__
        assert len(set(names)) == len(names)
        assert all(hasattr(package, name) for name in names)
