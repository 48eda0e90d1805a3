/* Preloaded into a server: notes what it writes, and what it has synced, so that a power cut can
   take what it had not. See unsynced.py, which reads the notes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct note {
    uint32_t kind, kept;           /* kept: bytes of the old contents that follow */
    uint64_t inode, at, size, more; /* size: of the file before; more: length, or number of a sync */
};

static int notes = -1;
static uint64_t syncs;
static char *buffer;
static size_t room;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("AQUIPU_UNSYNCED");
    real_write = REAL(write);
    real_writev = REAL(writev);
    if (path == NULL)
        return;
    int found = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (found < 0)
        abort();
    notes = fcntl(found, F_DUPFD_CLOEXEC, 900);
    close(found);
    if (notes < 0)
        abort();
}

static void say(struct note *note, const void *data)
{
    struct iovec parts[2] = {{note, sizeof *note}, {(void *)data, note->kept}};
    size_t whole = sizeof *note + note->kept;
    if (real_writev(notes, parts, note->kept ? 2 : 1) != (ssize_t)whole)
        abort(); /* a note that is missing would make a cut harmless */
}

static int is_noted(int file, struct stat *found)
{
    return notes >= 0 && file != notes && fstat(file, found) == 0 && S_ISREG(found->st_mode);
}

static void read_old(int file, size_t size, off_t at)
{
    if (size > room) {
        buffer = realloc(buffer, room = size);
        if (buffer == NULL)
            abort();
    }
    int readable = file, access = fcntl(file, F_GETFL) & O_ACCMODE;
    if (access == O_WRONLY) {
        char name[64] = "/proc/self/fd/", digits[16];
        int count = 0, length = 14;
        for (int rest = file; rest || !count; rest /= 10)
            digits[count++] = (char)('0' + rest % 10);
        while (count)
            name[length++] = digits[--count];
        name[length] = 0;
        readable = open(name, O_RDONLY);
    }
    size_t done = 0;
    while (done < size) {
        ssize_t more = pread(readable, buffer + done, size - done, at + (off_t)done);
        if (more <= 0)
            abort();
        done += (size_t)more;
    }
    if (readable != file)
        close(readable);
}

static void note_write(int file, size_t size, off_t at)
{
    struct stat found;
    if (!size || !is_noted(file, &found))
        return;
    size_t kept = at < found.st_size ? (size_t)(found.st_size - at) : 0;
    if (kept > size)
        kept = size;
    if (kept)
        read_old(file, kept, at);
    struct note note = {'W', (uint32_t)kept, found.st_ino, (uint64_t)at,
                        (uint64_t)found.st_size, size};
    say(&note, buffer);
}

static void note_inode(char kind, const struct stat *found, uint64_t more)
{
    struct note note = {(uint32_t)kind, 0, found->st_ino, 0, (uint64_t)found->st_size, more};
    say(&note, NULL);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at)
{
    static __typeof__(&pwrite) real;
    if (!real)
        real = REAL(pwrite);
    note_write(file, size, at);
    return real(file, data, size, at);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at)
{
    static __typeof__(&pwritev) real;
    size_t size = 0;
    if (!real)
        real = REAL(pwritev);
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    note_write(file, size, at);
    return real(file, parts, count, at);
}

ssize_t write(int file, const void *data, size_t size)
{
    if (notes >= 0 && !(fcntl(file, F_GETFL) & O_APPEND)) {
        off_t at = lseek(file, 0, SEEK_CUR);
        if (at >= 0)
            note_write(file, size, at);
    }
    return real_write(file, data, size);
}

static int synced(int file, int (*real)(int))
{
    struct stat found;
    int is = is_noted(file, &found);
    uint64_t number = ((uint64_t)getpid() << 32) + ++syncs;
    if (is)
        note_inode('S', &found, number);
    int done = real(file);
    if (is && done == 0)
        note_inode('E', &found, number);
    return done;
}

int fsync(int file)
{
    static __typeof__(&fsync) real;
    if (!real)
        real = REAL(fsync);
    return synced(file, real);
}

int fdatasync(int file)
{
    static __typeof__(&fdatasync) real;
    if (!real)
        real = REAL(fdatasync);
    return synced(file, real);
}

int ftruncate(int file, off_t size)
{
    static __typeof__(&ftruncate) real;
    struct stat found;
    if (!real)
        real = REAL(ftruncate);
    if (is_noted(file, &found))
        note_inode('T', &found, (uint64_t)size);
    return real(file, size);
}

int truncate(const char *path, off_t size)
{
    static __typeof__(&truncate) real;
    struct stat found;
    if (!real)
        real = REAL(truncate);
    if (notes >= 0 && stat(path, &found) == 0)
        note_inode('T', &found, (uint64_t)size);
    return real(path, size);
}

int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    struct stat found;
    mode_t mode = 0;
    if (!real)
        real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    if (flags & O_CREAT) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (notes >= 0 && (flags & O_TRUNC) && stat(path, &found) == 0 && S_ISREG(found.st_mode))
        note_inode('T', &found, 0);
    return real(path, flags, mode);
}

static void note_gone(const char *path)
{
    struct stat found;
    if (notes >= 0 && lstat(path, &found) == 0 && S_ISREG(found.st_mode) && found.st_nlink == 1)
        note_inode('U', &found, 0);
}

int unlink(const char *path)
{
    static __typeof__(&unlink) real;
    if (!real)
        real = REAL(unlink);
    note_gone(path);
    return real(path);
}

int rename(const char *from, const char *to)
{
    static __typeof__(&rename) real;
    if (!real)
        real = REAL(rename);
    note_gone(to);
    return real(from, to);
}
