/* A disk that fails: preloaded, it lets FAULT_AFTER bytes be written to files below FAULT_PATH and answers FAULT (an errno)
   from then on. FAULT_NO_LINKS: link and symlink answer EPERM, as exFAT does, and fsync of a folder EINVAL, as SMB does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long long written;

static int below(int fd) {
    char name[64], path[4096];
    const char *place = getenv("FAULT_PATH");
    if (place == NULL) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strncmp(path, place, strlen(place)) == 0;
}

static int fails(int fd, size_t bytes) {
    const char *after = getenv("FAULT_AFTER");
    if (after == NULL || !below(fd)) return 0;
    if (__sync_add_and_fetch(&written, (long long)bytes) <= atoll(after)) return 0;
    errno = atoi(getenv("FAULT"));
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    return fails(fd, count) ? -1 : real(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t place) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return fails(fd, count) ? -1 : real(fd, bytes, count, place);
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    size_t count = 0;
    for (int i = 0; i < number; i++) count += parts[i].iov_len;
    return fails(fd, count) ? -1 : real(fd, parts, number);
}

int link(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    if (getenv("FAULT_NO_LINKS")) { errno = EPERM; return -1; }
    return real(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
    if (getenv("FAULT_NO_LINKS")) { errno = EPERM; return -1; }
    return real(a, from, b, to, flags);
}

int symlink(const char *to, const char *name) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "symlink");
    if (getenv("FAULT_NO_LINKS")) { errno = EPERM; return -1; }
    return real(to, name);
}

int symlinkat(const char *to, int fd, const char *name) {
    int (*real)(const char *, int, const char *) = dlsym(RTLD_NEXT, "symlinkat");
    if (getenv("FAULT_NO_LINKS")) { errno = EPERM; return -1; }
    return real(to, fd, name);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    struct stat found;
    if (getenv("FAULT_NO_LINKS") && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) { errno = EINVAL; return -1; }
    return real(fd);
}
