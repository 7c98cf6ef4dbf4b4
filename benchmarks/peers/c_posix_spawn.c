/* The limit: posix_spawn and waitpid with nothing around them.
 *
 *   c_posix_spawn sequential|capture COUNT
 *   c_posix_spawn burst|capture-burst COUNT AT_ONCE      (COUNT rounds of AT_ONCE children)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct child {
    pid_t pid;
    int fds[2]; /* stdout, stderr; -1 when closed */
    char out[64];
    size_t got;
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double clock_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static double cpu_s(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
}

static void start(struct child *child, int capture) {
    static char *plain[] = {"/bin/true", NULL}, *echo[] = {"/bin/echo", "x", NULL};
    char **argv = capture ? echo : plain;
    int ends[2][2] = {{-1, -1}, {-1, -1}};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    for (int i = 0; i < 2; i++) {
        if (!capture) {
            posix_spawn_file_actions_addopen(&actions, i + 1, "/dev/null", O_WRONLY, 0);
            continue;
        }
        if (pipe2(ends[i], O_CLOEXEC) != 0) die("pipe2");
        posix_spawn_file_actions_adddup2(&actions, ends[i][1], i + 1);
    }
    if (posix_spawn(&child->pid, argv[0], &actions, NULL, argv, environ) != 0) die("posix_spawn");
    posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; i < 2; i++) {
        child->fds[i] = ends[i][0];
        if (capture) close(ends[i][1]);
    }
    child->got = 0;
}

/* Read every pipe of `count` children to its end. */
static void drain(struct child *children, int count) {
    struct pollfd *polls = calloc(2 * (size_t)count, sizeof *polls);
    int open = 2 * count;
    for (int i = 0; i < 2 * count; i++) polls[i] = (struct pollfd){children[i / 2].fds[i % 2], POLLIN, 0};
    while (open > 0) {
        if (poll(polls, 2 * (nfds_t)count, -1) < 0) die("poll");
        for (int i = 0; i < 2 * count; i++) {
            struct child *child = &children[i / 2];
            char scratch[4096];
            if (polls[i].fd < 0 || polls[i].revents == 0) continue;
            ssize_t n = read(polls[i].fd, scratch, sizeof scratch);
            if (n < 0) die("read");
            if (n == 0) {
                close(polls[i].fd);
                polls[i].fd = -1;
                open--;
            } else if (i % 2 == 0 && child->got + (size_t)n <= sizeof child->out) {
                memcpy(child->out + child->got, scratch, (size_t)n);
                child->got += (size_t)n;
            }
        }
    }
    free(polls);
}

static void together(int count, int capture) {
    struct child *children = calloc((size_t)count, sizeof *children);
    for (int i = 0; i < count; i++) start(&children[i], capture);
    if (capture) drain(children, count);
    for (int i = 0; i < count; i++) {
        int status;
        if (waitpid(children[i].pid, &status, 0) < 0) die("waitpid");
        if (status != 0 || (capture && (children[i].got != 2 || memcmp(children[i].out, "x\n", 2) != 0))) {
            fprintf(stderr, "a child failed: status %d, %zu bytes\n", status, children[i].got);
            exit(1);
        }
    }
    free(children);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int capture = strncmp(argv[1], "capture", 7) == 0;
    int count = atoi(argv[2]), at_once = argc > 3 && strstr(argv[1], "burst") ? atoi(argv[3]) : 1;
    together(10, capture);
    double cpu = cpu_s(), began = clock_s();
    for (int i = 0; i < count; i++) together(at_once, capture);
    double took = clock_s() - began, spawns = (double)count * at_once;
    printf("{\"rate\": %.3f, \"cpu_us\": %.3f}\n", spawns / took, (cpu_s() - cpu) / spawns * 1e6);
    return 0;
}
