"""digits, parquet: and folder: give the right images with the right labels, or name what is wrong."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from amsc.data import ImageData, Unlabelled, open_data, read_digits, read_folder, read_parquet, spread_batches
from amsc.data.splits import some_of_each
from amsc.errors import DataError


def raw(data: ImageData, split: str) -> list[tuple[int, int]]:
    """(colour, label) of each example."""
    part = data.splits[split]
    colours: list[int] = part.images[:, 0, 0, 0].tolist()
    assert part.labels is not None
    return list(zip(colours, part.labels.tolist(), strict=True))


def write(file: Path, images: list[Any], labels: list[Any], image: str = "img", label: str = "label") -> None:
    parquet.write_table(pyarrow.table({image: images, label: labels}), file)


def rows(pictures: Any, values: range) -> list[dict[str, Any]]:
    return [{"bytes": pictures.png(v), "path": f"{v}.png"} for v in values]


@pytest.fixture
def hub(tmp_path: Path, pictures: Any) -> Path:
    """40 training and 10 test images; image v has colour v and label v % 4."""
    write(tmp_path / "train.parquet", rows(pictures, range(40)), [v % 4 for v in range(40)])
    write(tmp_path / "test.parquet", rows(pictures, range(50, 60)), [v % 4 for v in range(50, 60)])
    return tmp_path


class TestDigits:
    def test_splits_are_disjoint_stratified_and_complete(self) -> None:
        data = read_digits(seed=0, batch_size=64)
        assert [data.num_examples(s) for s in ("train", "validation", "test")] == [1078, 359, 360]
        labels = [part.labels for part in data.splits.values() if part.labels is not None]
        shares = [torch.bincount(each) / len(each) for each in labels]
        assert float((shares[0] - shares[1]).abs().max()) < 0.01
        every = torch.cat([part.images for part in data.splits.values()]).flatten(1)
        # the 1797 digits of the package are all different
        assert len(torch.unique(every, dim=0)) == 1797
        assert data.example_inputs().shape == (1, 1, 8, 8)

    def test_training_images_are_normalised_over_the_whole_grey_range(self) -> None:
        data = read_digits(seed=0, batch_size=64)
        images = torch.cat([x for x, _ in data.batches("train")])
        assert float(images.mean()) == pytest.approx(0, abs=1e-5)
        assert float(images.std()) == pytest.approx(1, abs=1e-3)
        assert [int(v) for v in data.splits["train"].images.aminmax()] == [0, 255]

    def test_seed_decides_the_splits(self) -> None:
        one, same, other = (read_digits(seed=s, batch_size=64).splits["test"].images for s in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


class TestParquet:
    def test_images_meet_their_labels(self, hub: Path) -> None:
        data = read_parquet(hub, seed=0, batch_size=8)
        assert data.num_classes == 4
        assert raw(data, "test") == [(v, v % 4) for v in range(50, 60)]
        train, validation = raw(data, "train"), raw(data, "validation")
        assert (len(train), len(validation)) == (36, 4)
        assert sorted(train + validation) == [(v, v % 4) for v in range(40)]
        assert data.example_inputs(3).shape == (3, 3, 8, 8)
        assert (data.padding, data.flip, data.mean) == (1, "random", (0.485, 0.456, 0.406))

    def test_pixels_stay_in_their_place(self, hub: Path, pictures: Any) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        write(hub / "test.parquet", [{"bytes": pictures.encode(pixels), "path": ""}], [0])
        image = read_parquet(hub, seed=0, batch_size=8).splits["test"].images[0]
        assert np.array_equal(image.numpy(), np.moveaxis(pixels, 2, 0))

    def test_limit_caps_training_only_and_keeps_validation(self, hub: Path) -> None:
        whole, short = (read_parquet(hub, seed=0, batch_size=8, limit=n) for n in (None, 12))
        assert len(raw(short, "train")) == 12
        assert set(raw(short, "train")) < set(raw(whole, "train"))
        assert {label for _, label in raw(short, "train")} == {0, 1, 2, 3}
        assert raw(short, "validation") == raw(whole, "validation")

    def test_seed_decides_the_validation_split(self, hub: Path) -> None:
        zero, one = (raw(read_parquet(hub, seed=s, batch_size=8), "validation") for s in (0, 1))
        assert zero != one

    def test_single_file_is_split_in_three(self, hub: Path) -> None:
        data = read_parquet(hub / "train.parquet", seed=0, batch_size=8)
        parts = [raw(data, s) for s in ("train", "validation", "test")]
        assert [len(p) for p in parts] == [24, 8, 8]
        assert sorted(pair for part in parts for pair in part) == [(v, v % 4) for v in range(40)]

    def test_shards_in_a_folder_below_other_column_names_and_own_validation(
        self, tmp_path: Path, pictures: Any
    ) -> None:
        (tmp_path / "data").mkdir()
        for name, values in (
            ("train-00000-of-00002", range(10)),
            ("train-00001-of-00002", range(10, 20)),
            ("validation-00000", range(20, 24)),
            ("test-00000", range(30, 34)),
        ):
            images = [pictures.png(v, mode="L") for v in values]
            write(tmp_path / "data" / f"{name}.parquet", images, [v % 2 for v in values], "image", "fine_label")
        data = read_parquet(tmp_path, seed=0, batch_size=8)
        assert [v for v, _ in raw(data, "train")] == list(range(20))
        assert raw(data, "validation") == [(v, v % 2) for v in range(20, 24)]

    @pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing of use"])
    def test_corrupt_file(self, hub: Path, content: bytes) -> None:
        (hub / "train.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*train.parquet as Parquet"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_cut_off_file(self, hub: Path) -> None:
        whole = (hub / "test.parquet").read_bytes()
        (hub / "test.parquet").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"cannot read .*test.parquet"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_missing_path_and_missing_split(self, hub: Path) -> None:
        with pytest.raises(DataError, match="is not there"):
            read_parquet(hub / "absent", seed=0, batch_size=8)
        (hub / "test.parquet").unlink()
        with pytest.raises(DataError, match=r"expected test\*.parquet in .*, which holds train.parquet"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_missing_column(self, hub: Path, pictures: Any) -> None:
        write(hub / "train.parquet", rows(pictures, range(12)), [v % 2 for v in range(12)], "picture")
        with pytest.raises(DataError, match=r"has no column .*; its columns are picture, label"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_without_a_label_column_there_are_images_alone(self, hub: Path, pictures: Any) -> None:
        write(hub / "train.parquet", rows(pictures, range(20)), [0] * 20, label="y")
        write(hub / "test.parquet", rows(pictures, range(30, 35)), [0] * 5, label="y")
        data = read_parquet(hub, seed=0, batch_size=8, limit=12)
        assert data.num_classes is None
        assert [data.num_examples(split) for split in ("train", "validation", "test")] == [12, 2, 5]
        assert [target for _, target in data.batches("test", seed=1)] == [Unlabelled(5)]
        assert [target for _, target in data.batches("test")] == [Unlabelled(5)]

    def test_a_single_file_without_labels_is_split_in_three(self, hub: Path, pictures: Any) -> None:
        write(hub / "all.parquet", rows(pictures, range(20)), [0] * 20, label="y")
        data = read_parquet(hub / "all.parquet", seed=0, batch_size=8)
        assert [data.num_examples(split) for split in ("train", "validation", "test")] == [12, 4, 4]

    def test_labels_in_some_files_alone(self, hub: Path, pictures: Any) -> None:
        write(hub / "train-2.parquet", rows(pictures, range(12)), [0] * 12, label="y")
        with pytest.raises(DataError, match=r"train.parquet has labels, .*train-2.parquet has none"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_labels_in_some_splits_alone(self, hub: Path, pictures: Any) -> None:
        write(hub / "test.parquet", rows(pictures, range(12)), [0] * 12, label="y")
        with pytest.raises(DataError, match=r"in all splits, .* or in none; test has none"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_corrupt_image_is_named(self, hub: Path, pictures: Any) -> None:
        images = rows(pictures, range(12))
        images[7]["bytes"] = images[7]["bytes"][:40]
        write(hub / "train.parquet", images, [v % 4 for v in range(12)])
        with pytest.raises(DataError, match=r"cannot decode row 7 of .*train.parquet"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_image_without_bytes_is_named(self, hub: Path, pictures: Any) -> None:
        images = rows(pictures, range(12))
        images[3]["bytes"] = None
        write(hub / "train.parquet", images, [v % 4 for v in range(12)])
        with pytest.raises(DataError, match=r"row 3 of .*expected encoded image bytes, found NoneType"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_image_of_another_size_is_named(self, hub: Path, pictures: Any) -> None:
        images = rows(pictures, range(12))
        images[5]["bytes"] = pictures.png(5, width=9)
        write(hub / "test.parquet", images, [v % 4 for v in range(12)])
        with pytest.raises(DataError, match=r"row 0 of .* is 8x8, but row 5 of .*test.parquet is 9x8"):
            read_parquet(hub, seed=0, batch_size=8)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1, 2, 9] * 5, r"labels of 4 classes must be 0\.\.3, but there is 9"),
            ([-1, 0] * 10, r"labels of 2 classes must be 0\.\.1, but there is -1"),
            ([0] * 20, "are of class 0; at least two"),
            ([0, 1] * 4, "has 8 training examples; at least 10"),
            (["cat", "dog"] * 10, "expected integer labels, row 0 holds 'cat'"),
            ([0, None] * 10, "expected integer labels, row 1 holds None"),
        ],
    )
    def test_labels(self, hub: Path, pictures: Any, labels: list[Any], message: str) -> None:
        write(hub / "train.parquet", rows(pictures, range(len(labels))), labels)
        with pytest.raises(DataError, match=message):
            read_parquet(hub, seed=0, batch_size=8)

    def test_test_labels_unknown_to_train(self, hub: Path, pictures: Any) -> None:
        write(hub / "test.parquet", rows(pictures, range(5)), [0, 1, 2, 3, 4])
        with pytest.raises(DataError, match="those of test go from 0 to 4"):
            read_parquet(hub, seed=0, batch_size=8)

    def test_no_rows(self, hub: Path) -> None:
        table = parquet.read_table(hub / "test.parquet").slice(0, 0)
        parquet.write_table(table, hub / "test.parquet")
        with pytest.raises(DataError, match=r"test.parquet has no rows"):
            read_parquet(hub, seed=0, batch_size=8)

    @pytest.mark.parametrize(("package", "named"), [("pyarrow", "pyarrow"), ("PIL", "pillow")])
    def test_missing_package(self, hub: Path, monkeypatch: pytest.MonkeyPatch, package: str, named: str) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=rf"package {named}; install it with: pip install 'amsc\[parquet\]'"):
            read_parquet(hub, seed=0, batch_size=8)


class TestFolder:
    @pytest.fixture
    def tree(self, tmp_path: Path, pictures: Any) -> Path:
        """Classes "ant" and "bee": even and odd colours."""
        for split, values in (("train", range(20)), ("val", range(30, 34))):
            for value in values:
                place = tmp_path / split / ("ant", "bee")[value % 2]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{value:03}.png").write_bytes(pictures.png(value))
        return tmp_path

    def test_images_meet_their_classes(self, tree: Path) -> None:
        (tree / "train" / "ant" / "notes.txt").write_text("not an image")
        data = read_folder(tree, seed=0, batch_size=8)
        assert sorted(raw(data, "train") + raw(data, "validation")) == [(v, v % 2) for v in range(20)]
        assert sorted(raw(data, "test")) == [(v, v % 2) for v in range(30, 34)]

    def test_val_beside_test_is_the_validation_split(self, tree: Path, pictures: Any) -> None:
        (tree / "test" / "bee").mkdir(parents=True)
        (tree / "test" / "bee" / "x.png").write_bytes(pictures.png(77))
        data = read_folder(tree, seed=0, batch_size=8)
        assert raw(data, "test") == [(77, 1)]
        assert sorted(raw(data, "validation")) == [(v, v % 2) for v in range(30, 34)]

    def test_missing_folders(self, tree: Path) -> None:
        with pytest.raises(DataError, match="is not there"):
            read_folder(tree / "absent", seed=0, batch_size=8)
        with pytest.raises(DataError, match=r"expected folders train and test .* holds ant, bee"):
            read_folder(tree / "train", seed=0, batch_size=8)

    def test_no_classes(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        (tmp_path / "test").mkdir()
        with pytest.raises(DataError, match="no class folders"):
            read_folder(tmp_path, seed=0, batch_size=8)

    def test_without_classes_there_are_images_alone(self, tmp_path: Path, pictures: Any) -> None:
        for split, values in (("train", range(20)), ("val", range(30, 34))):
            (tmp_path / split).mkdir()
            for value in values:
                (tmp_path / split / f"{value:03}.png").write_bytes(pictures.png(value))
        data = read_folder(tmp_path, seed=0, batch_size=8)
        assert data.num_classes is None
        assert [data.num_examples(split) for split in ("train", "validation", "test")] == [18, 2, 4]
        assert [target for _, target in data.batches("test")] == [Unlabelled(4)]
        for file in (tmp_path / "val").iterdir():
            file.unlink()
        with pytest.raises(DataError, match=r"no images in .*val; train has no class folders"):
            read_folder(tmp_path, seed=0, batch_size=8)

    def test_images_in_the_folder_itself_are_split_in_three(self, tmp_path: Path, pictures: Any) -> None:
        for value in range(20):
            (tmp_path / f"{value:03}.png").write_bytes(pictures.png(value))
        data = read_folder(tmp_path, seed=0, batch_size=8)
        assert [data.num_examples(split) for split in ("train", "validation", "test")] == [12, 4, 4]
        assert data.example_inputs(2).shape == (2, 3, 8, 8)

    def test_class_unknown_to_train(self, tree: Path) -> None:
        (tree / "val" / "cow").mkdir()
        with pytest.raises(DataError, match="class 'cow'"):
            read_folder(tree, seed=0, batch_size=8)

    def test_no_images(self, tree: Path) -> None:
        for file in (tree / "val").rglob("*.png"):
            file.unlink()
        with pytest.raises(DataError, match=r"no images in the class folders of .*val"):
            read_folder(tree, seed=0, batch_size=8)

    def test_first_image_of_another_size_is_named(self, tree: Path, pictures: Any) -> None:
        (tree / "val" / "bee" / "033.png").write_bytes(pictures.png(1, height=5))
        with pytest.raises(DataError, match=r"030.png is 8x8, but .*033.png is 8x5"):
            read_folder(tree, seed=0, batch_size=8)

    def test_corrupt_image_is_named(self, tree: Path) -> None:
        (tree / "val" / "bee" / "033.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"cannot decode .*033.png"):
            read_folder(tree, seed=0, batch_size=8)


class TestOpenData:
    def test_names(self, hub: Path) -> None:
        assert open_data("digits", batch_size=32).name == "digits"
        data = open_data(f"parquet:{hub}", seed=1, batch_size=8, limit=12)
        assert (data.num_classes, data.num_examples("train"), data.num_batches("train")) == (4, 12, 2)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("digit", "did you mean digits"),
            ("parquet", "did you mean parquet|needs a path"),
            ("folder:", "needs a path, as in folder:PATH"),
            ("zzz", "expected digits, parquet:PATH"),
            ("os:getcwd", "returned str, expected data with batches"),
            ("no_such_module:f", "cannot import 'no_such_module'"),
        ],
    )
    def test_names_that_are_none(self, name: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            open_data(name)

    @pytest.mark.parametrize("options", [{"limit": 0}, {"batch_size": 0}])
    def test_numbers_below_one(self, options: dict[str, int]) -> None:
        with pytest.raises(DataError, match="at least 1"):
            open_data("digits", **options)  # type: ignore[arg-type]

    def test_users_function(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "user_data.py").write_text(
            "import amsc.data\ndef build():\n    return amsc.data.read_digits(seed=3, batch_size=9)\n"
        )
        data = open_data("user_data:build", batch_size=64)
        assert data.num_batches("train") == -(-1078 // 9)


def test_digits_limit() -> None:
    short = read_digits(seed=0, batch_size=8, limit=50)
    assert torch.bincount(short.splits["train"].labels).tolist() == pytest.approx([5] * 10, abs=1)
    assert short.num_examples("test") == 360


@pytest.mark.parametrize("count", [3, 4, 20, 90])
def test_some_of_each_class_in_proportion(count: int) -> None:
    labels = np.repeat([0, 1, 2], [60, 37, 3])
    rows = some_of_each(labels, count, seed=0)
    found = np.bincount(labels[rows], minlength=3)
    assert found.sum() == len(set(rows.tolist())) == count
    assert found.min() >= 1
    assert found == pytest.approx(count * np.array([0.6, 0.37, 0.03]), abs=1.5)
    assert set(rows) < set(some_of_each(labels, count + 1, seed=0))
    assert set(rows) != set(some_of_each(labels, count, seed=1))
    assert count < 20 or (np.diff(labels[rows]) < 0).any()


def test_some_of_each_takes_all_there_are() -> None:
    assert sorted(some_of_each(np.array([1, 0, 1]), 5, seed=0)) == [0, 1, 2]


class TestSortedClasses:
    """Readers list examples class by class, and a limit or a few batches must not know the first class alone."""

    @pytest.fixture
    def tree(self, tmp_path: Path, pictures: Any) -> Path:
        for split, count in (("train", 20), ("val", 6), ("test", 6)):
            for label in "abc":
                (tmp_path / split / label).mkdir(parents=True)
                for value in range(count):
                    (tmp_path / split / label / f"{value:03}.png").write_bytes(pictures.png(value))
        return tmp_path

    def test_a_limit_keeps_all_classes(self, tree: Path) -> None:
        labels = read_folder(tree, seed=0, batch_size=8, limit=30).splits["train"].labels
        assert torch.bincount(labels).tolist() == [10, 10, 10]

    def test_each_batch_without_a_seed_has_all_classes(self, tree: Path) -> None:
        data = read_folder(tree, seed=0, batch_size=20)
        assert [len(set(labels.tolist())) for _, labels in data.batches("train")] == [3, 3, 3]
        assert [len(set(labels.tolist())) for _, labels in spread_batches(data, "train", 2)] == [3, 3]


def loaders_of_splits() -> tuple[list[tuple[Tensor, Tensor]], ...]:
    """What a user's function may return: a loader for each split."""
    batch = (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    return [batch] * 3, [batch], [batch]


def test_a_function_may_return_the_loaders_of_the_splits() -> None:
    found = open_data(f"{__name__}:loaders_of_splits")
    assert [found.num_batches(split) for split in ("train", "validation", "test")] == [3, 1, 1]
    assert found.name == f"{__name__}:loaders_of_splits"
