/* Loaded before the C library: the FAIL_AT'th write, fsync or rename to a regular file fails as on a full disk (FAIL_HOW=fail), or
   writes half (short); with `full` that one and all behind it fail. Makes the file FAIL_SAY when it does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_int calls;

/* 0: go on; 1: fail; 2: fall short. */
static int verdict(void) {
    const char *at = getenv("FAIL_AT"), *how = getenv("FAIL_HOW"), *say = getenv("FAIL_SAY");
    int call = ++calls, wanted = at ? atoi(at) : 0;
    int now = how && strcmp(how, "full") == 0 ? call >= wanted : call == wanted;
    if (!now || wanted == 0)
        return 0;
    if (say)
        close(open(say, O_CREAT | O_WRONLY, 0666));
    return how && strcmp(how, "short") == 0 ? 2 : 1;
}

static int is_file(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t n) {
    ssize_t (*next)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    int v = is_file(fd) ? verdict() : 0;
    if (v == 1) {
        errno = ENOSPC;
        return -1;
    }
    return next(fd, bytes, v == 2 && n > 1 ? n / 2 : n);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (is_file(fd) && verdict() == 1) {
        errno = ENOSPC;
        return -1;
    }
    return next(fd);
}

int rename(const char *from, const char *to) {
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    if (verdict() == 1) {
        errno = ENOSPC;
        return -1;
    }
    return next(from, to);
}
