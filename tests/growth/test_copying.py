import errno
import os
import struct

import pytest

from solar.growth.files import copying


@pytest.fixture
def files(tmp_path):
    """A source of 20,000 bytes and an empty target of 24,000, open."""
    content = bytes(i % 251 for i in range(20_000))
    (tmp_path / "source").write_bytes(content)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    os.ftruncate(target, 24_000)
    yield source, target, content
    os.close(source)
    os.close(target)


def fail(number):
    def raises(*parts):
        raise OSError(number, os.strerror(number))

    return raises


@pytest.fixture
def sharing(monkeypatch):
    """A file system that shares whole blocks; the ranges it was asked to share."""
    shared = []

    def ioctl(target, request, asked):
        source, start, count, place = struct.unpack("qQQQ", asked)
        if request != 0x4020940D or start % 4096 or place % 4096 or count % 4096:
            raise OSError(errno.EINVAL, "not whole blocks")
        shared.append((start, count, place))
        os.pwrite(target, os.pread(source, count, start), place)

    monkeypatch.setattr(copying.fcntl, "ioctl", ioctl)
    return shared


@pytest.mark.parametrize("buffer_bytes", [1, 700, 256 << 10])
@pytest.mark.parametrize(("start", "place", "count"), [(100, 1000, 4000), (0, 0, 20_000), (9, 9, 0), (8191, 3, 11_000)])
def test_the_range_is_moved_and_nothing_else(start, place, count, buffer_bytes, files, monkeypatch):
    source, target, content = files
    monkeypatch.setattr(copying, "_BUFFER_BYTES", buffer_bytes)
    copying.copy_range(source, target, start, place, count)
    assert os.pread(target, 24_000, 0) == bytes(place) + content[start : start + count] + bytes(24_000 - place - count)


def test_whole_blocks_are_shared_and_the_rest_copied(sharing, files):
    source, target, content = files
    copying.copy_range(source, target, 100, 4096 + 100, 12_500)
    assert sharing == [(4096, 8192, 8192)]
    assert os.pread(target, 12_500, 4196) == content[100:12_600]


def test_ranges_that_lie_differently_in_blocks_are_copied(sharing, files):
    source, target, content = files
    copying.copy_range(source, target, 100, 0, 12_500)
    assert not sharing and os.pread(target, 12_500, 0) == content[100:12_600]


def test_a_source_that_ends_early_is_an_error(files):
    source, target, _ = files
    with pytest.raises(OSError, match="early"):
        copying.copy_range(source, target, 19_000, 0, 2000)


def test_an_error_of_the_disk_is_not_taken_for_a_missing_feature(files, monkeypatch):
    source, target, _ = files
    monkeypatch.setattr(copying.fcntl, "ioctl", fail(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        copying.copy_range(source, target, 0, 0, 8192)


def test_a_full_disk_is_told_before_anything_is_copied(files, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", fail(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        copying.allocate(files[1], 10**6)


def test_a_file_system_that_cannot_allocate_gives_the_size_all_the_same(files, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", fail(errno.EOPNOTSUPP))
    copying.allocate(files[1], 30_000)
    assert os.fstat(files[1]).st_size == 30_000
