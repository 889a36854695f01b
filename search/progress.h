/* progress.h - the live line on stderr: phase, done / planned, rate, ETA, and a text of the phase's own. On a terminal
 * one line that rewrites itself; in a pipe plain lines, at most one every few seconds. Log lines pass through it so
 * that both share the terminal. */
#ifndef NAS_SEARCH_PROGRESS_H
#define NAS_SEARCH_PROGRESS_H

#include "core/core.h"

typedef struct nas__progress {
    bool quiet, tty, shown;
    char phase[48];
    double done, first_done, planned;
    int64_t phase_start_ns, last_print_ns;
    char note[160];
} nas__progress;

void nas__progress_init(nas__progress *p, bool quiet);
/* nas__progress_phase - a new phase of `planned` units, of which `done` are there already (resume). */
void nas__progress_phase(nas__progress *p, const char *phase, double done, double planned);
void nas__progress_update(nas__progress *p, double done, const char *note_format, ...)
    __attribute__((format(printf, 3, 4)));
void nas__progress_end(
    nas__progress *p); /* prints the final state of the phase on a line of its own */
/* A nas_log_sink whose user is the nas__progress. */
void nas__progress_log(void *user, nas_log_level level, const char *line);

#endif
