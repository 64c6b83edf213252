"""MRC maps and stacks: modes, byte orders, damage."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tiltwise.errors import DataError, FormatError, OutputError
from tiltwise.io.mrc import open_stack, read_header, read_map, single, split_image_name, write_map


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(6, 5, 4)).astype(np.float32)


def patch(path: Path, offset: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)


def test_round_trip(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, volume, 1.35)
    again, pixel = read_map(path)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, volume)
    assert pixel == pytest.approx(1.35, rel=1e-6)  # the header holds float32
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]


def test_equal_maps_give_equal_bytes_and_relions_header(tmp_path: Path, volume: np.ndarray) -> None:
    for name in ("a.mrc", "b.mrcs"):
        write_map(tmp_path / name, volume, 2.0)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrcs").read_bytes()
    with mrcfile.open(tmp_path / "a.mrc") as file:
        header = file.header
        assert (header.ispg, header.nsymbt, header.mz, header.mode) == (0, 0, 6, 2)
        assert (header.mapc, header.mapr, header.maps) == (1, 2, 3)
        assert float(header.dmax) == pytest.approx(float(volume.max()))
        np.testing.assert_array_equal(file.data, volume)


def test_float16(tmp_path: Path, volume: np.ndarray) -> None:
    write_map(tmp_path / "h.mrc", volume, 2.0, "float16")
    assert read_header(tmp_path / "h.mrc").dtype == np.float16
    again, _ = read_map(tmp_path / "h.mrc")
    # float16 rounds to 11 bits.
    assert np.all(np.abs(again - volume) <= 2.0**-11 * np.abs(volume) + 2.0**-14)
    small = volume.copy()
    small[0, 0, 0] = 3e-5
    write_map(tmp_path / "s.mrc", small, 2.0, "float16")
    assert read_map(tmp_path / "s.mrc")[0][0, 0, 0] == 0
    with pytest.raises(DataError, match="too large for float16"):
        write_map(tmp_path / "l.mrc", volume * 1e5, 2.0, "float16")
    with pytest.raises(DataError, match="too small for float16"):
        write_map(tmp_path / "t.mrc", volume * 1e-5, 2.0, "float16")
    partly = np.full((2, 5, 5), 1e-4)
    partly[0, 0] = 5e-5
    with pytest.raises(DataError, match="too small for float16"):
        write_map(tmp_path / "t.mrc", partly, 2.0, "float16")
    assert not (tmp_path / "l.mrc").exists()
    write_map(tmp_path / "z.mrc", np.zeros((2, 2, 2)), 2.0, "float16")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
def test_modes_and_byte_orders(tmp_path: Path, mode: int, kind: str, order: str) -> None:
    values = np.arange(24).reshape(4, 3, 2) - (0 if mode == 6 else 7)
    header = np.zeros((), mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order))
    header["nx"], header["ny"], header["nz"], header["mode"] = 2, 3, 4, mode
    header["mx"], header["my"], header["mz"] = 2, 3, 4
    header["cella"]["x"], header["cella"]["y"], header["cella"]["z"] = 5, 7.5, 10
    header["nsymbt"] = 16
    for stamp in (b"", b"\x44\x41" if order == "<" else b"\x11\x11", b"\x44\x44"):
        # Old files have neither the MAP mark nor a stamp, and stamps can lie.
        header["machst"] = np.frombuffer(stamp.ljust(4, b"\0"), np.uint8)
        path = tmp_path / "m.mrc"
        path.write_bytes(header.tobytes() + b"e" * 16 + values.astype(order + kind).tobytes())
        again, pixel = read_map(path)
        np.testing.assert_array_equal(again, values)
        assert pixel == 2.5


@pytest.mark.parametrize(("mode", "word"), [(3, "complex"), (4, "complex"), (16, "RGB"), (101, "4-bit")])
def test_refused_modes(tmp_path: Path, volume: np.ndarray, mode: int, word: str) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, volume, 1.0)
    patch(path, 12, mode.to_bytes(4, "little"))
    with pytest.raises(FormatError, match=rf"not supported[\s\S]*mode {mode} \(.*{word}[\s\S]*fix"):
        read_map(path)


def test_truncated_files_say_how_much_is_missing(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, volume, 1.0)
    whole = path.read_bytes()
    assert len(whole) == 1024 + 480
    path.write_bytes(whole[:-1])
    with pytest.raises(FormatError, match=r"truncated[\s\S]*expected: 1504 bytes[\s\S]*found: 1503 bytes"):
        read_map(path)
    path.write_bytes(whole[:500])
    with pytest.raises(FormatError, match=r"truncated[\s\S]*1024 bytes[\s\S]*500 bytes"):
        read_map(path)
    path.write_bytes(b"not an MRC file " * 100)
    with pytest.raises(FormatError, match="not an MRC file"):
        read_map(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_map(tmp_path / "absent.mrc")


def test_permuted_axes_are_put_in_order(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    # Columns along z, rows along x, sections along y.
    write_map(path, np.ascontiguousarray(volume.transpose(1, 2, 0)), 1.0)
    for offset, axis in ((64, 3), (68, 1), (72, 2)):
        patch(path, offset, axis.to_bytes(4, "little"))
    np.testing.assert_array_equal(read_map(path)[0], volume)
    with pytest.raises(FormatError, match="axes of an image stack"):
        open_stack(path)
    patch(path, 64, (1).to_bytes(4, "little"))
    with pytest.raises(FormatError, match="axes of an MRC file"):
        read_map(path)


def test_voxels_that_are_not_cubes(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, volume, 1.0)
    patch(path, 40, np.float32(8).tobytes())
    with pytest.raises(FormatError, match=r"not cubes[\s\S]*2, 1, 1"):
        read_map(path)


def test_stack_sections_and_windows(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "series.st"
    write_map(path, volume, 2.0)
    with open_stack(f"{path}:mrc") as stack:
        assert (stack.shape, len(stack), stack.pixel_size) == ((6, 5, 4), 6, 2.0)
        np.testing.assert_array_equal(stack.section(2), volume[2])
        window = stack.window(5, slice(1, 4), slice(2, 4))
        assert window.dtype == np.float32
        assert window.flags.writeable
        np.testing.assert_array_equal(window, volume[5, 1:4, 2:4])
        for index in (-1, 6):
            with pytest.raises(FormatError, match=r"no such section[\s\S]*sections 1 to 6"):
                stack.section(index)
    with pytest.raises(ValueError, match="closed"):
        stack.section(0)


def test_image_names() -> None:
    assert split_image_name("000012@a/b.mrcs") == ("a/b.mrcs", 11)
    assert split_image_name("a/b.st:mrc") == ("a/b.st", None)
    assert split_image_name("3@a.st:mrcs") == ("a.st", 2)
    assert split_image_name("c:/x.mrc") == ("c:/x.mrc", None)
    for bad in ("0@a.mrcs", "x@a.mrcs", "@a.mrcs"):
        with pytest.raises(FormatError, match="image name"):
            split_image_name(bad)


def test_values_that_cannot_be_written(tmp_path: Path, volume: np.ndarray) -> None:
    volume[1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r"NaN[\s\S]*1 of 120, first at index \[1, 2, 3\]"):
        write_map(tmp_path / "a.mrc", volume, 1.0)
    with pytest.raises(ValueError, match="three axes"):
        write_map(tmp_path / "a.mrc", volume[0], 1.0)
    with pytest.raises(OutputError):
        write_map(tmp_path / "absent" / "a.mrc", np.zeros((2, 2, 2)), 1.0)
    assert list(tmp_path.iterdir()) == []


def test_real_maps_agree_with_mrcfile(shared_data: Path) -> None:
    files = [
        "data/maps/EMD-3197.map",
        "data/maps/ribo80s_emd_3883_866_64_resized.mrc",
        "data/real_70S_warptools_2dstacks/warptools_test_box-32_angpix-12_reconstruct.mrc",
        "golden/refine/ref30.mrc",
    ]
    for name in files:
        data, pixel = read_map(shared_data / name)
        with mrcfile.open(shared_data / name) as file:
            np.testing.assert_array_equal(data, file.data.astype(np.float32))
            assert pixel == pytest.approx(float(file.voxel_size.x), rel=1e-6)
    assert read_map(shared_data / "data/cryocat_formats/tilt_stack.mrc")[1] == 0.0


def test_half_precision_is_read_exactly() -> None:
    """All numbers there are, subnormal ones included; infinities and NaN stay what they are."""
    everything = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = everything[np.isfinite(everything)].reshape(2, -1)
    np.testing.assert_array_equal(single(finite).view(np.int32), finite.astype(np.float32).view(np.int32))
    np.testing.assert_array_equal(single(everything), everything.astype(np.float32))
    assert single(finite[:, ::3]).shape == finite[:, ::3].shape
    assert single(finite[:, :0]).shape == (2, 0)
