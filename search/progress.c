/* progress.c - see progress.h. */
#include "search/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TTY_EVERY_MS = 200, PIPE_EVERY_MS = 5000 };

void nas__progress_init(nas__progress *p, bool quiet) {
    *p = (nas__progress){.quiet = quiet, .tty = isatty(STDERR_FILENO) == 1};
}

static void format_seconds(double s, char *out, size_t size) {
    if (s < 0 || s > 360000) {
        (void)snprintf(out, size, "?");
    } else if (s < 90) {
        (void)snprintf(out, size, "%.0f s", s);
    } else {
        (void)snprintf(out, size, "%d min %02d s", (int)s / 60, (int)s % 60);
    }
}

static void print_line(nas__progress *p, bool last) {
    const int64_t now = nas_now_ns();
    p->last_print_ns = now;
    const double seconds = (double)(now - p->phase_start_ns) * 1e-9;
    const double fresh = p->done - p->first_done;
    const double rate = seconds > 0 ? fresh / seconds : 0;
    char eta[32], took[32], line[400];
    format_seconds(rate > 0 ? (p->planned - p->done) / rate : -1, eta, sizeof eta);
    format_seconds(seconds, took, sizeof took);
    int n = snprintf(line, sizeof line, "[%s] %.0f/%.0f", p->phase, p->done, p->planned);
    if (n > 0 && !last && fresh > 0) {
        n += snprintf(line + n, sizeof line - (size_t)n, "  %.3g/s  ETA %s", rate, eta);
    }
    if (n > 0 && last) n += snprintf(line + n, sizeof line - (size_t)n, "  done in %s", took);
    if (n > 0 && p->note[0] != '\0')
        (void)snprintf(line + n, sizeof line - (size_t)n, "  %s", p->note);
    if (p->tty) {
        fprintf(stderr, "\r\x1b[K%.*s%s", 150, line, last ? "\n" : "");
        p->shown = !last;
    } else {
        fprintf(stderr, "%s\n", line);
    }
    fflush(stderr);
}

void nas__progress_phase(nas__progress *p, const char *phase, double done, double planned) {
    (void)snprintf(p->phase, sizeof p->phase, "%s", phase);
    p->done = p->first_done = done;
    p->planned = planned;
    p->phase_start_ns = nas_now_ns();
    p->last_print_ns = 0;
    p->note[0] = '\0';
}

void nas__progress_update(nas__progress *p, double done, const char *note_format, ...) {
    p->done = done;
    va_list args;
    va_start(args, note_format);
    (void)vsnprintf(p->note, sizeof p->note, note_format, args);
    va_end(args);
    const int64_t every = (p->tty ? TTY_EVERY_MS : PIPE_EVERY_MS) * (int64_t)1000000;
    if (!p->quiet && nas_now_ns() - p->last_print_ns >= every) print_line(p, false);
}

void nas__progress_end(nas__progress *p) {
    if (!p->quiet) print_line(p, true);
}

void nas__progress_log(void *user, nas_log_level level, const char *line) {
    nas__progress *p = user;
    static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
    fprintf(stderr, "%s%s%s\n", p->shown ? "\r\x1b[K" : "", prefix[level], line);
    p->shown = false;
}
