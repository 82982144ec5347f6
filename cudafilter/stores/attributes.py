"""The owner, permissions, access lists and attributes of a file, which a new content keeps."""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_OF_CONTENT = {"security.capability", "security.ima", "security.evm"}
"""Attributes that vouch for the old content, so the new one must not inherit them."""


def new_mode(folder: str) -> int:
    """The permissions that a new file in *folder* gets: by its default access list, or the umask.

    Raises OSError where there is no such folder.
    """
    default = _default_list(folder)
    return 0o666 & (~_umask() if default is None else default)


def carry_over(old: os.stat_result, path: Path, file: int) -> tuple[str, ...]:
    """Give the open *file* the attributes of the file *path*, whose state is *old*.

    Permissions come last, and are no wider for anybody than they were. Returns notes that name what
    could not be kept.
    """
    notes = []
    mode = stat.S_IMODE(old.st_mode)
    kept_owner, kept_group = _carry_owner(old, file)
    if not (kept_owner and kept_group):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
        lost = " and ".join(
            name for name, kept in (("owner", kept_owner), ("group", kept_group)) if not kept
        )
        notes.append(f"its {lost} could not be kept, and the file is yours now")
    lost_attributes = _carry_attributes(path, file)
    if not kept_group or _ACCESS in lost_attributes:
        # The owner changed, so the bits now hold for other people.
        mode &= ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    os.fchmod(file, mode)
    if _ACCESS in lost_attributes:
        notes.append("its access control list could not be kept")
        lost_attributes.remove(_ACCESS)
    if lost_attributes:
        notes.append(f"extended attributes could not be kept: {', '.join(lost_attributes)}")
    if old.st_nlink > 1:
        others = "the other name keeps" if old.st_nlink == 2 else "the other names keep"
        notes.append(f"it had {old.st_nlink} hard links, and {others} the old picture")
    return tuple(notes)


def _carry_owner(old: os.stat_result, file: int) -> tuple[bool, bool]:
    """Whether the owner and the group of *file* are now those of *old*."""
    now = os.fstat(file)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(file, old.st_uid, old.st_gid)
        except OSError:
            with suppress(OSError):  # users may still choose among their groups
                os.fchown(file, -1, old.st_gid)
        now = os.fstat(file)
    return now.st_uid == old.st_uid, now.st_gid == old.st_gid


def _carry_attributes(path: Path, file: int) -> list[str]:
    """Copy the extended attributes, access lists among them; the names of those that are lost."""
    if not hasattr(os, "listxattr"):
        return []
    try:
        names = os.listxattr(path)
    except OSError:  # the file system has none
        return []
    lost = []
    if _ACCESS not in names:
        with suppress(OSError):  # one that came from the folder's default
            os.removexattr(file, _ACCESS)
    for name in names:
        if name in _OF_CONTENT:
            continue
        try:
            os.setxattr(file, name, os.getxattr(path, name))
        except OSError:
            # Labels of security modules are left to these.
            if not name.startswith("security."):
                lost.append(name)
    return lost


def _default_list(folder: str) -> int | None:
    """The permissions that the default access list of *folder* grants; None where it has none."""
    if not hasattr(os, "getxattr"):
        os.stat(folder)
        return None
    try:
        value = os.getxattr(folder, _DEFAULT)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError:
        return None
    # <linux/posix_acl_xattr.h>: a version, then entries of a tag, permissions and an id.
    granted = {tag: bits for tag, bits, _ in struct.iter_unpack("<HHI", value[4:])}
    owner, group, mask, others = (granted.get(tag) for tag in (0x01, 0x04, 0x10, 0x20))
    return (owner or 0) << 6 | ((group if mask is None else mask) or 0) << 3 | (others or 0)


def _umask() -> int:
    """The process's umask. Only where the system does not tell it, it is set for an instant."""
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
