"""How the files of a file system are read, where the kernel does not say what of them is cached.

`preadv2(RWF_NOWAIT)` reads what the page cache has and nothing else. ext4, XFS, Btrfs, F2FS and block devices have it;
overlayfs, on which containers run, tmpfs and most others refuse it (Linux 6.18). Of those this says which may be read by
pread on the caller's own thread.
"""

from _uring.kernel cimport RWF_NOWAIT, fstat, iovec, preadv2, stat_t

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport int64_t

cdef extern from * nogil:
    """
    #include <sys/sysmacros.h>
    #include <sys/vfs.h>
    """
    struct statfs_t "statfs":
        long f_type
    int fstatfs(int fd, statfs_t *answer)
    unsigned major(uint64_t device)

# linux/magic.h
cdef enum:
    OVERLAYFS = 0x794C7630
    TMPFS = 0x01021994
    RAMFS = 0x858458F6
    FUSE = 0x65735546
# statx(2): the file system keeps chattr's `d`. Those that do have their files on a device of this machine or in memory (ext4,
# XFS, Btrfs, tmpfs); FUSE does not, and no network file system is known to. overlayfs passes on what the file below it says.
cdef uint64_t ATTR_NODUMP = 0x40
# File systems that make up their content on reading; st_size and st_mtime say nothing there (linux/magic.h). Some of their
# files wait when they are read, or can be read once only, so these are not tried (`has_bytes_past_size`).
cdef set SYNTHETIC = {
    0x9FA0,  # proc
    0x62656572,  # sysfs
    0x27E0EB,  # cgroup
    0x63677270,  # cgroup2
    0x64626720,  # debugfs
    0x74726163,  # tracefs
    0xCAFE4A11,  # bpf
    0x62656570,  # configfs
    0x73636673,  # securityfs
    0x42494E4D,  # binfmt_misc
    0x65735543,  # fusectl
    0xF97CFF8C,  # selinuxfs
    0x43415D53,  # smackfs
    0x7655821,  # resctrl
    0xDE5E81E4,  # efivarfs
    0x6165676C,  # pstore
}
# File systems whose mappings show the pages of the page cache, in step with read(2). Not overlayfs: a mapping goes on to show the
# lower file after it is copied up, and a container cannot see what the layers are.
cdef set MAPPABLE = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # xfs
    0x9123683E,  # btrfs
    0x01021994,  # tmpfs
}
# File systems whose fstat reads memory only while a file is open (linux/magic.h). Others may ask a server, or a thread of this
# process that waits for the GIL (FUSE).
cdef set PROMPT = MAPPABLE | {0xF2F52010}  # and f2fs


cdef bint is_made_up(int fd) noexcept:
    """Whether the file is of a file system that makes up its content."""
    cdef statfs_t system
    return fstatfs(fd, &system) == 0 and system.f_type in SYNTHETIC


cdef int way_of(int fd, uint64_t device, uint64_t attributes) noexcept:
    """TOLD, or another way. device: st_dev. attributes: statx's stx_attributes_mask, 0 if unknown."""
    cdef statfs_t system
    cdef iovec nothing
    cdef char byte
    cdef unsigned kind
    nothing.iov_base, nothing.iov_len = &byte, 1
    # Past every end: a question that starts no read-ahead.
    if preadv2(fd, &nothing, 1, <int64_t>1 << 62, RWF_NOWAIT) >= 0 or errno == EAGAIN:
        return TOLD
    if fstatfs(fd, &system) != 0:
        return REMOTE
    kind = <unsigned>system.f_type
    if kind == TMPFS or kind == RAMFS:
        return MEMORY
    if kind == OVERLAYFS:
        return LOCAL if attributes & ATTR_NODUMP else REMOTE
    # On a block device (squashfs, EROFS, VFAT), unless a process serves it from there (fuseblk).
    return LOCAL if kind != FUSE and major(device) else REMOTE


cdef bint has_prompt_fstat(int fd):
    """Whether fstat of the file returns without waiting."""
    cdef statfs_t system
    return fstatfs(fd, &system) == 0 and system.f_type in PROMPT


cdef bint has_mappable_pages(int fd, int64_t size):
    """Whether the file may be copied out of a mapping. Not one of tmpfs with holes: touching a hole would allocate a page."""
    cdef statfs_t system
    cdef stat_t file
    if fstatfs(fd, &system) != 0 or system.f_type not in MAPPABLE:
        return False
    return system.f_type != TMPFS or fstat(fd, &file) == 0 and file.st_blocks << 9 >= size
