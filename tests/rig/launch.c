/* launch.c - what the kernel of a fake phone starts for a program of another machine: qemu-user as that phone's processor.
 *
 * Registered with binfmt_misc (flags P and F), so argv is: this file's registered path, the program's path, the
 * program's argv[0], its arguments. The emulator and its options stand in the file "<registered path>.args", one a line:
 *   q TEXT         an argument for every program; the first is the emulator
 *   b TEXT         an argument for timed programs only, those whose first argument is --bench: the virtual clock
 *   e NAME=VALUE   an environment variable of the emulator, hidden from the program
 * A file, because programs on the phone are started with an empty environment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_MAX = 8192, OPTIONS_MAX = 64, FAILED = 126 };

static char text[TEXT_MAX];

static int fail(const char *what, const char *path) {
    fprintf(stderr, "launch: %s %s: %s\n", what, path, strerror(errno));
    return FAILED;
}

/* Reads the options into `text`; 0 when that cannot be done. */
static int read_options(const char *registered) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s.args", registered);
    FILE *f = fopen(path, "r");
    if (f == NULL) return 0;
    const size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    return fclose(f) == 0 && n > 0;
}

/* Fills `out` with the emulator's arguments, returns how many. */
static int options(int timed, char **out, int max) {
    int n = 0;
    for (char *line = text, *end; *line != '\0' && n + 2 < max; line = end) {
        end = line + strcspn(line, "\n");
        if (*end != '\0') *end++ = '\0';
        if (line[0] == '\0' || line[1] != ' ') continue;
        char *value = line + 2;
        if (line[0] == 'e') {
            char *equals = strchr(value, '=');
            if (equals == NULL) continue;
            *equals = '\0';
            (void)setenv(value, equals + 1, 1);
            out[n++] = "-U";
            out[n++] = value;
        } else if (line[0] == 'q' || (line[0] == 'b' && timed)) {
            out[n++] = value;
        }
    }
    return n;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "launch: is started by the kernel, see the comment in launch.c\n");
        return FAILED;
    }
    if (!read_options(argv[0])) return fail("cannot read the options of", argv[0]);
    char **all = calloc((size_t)argc + OPTIONS_MAX + 4, sizeof *all);
    if (all == NULL) return fail("no memory for", argv[1]);
    int n = options(argc > 3 && strcmp(argv[3], "--bench") == 0, all, OPTIONS_MAX);
    if (n == 0) return fail("no emulator for", argv[1]);
    all[n++] = "-0";
    all[n++] = argv[2];
    all[n++] = argv[1];
    for (int i = 3; i < argc; i++)
        all[n++] = argv[i];
    (void)execv(all[0], all);
    return fail("cannot start", all[0]);
}
